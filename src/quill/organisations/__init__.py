"""Organisations: practices, teams and clinics, who works in them, which patients they care for, what clients show.

Depends on identity for memberships and on access for rights.
"""
