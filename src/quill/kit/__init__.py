"""Tools with nothing clinical in them: clock, ids, JSON, database engine, paging, text folding, logging.

Everything else may import the kit; the kit imports nothing of ours.
"""
