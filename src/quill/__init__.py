"""Quill: a server for clinical communication.

Patients and clinics exchange messages about a patient, clinicians write clinical letters, administrators run
organisations, people and rights. Start with ``docs/architecture.md`` for how the rooms hang together.
"""
