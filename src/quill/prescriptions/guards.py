"""Who may call the routes about prescriptions."""

from typing import Annotated

from fastapi import Depends

from quill.access.guards import PatientReadGuard, WriteGuard
from quill.access.service import Requirement
from quill.actor import Actor
from quill.identity.catalogue import ACCESS_PATIENT_RECORDS, PRESCRIBE_CONTROLLED

PrescriptionReader = Annotated[
    Actor,
    Depends(PatientReadGuard(Requirement(competency=ACCESS_PATIENT_RECORDS, is_clinical=True)), scope="function"),
]
"""Whoever may read the record of the patient in the path."""

ControlledPrescriber = Annotated[
    Actor, Depends(WriteGuard(Requirement(competency=PRESCRIBE_CONTROLLED, is_clinical=True)), scope="function")
]
"""Whoever may prescribe controlled medicines; the tie to the patient in the body is asked by the service."""
