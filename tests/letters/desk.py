"""What tests about letters share: who reads and writes them, and what the audit trail says about it."""

from typing import Any

import sqlalchemy as sa

from quill.app import KINDS
from quill.audit.models import AuditEvent
from quill.identity.models import ExternalAccess
from quill.kit import clock
from quill.patients.models import PatientIndex
from quill.unit import Services, Unit
from tests.clinic import Clinic, Person
from tests.remote_like import Line, sweep_after_leases_ran_out, with_remote_openehr

LETTER = {"title": "Clinic letter", "body": "All is *well*."}


def letters_of(patient_id: str) -> str:
    return f"/api/patients/{patient_id}/letters"


def grant(clinic: Clinic, person: Person, patient_id: str) -> None:
    async def make(unit: Unit) -> None:
        unit.session.add(ExternalAccess(user_id=person.id, patient_id=patient_id, granted_at=clock.now()))

    clinic.in_unit(make)


def deactivate(clinic: Clinic, patient_id: str) -> None:
    async def change(unit: Unit) -> None:
        this_one = PatientIndex.patient_id == patient_id
        await unit.session.execute(sa.update(PatientIndex).where(this_one).values(is_active=False))

    clinic.in_unit(change)


def trail(clinic: Clinic, person: Person, patient_id: str) -> list[tuple[str, str, str]]:
    """Return act, outcome and reason of everything a person did or tried about a patient, in order."""
    wanted = (AuditEvent.actor_user_id == person.id, AuditEvent.patient_id == patient_id)
    columns = (AuditEvent.act, AuditEvent.outcome, AuditEvent.reason)
    statement = sa.select(*columns).where(*wanted).order_by(AuditEvent.occurred_at)

    async def read(unit: Unit) -> list[tuple[str, str, str]]:
        return [(row[0], row[1], row[2]) for row in await unit.session.execute(statement)]

    rows: list[tuple[str, str, str]] = clinic.in_unit(read)
    return rows


def put_elsewhere(clinic: Clinic) -> Line:
    """Move the openEHR store to the other end of a line."""
    line = Line()
    use(clinic, with_remote_openehr(clinic.services, line))
    return line


def use(clinic: Clinic, services: Services) -> None:
    clinic.client.app.state.services = services  # type: ignore[attr-defined]


def sweep(clinic: Clinic) -> int:
    return int(clinic.run(sweep_after_leases_ran_out, clinic.services, KINDS))


def uids(person: Person, patient_id: str) -> list[Any]:
    answer = person.get(letters_of(patient_id))
    assert answer.status_code == 200, answer.text
    return [row["composition_uid"] for row in answer.json()["letters"]]
