"""Guards: dependencies that name, in a route's signature, everything a call needs.

Each route takes exactly one guard or is marked ``Public("why")``; a test walks the routes. Order of the answers: 503
clinical services off, 401 nobody signed in, 403 CSRF, 404 outsider, 403 right missing.
"""

from typing import Annotated

from fastapi import Depends, Path, Request

from quill.access import service as access
from quill.access.service import Requirement
from quill.actor import Actor, Level
from quill.auth import cookies
from quill.auth import service as auth
from quill.auth.service import Authenticator, SignedIn
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import ClinicalServicesDisabled, PatientNotFound
from quill.kit.ids import PatientId, is_fhir_id
from quill.unit import Reader, Session

PatientIdPath = Annotated[str, Path(max_length=255, description="FHIR logical id of the patient.")]


def authenticator_of(request: Request) -> Authenticator:
    """Return this process's sign-in machinery."""
    authenticator: Authenticator = request.app.state.authenticator
    return authenticator


async def _authenticator(request: Request) -> Authenticator:
    return authenticator_of(request)


AuthenticatorDep = Annotated[Authenticator, Depends(_authenticator)]


class Guard:
    """Parent of all guards; carries what it requires, for the published API and for the route-walk test."""

    writes = False
    """Whether the call changes something and therefore needs the CSRF token."""

    def __init__(self, requirement: Requirement) -> None:
        self.requirement = requirement

    async def _enter(
        self, request: Request, reader: Reader, session: Session, about: PatientId | None = None
    ) -> SignedIn:
        if self.requirement.is_clinical and not reader.settings.clinical_services_enabled:
            raise ClinicalServicesDisabled
        authenticator = authenticator_of(request)
        signed_in = await auth.authenticate(session, authenticator, cookies.access_token_of(request), about)
        request.state.signed_in = signed_in
        if self.writes:
            auth.check_csrf(authenticator, signed_in, *cookies.csrf_tokens_of(request))
        return signed_in


class ReadGuard(Guard):
    """Signed in, with the rights required; for calls that change nothing."""

    async def __call__(self, request: Request, reader: ReaderDep) -> Actor:
        """Return who is asking."""
        signed_in = await self._enter(request, reader, reader.session)
        access.check_rights(reader, signed_in.actor, self.requirement)
        return signed_in.actor


class WriteGuard(Guard):
    """Signed in, CSRF token right, with the rights required."""

    writes = True

    async def __call__(self, request: Request, unit: UnitDep) -> Actor:
        """Return who is asking."""
        async with unit.reading() as session:
            signed_in = await self._enter(request, unit, session)
        access.check_rights(unit, signed_in.actor, self.requirement)
        return signed_in.actor


class PatientReadGuard(Guard):
    """Signed in, tied to the patient in the path, with the rights required."""

    async def __call__(self, request: Request, reader: ReaderDep, patient_id: PatientIdPath) -> Actor:
        """Return who is asking."""
        signed_in = await self._enter(request, reader, reader.session, possible_patient_id(patient_id))
        subject = checked_patient_id(patient_id)
        actor, ties = signed_in.actor, signed_in.ties
        await access.check_patient(reader, reader.session, actor, subject, self.requirement, ties=ties)
        return actor


class PatientWriteGuard(Guard):
    """Signed in, CSRF token right, tied to the patient in the path, with the rights required."""

    writes = True

    async def __call__(self, request: Request, unit: UnitDep, patient_id: PatientIdPath) -> Actor:
        """Return who is asking."""
        async with unit.reading() as session:
            signed_in = await self._enter(request, unit, session, possible_patient_id(patient_id))
            subject = checked_patient_id(patient_id)
            actor, ties = signed_in.actor, signed_in.ties
            await access.check_patient(unit, session, actor, subject, self.requirement, ties=ties)
        return actor


class PublicMark:
    """Says that a route needs no login, and why."""

    def __init__(self, reason: str) -> None:
        self.reason = reason

    async def __call__(self) -> None:
        """Let everybody pass."""


def Public(reason: str) -> PublicMark:  # noqa: N802 - reads as a mark in the route's decorator
    """Return the mark of a route that anybody may call; use it as ``dependencies=[Depends(Public("why"))]``."""
    return PublicMark(reason)


def possible_patient_id(text: str) -> PatientId | None:
    """Return a path's patient id; ``None`` when it cannot be one."""
    return PatientId(text) if is_fhir_id(text) else None


def checked_patient_id(text: str) -> PatientId:
    """Return a path's patient id.

    Raises:
        PatientNotFound: 404, it cannot be one, so no patient has it.
    """
    patient_id = possible_patient_id(text)
    if patient_id is None:
        raise PatientNotFound
    return patient_id


SignedInReader = Annotated[Actor, Depends(ReadGuard(Requirement()), scope="function")]
"""Anybody signed in, reading."""

SignedInWriter = Annotated[Actor, Depends(WriteGuard(Requirement()), scope="function")]
"""Anybody signed in, changing something."""

AdminReader = Annotated[Actor, Depends(ReadGuard(Requirement(level=Level.ADMIN)), scope="function")]
"""Admins and superadmins, reading."""

AdminWriter = Annotated[Actor, Depends(WriteGuard(Requirement(level=Level.ADMIN)), scope="function")]
"""Admins and superadmins, changing something."""
