"""The doors to clinical record stores: protocols and frozen value objects, nothing else.

An embedded and a remote adapter stand behind each port and pass the same suite (``tests/contracts``).
"""
