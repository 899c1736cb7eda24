"""Who may call the routes of conversations.

Which conversation somebody may read depends on the conversation, so the service asks that, and 404 comes before 403
there. Lists name the right to read records here.
"""

from typing import Annotated

from fastapi import Depends

from quill.access.guards import PatientReadGuard, ReadGuard, WriteGuard
from quill.access.service import Requirement
from quill.actor import Actor
from quill.identity.catalogue import ACCESS_PATIENT_RECORDS

_CLINICAL = Requirement(is_clinical=True)
_READING = Requirement(competency=ACCESS_PATIENT_RECORDS, is_clinical=True)

ConversationLister = Annotated[Actor, Depends(ReadGuard(_READING), scope="function")]
"""Anybody who may read records; the list holds what they may read."""

PatientConversationLister = Annotated[Actor, Depends(PatientReadGuard(_READING), scope="function")]
"""Whoever is tied to the patient and may read records."""

ConversationReader = Annotated[Actor, Depends(ReadGuard(_CLINICAL), scope="function")]
"""Anybody signed in; the service finds the conversation only for those who may read it."""

ConversationWriter = Annotated[Actor, Depends(WriteGuard(_CLINICAL), scope="function")]
"""Anybody signed in, with the CSRF token; the service finds the conversation or patient as above."""
