"""Patients: demographics as FHIR Patient resources, and the list that finds them.

The FHIR store is the source of truth; ``patient_index`` is its projection for lists and searches, and holds what is
Quill's own, such as whether a record is deactivated. Depends on access for the circle of a patient, on identity for
memberships, and on intents for writing.
"""
