"""Live updates: what happens is told to open browsers as it happens, as server-sent events.

Each event names ids and nothing else, and only to those who may see it at that very moment. Depends on the outbox for
the events and on conversations and access for who may see.
"""
