"""Devices that want to be told: browsers' push subscriptions, each bound to one person.

Depends on the outbox for when to tell, and on the push port for how. Whether a person may still be told is asked at
every delivery.
"""
