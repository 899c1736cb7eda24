"""Conversations: messages about a patient between the people who care and the patient.

FHIR Communications are the source of truth (a header per conversation, messages part of it); the tables here are their
projection, with counters kept when a message is written. Depends on patients for the subject, on identity for people,
on access for the patient's circle, and on intents for writing.
"""
