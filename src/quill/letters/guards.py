"""Who may call the routes about letters."""

from typing import Annotated

from fastapi import Depends

from quill.access.guards import PatientReadGuard, PatientWriteGuard
from quill.access.service import Requirement
from quill.actor import Actor
from quill.identity.catalogue import ACCESS_PATIENT_RECORDS, CLINICIAN

LetterReader = Annotated[
    Actor,
    Depends(PatientReadGuard(Requirement(competency=ACCESS_PATIENT_RECORDS, is_clinical=True)), scope="function"),
]
"""Whoever may read the record of the patient in the path: staff who share it, the patient, people with a grant."""

LetterWriter = Annotated[
    Actor,
    Depends(
        PatientWriteGuard(Requirement(role=CLINICIAN, competency=ACCESS_PATIENT_RECORDS, is_clinical=True)),
        scope="function",
    ),
]
"""A clinician who may read the record of the patient in the path."""
