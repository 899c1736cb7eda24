"""Who may decide about others' access to a patient's record: the patient and admins."""

from typing import Annotated

from fastapi import Depends

from quill.access.guards import PatientReadGuard, PatientWriteGuard
from quill.access.service import Requirement
from quill.actor import Actor


def _owner(sentence: str) -> Requirement:
    return Requirement(owner_sentence=sentence, is_clinical=True)


ExternalInviter = Annotated[
    Actor,
    Depends(
        PatientWriteGuard(_owner("Only the patient or an admin can invite external users")),
        scope="function",
    ),
]
"""The patient or an admin, inviting somebody."""

InviteWithdrawer = Annotated[
    Actor,
    Depends(PatientWriteGuard(_owner("Only the patient or an admin can withdraw invites")), scope="function"),
]
"""The patient or an admin, taking an invite back."""

AccessRevoker = Annotated[Actor, Depends(PatientWriteGuard(_owner("Admin only")), scope="function")]
"""The patient or an admin, ending somebody's access; the words are older than the patient's right."""

ExternalAccessReader = Annotated[Actor, Depends(PatientReadGuard(_owner("Access denied")), scope="function")]
"""The patient or an admin, looking who has access or is invited."""
