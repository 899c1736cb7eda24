"""Who may ask about organisations and change them."""

from typing import Annotated

from fastapi import Depends

from quill.access.guards import ReadGuard, WriteGuard
from quill.access.service import Requirement
from quill.actor import Actor, Level

_ADMIN = Requirement(level=Level.ADMIN)
_ADMIN_ONLY = Requirement(level=Level.ADMIN, level_sentence="Admin only")

OrganisationReader = Annotated[Actor, Depends(ReadGuard(_ADMIN), scope="function")]
"""Admins, reading."""

OrganisationWriter = Annotated[Actor, Depends(WriteGuard(_ADMIN), scope="function")]
"""Admins, changing an organisation, its staff, or deciding who joins."""

PatientAdder = Annotated[Actor, Depends(WriteGuard(Requirement(level=Level.ADMIN, is_clinical=True)), scope="function")]
"""Admins, putting a patient into an organisation's care; needs the clinical services."""

MemberRemover = Annotated[Actor, Depends(WriteGuard(_ADMIN_ONLY), scope="function")]
"""Admins, ending a membership; works without the clinical services, because it only takes access away."""

FeatureReader = Annotated[Actor, Depends(ReadGuard(_ADMIN_ONLY), scope="function")]
"""Admins, reading what an organisation's clients show."""

FeatureWriter = Annotated[Actor, Depends(WriteGuard(_ADMIN_ONLY), scope="function")]
"""Admins, switching a feature."""

SharedOrganisationsReader = Annotated[Actor, Depends(ReadGuard(Requirement(is_clinical=True)), scope="function")]
"""Anybody signed in: the answer is limited to the caller's own organisations."""
