"""The HTTP side of the house: request ids, headers, origin checks, problem documents, units, input rules, paging.

Knows FastAPI so that services need not. Depends on the unit and the error tree; knows no slice.
"""
