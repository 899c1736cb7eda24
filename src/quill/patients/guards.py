"""Who may call the routes about patients."""

from typing import Annotated

from fastapi import Depends

from quill.access.guards import PatientReadGuard, PatientWriteGuard, ReadGuard, WriteGuard
from quill.access.service import Requirement
from quill.actor import Actor, Level
from quill.identity.catalogue import ACCESS_PATIENT_RECORDS, CLINICIAN, MODIFY_PATIENT_RECORDS

STAFF_ONLY = "Requires staff permissions"

_READS = Requirement(competency=ACCESS_PATIENT_RECORDS, is_clinical=True)
_MODIFIES = Requirement(
    level=Level.STAFF,
    level_sentence=STAFF_ONLY,
    competency=MODIFY_PATIENT_RECORDS,
    admin_suffices=True,
    is_clinical=True,
)
_CLINICIAN_MODIFIES = Requirement(
    level=Level.STAFF,
    level_sentence=STAFF_ONLY,
    role=CLINICIAN,
    competency=MODIFY_PATIENT_RECORDS,
    is_clinical=True,
)


def _admin(sentence: str) -> PatientWriteGuard:
    return PatientWriteGuard(Requirement(level=Level.ADMIN, level_sentence=sentence, is_clinical=True))


PatientListReader = Annotated[Actor, Depends(ReadGuard(_READS), scope="function")]
"""Whoever may read records; the list holds those of the caller's own circle."""

PatientReader = Annotated[Actor, Depends(PatientReadGuard(_READS), scope="function")]
"""Whoever may read the record of the patient in the path."""

PatientVerifier = Annotated[Actor, Depends(WriteGuard(Requirement(role=CLINICIAN, is_clinical=True)), scope="function")]
"""A clinician; the tie to the patient named in the query is asked by the service."""

PatientCreator = Annotated[Actor, Depends(WriteGuard(_MODIFIES), scope="function")]
"""Staff who may change records, or an admin."""

PatientEditor = Annotated[Actor, Depends(PatientWriteGuard(_MODIFIES), scope="function")]
"""Staff who may change the record of the patient in the path, or an admin."""

DemographicsEditor = Annotated[Actor, Depends(PatientWriteGuard(_CLINICIAN_MODIFIES), scope="function")]
"""A clinician who may change the record of the patient in the path."""

PatientDeactivator = Annotated[
    Actor, Depends(_admin("Admin or superadmin permission required to deactivate patients"), scope="function")
]
"""An admin, deactivating a record."""

PatientActivator = Annotated[
    Actor, Depends(_admin("Admin or superadmin permission required to activate patients"), scope="function")
]
"""An admin, bringing a record back."""
