"""What the tests about conversations share: a small clinic, and the calls people make in it."""

import datetime
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from quill.actor import Level
from quill.audit.models import AuditEvent
from quill.conversations.models import Conversation, ConversationParticipant, Message
from quill.identity.models import (
    ExternalAccess,
    OrganisationPatientMember,
    OrganisationStaffMember,
    UserAccount,
)
from quill.kit import clock
from quill.unit import Unit
from tests.clinic import Clinic, Person


@dataclass
class Surgery:
    """A surgery with a patient in its care, two of its clinicians, and a patient's account when asked for."""

    clinic: Clinic
    organisation: int
    patient: str
    doctor: Person
    nurse: Person


def surgery(clinic: Clinic) -> Surgery:
    organisation = clinic.organisation()
    return Surgery(
        clinic,
        organisation,
        clinic.patient(organisation),
        clinic.clinician(organisation, full_name="Dr Ada Hart"),
        clinic.clinician(organisation),
    )


def patient_account(clinic: Clinic, patient_id: str, **extra: Any) -> Person:
    return clinic.person(level=Level.PATIENT, profession="patient", patient_id=patient_id, **extra)


def external(clinic: Clinic, *granted: str, **extra: Any) -> Person:
    """Make somebody from outside with grants for some patients."""
    person = clinic.person(level=Level.EXTERNAL_HCP, profession="consultant", **extra)
    for patient_id in granted:
        grant(clinic, person, patient_id)
    return person


def grant(clinic: Clinic, person: Person, patient_id: str) -> None:
    async def make(unit: Unit) -> None:
        unit.session.add(
            ExternalAccess(user_id=person.id, patient_id=patient_id, access_level="full", granted_at=clock.now())
        )

    clinic.in_unit(make)


def revoke(clinic: Clinic, person: Person) -> None:
    statement = sa.update(ExternalAccess).where(ExternalAccess.user_id == person.id).values(revoked_at=clock.now())
    execute(clinic, statement)


def leave_organisation(clinic: Clinic, person: Person) -> None:
    execute(clinic, sa.delete(OrganisationStaffMember).where(OrganisationStaffMember.user_id == person.id))


def leave_care(clinic: Clinic, patient_id: str) -> None:
    execute(clinic, sa.delete(OrganisationPatientMember).where(OrganisationPatientMember.patient_id == patient_id))


def change_account(clinic: Clinic, person: Person, **values: Any) -> None:
    execute(clinic, sa.update(UserAccount).where(UserAccount.id == person.id).values(**values))


def execute(clinic: Clinic, statement: Any) -> None:
    async def work(unit: Unit) -> None:
        await unit.session.execute(statement)

    clinic.in_unit(work)


def select(clinic: Clinic, statement: Any) -> list[Any]:
    async def work() -> list[Any]:
        async with clinic.services.database.reading() as session:
            return list(await session.execute(statement))

    found: list[Any] = clinic.run(work)
    return found


def count(clinic: Clinic, table: Any) -> int:
    return int(select(clinic, sa.select(sa.func.count()).select_from(table))[0][0])


def counts(clinic: Clinic) -> tuple[int, int, int]:
    return (count(clinic, Conversation), count(clinic, ConversationParticipant), count(clinic, Message))


def acts(clinic: Clinic, subject: str) -> list[tuple[str, str, int | None]]:
    """Return what the audit trail holds about something: act, outcome, who."""
    statement = sa.select(AuditEvent.act, AuditEvent.outcome, AuditEvent.actor_user_id)
    return [tuple(row) for row in select(clinic, statement.where(AuditEvent.subject == subject))]


def begin(person: Person, patient: str, *others: Person, text: str = "How is the hip?", **extra: Any) -> dict[str, Any]:
    """Begin a conversation that must come about."""
    answer = try_begin(person, patient, *others, text=text, **extra)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def try_begin(
    person: Person,
    patient: str,
    *others: Person,
    text: str = "How is the hip?",
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> Any:
    body = {"patient_id": patient, "participant_ids": [other.id for other in others], "initial_message": text}
    return person.post("/api/conversations", body | extra, headers=headers)


def send(person: Person, conversation: dict[str, Any], text: str = "Better.", **extra: Any) -> dict[str, Any]:
    """Send a message that must come about."""
    answer = try_send(person, conversation, text, **extra)
    assert answer.status_code == 200, answer.text
    found: dict[str, Any] = answer.json()
    return found


def try_send(
    person: Person,
    conversation: dict[str, Any],
    text: str = "Better.",
    headers: dict[str, str] | None = None,
    **extra: Any,
) -> Any:
    return person.post(f"/api/conversations/{conversation['id']}/messages", {"body": text} | extra, headers=headers)


def read(person: Person, conversation: dict[str, Any]) -> Any:
    return person.get(f"/api/conversations/{conversation['id']}")


def listed(person: Person, **params: Any) -> list[dict[str, Any]]:
    answer = person.get("/api/conversations", params=params)
    assert answer.status_code == 200, answer.text
    found: list[dict[str, Any]] = answer.json()["conversations"]
    return found


def listed_ids(person: Person, **params: Any) -> list[int]:
    return [found["id"] for found in listed(person, **params)]


def in_list(person: Person, conversation: dict[str, Any]) -> dict[str, Any]:
    """Return a conversation as somebody's list shows it."""
    return next(found for found in listed(person) if found["id"] == conversation["id"])


def instant(text: str) -> datetime.datetime:
    return datetime.datetime.fromisoformat(text)


def refusal(answer: Any) -> tuple[int, str]:
    return answer.status_code, answer.json()["detail"]


NOT_FOUND = (404, "Conversation not found")
