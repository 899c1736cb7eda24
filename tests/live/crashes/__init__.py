"""Proof by violence that nothing acknowledged is lost: load, ``kill -9`` at a random moment, and a count of everything.

``python -m tests.live.crashes --store embedded --victim program --rounds 20 --rate 100``

Each round sends operations at a fixed rate, kills the victim, starts it again, repeats some of the operations with
their idempotency keys, then reads everything back by three ways (HTTP, Quill's own tables, the clinical stores) and
compares it with what the clients were told. ``docs/crashes.md`` tells what was found.
"""
