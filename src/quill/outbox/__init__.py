"""What must reach somebody outside, kept until it has: mail, push notifications, and the live events of browsers.

An entry is a row of the transaction that caused it, so it exists exactly when that is durable. A worker delivers it at
least once, tries again with growing pauses, and gives up after a time that fits what it says. Live events are rows
too, so that a browser which was away for a moment catches up. Whether somebody may still be told is asked at
delivery. Depends on the ports for mail; who owns which device is the push slice's knowledge.
"""
