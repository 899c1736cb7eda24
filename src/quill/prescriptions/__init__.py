"""Prescriptions: orders of medicines as FHIR MedicationRequests, and the list of a patient's.

The FHIR store is the source of truth; ``prescription`` is its projection for the list. Depends on patients for whether
a record takes entries, on access for rights, and on intents for writing.
"""
