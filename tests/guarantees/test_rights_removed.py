"""A right taken away is gone at the very next request: in lists, single reads, writing, and what is told by itself.

Where a change of rights ends the person's logins (decisions, rule 8), the next request is 401, and what is left after
signing in anew is what the table says.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import pytest

from quill.events.rights import who_may_see
from quill.identity import service as identity
from quill.kit.ids import ConversationId, PatientId, UserId
from quill.outbox.service import LiveEvent
from tests.clinic import Clinic, Person
from tests.conversations.talk import Surgery, begin, external, listed_ids, surgery
from tests.letters.desk import LETTER, letters_of

COLUMNS = ("listed", "read", "letters", "letter", "write", "talk_listed", "talk", "send", "told", "told_letter")
STAFF_BEFORE = "yes 200 200 200 200 yes 200 200 yes yes"
EXTERNAL_BEFORE = "yes 200 200 200 403 yes 200 200 yes yes"
OUTSIDER = "no  404 404 404 404 no  404 404 no  no"
FORBIDDEN = "403 403 403 403 403 403 403 403 no  no"
NOT_EVEN_SIGNED_IN = "401 401 401 401 401 401 401 401 no no"


@dataclass
class Case:
    """Everything one loss is about."""

    place: Surgery
    admin: Person
    person: Person
    talk: dict[str, Any]
    letter: str

    @property
    def account(self) -> str:
        return f"/api/users/{self.person.id}"


def _done(answer: Any) -> None:
    assert answer.status_code == 200, answer.text


def lose_competency(case: Case) -> None:
    _done(case.admin.patch(case.account, {"removed_competencies": ["access_patient_records"]}))


def lose_profession(case: Case) -> None:
    _done(case.admin.patch(case.account, {"base_profession": "receptionist"}))


def lose_role(case: Case) -> None:
    _done(case.admin.patch(case.account, {"roles": []}))


def lose_level(case: Case) -> None:
    _done(case.admin.patch(case.account, {"system_permissions": "patient"}))


def lose_account(case: Case) -> None:
    _done(case.admin.post(f"{case.account}/deactivate"))


def leave_staff(case: Case) -> None:
    _done(case.admin.delete(f"/api/organizations/{case.place.organisation}/staff/{case.person.id}"))


def end_care(case: Case) -> None:
    _done(case.admin.delete(f"/api/organizations/{case.place.organisation}/patients/{case.place.patient}"))


def end_record(case: Case) -> None:
    _done(case.admin.post(f"/api/patients/{case.place.patient}/deactivate"))


def end_grant(case: Case) -> None:
    _done(case.admin.delete(f"/api/patients/{case.place.patient}/external-access/{case.person.id}"))


@dataclass(frozen=True)
class Loss:
    """What is taken from whom, and what is left."""

    name: str
    act: Callable[[Case], None]
    left: str
    ends_logins: bool = False
    of_external: bool = False


LOSSES = (
    Loss("competency", lose_competency, FORBIDDEN, ends_logins=True),
    Loss("profession", lose_profession, FORBIDDEN, ends_logins=True),
    Loss("role", lose_role, "yes 200 200 200 403 yes 200 200 yes yes", ends_logins=True),
    Loss("level", lose_level, OUTSIDER, ends_logins=True),
    Loss("account", lose_account, NOT_EVEN_SIGNED_IN, ends_logins=True),
    Loss("staff membership", leave_staff, OUTSIDER),
    Loss("patient membership", end_care, OUTSIDER),
    # What was written stays readable; nothing is added, and the list is of live records.
    Loss("patient deactivated", end_record, "no 200 200 200 409 yes 200 409 yes yes"),
    Loss("grant", end_grant, OUTSIDER, of_external=True),
    Loss("competency of an external", lose_competency, FORBIDDEN, ends_logins=True, of_external=True),
    Loss("account of an external", lose_account, NOT_EVEN_SIGNED_IN, ends_logins=True, of_external=True),
)


@pytest.mark.parametrize("loss", LOSSES, ids=lambda loss: loss.name)
def test_a_right_removed_is_gone_at_the_next_request(clinic: Clinic, loss: Loss) -> None:
    case = make_case(clinic, loss)
    before = EXTERNAL_BEFORE if loss.of_external else STAFF_BEFORE
    assert seen(case) == dict(zip(COLUMNS, before.split(), strict=True))
    loss.act(case)
    if loss.ends_logins:
        assert case.person.get("/api/auth/me").status_code == 401
        case.person.sign_in()
    assert seen(case) == dict(zip(COLUMNS, loss.left.split(), strict=True))


def make_case(clinic: Clinic, loss: Loss) -> Case:
    place = surgery(clinic)
    person = external(clinic, place.patient) if loss.of_external else clinic.clinician(place.organisation)
    talk = begin(place.doctor, place.patient, person)
    answer = place.doctor.post(letters_of(place.patient), LETTER)
    assert answer.status_code == 200, answer.text
    return Case(place, clinic.superadmin(), person, talk, answer.json()["composition_uid"])


def seen(case: Case) -> dict[str, str]:
    """Return what the person sees and may do at this moment."""
    person, patient = case.person, case.place.patient
    letters, talk = letters_of(patient), f"/api/conversations/{case.talk['id']}"
    answers = (
        _is_in(person.get("/api/patients"), "patients", patient),
        _status(person.get(f"/api/patients/{patient}")),
        _status(person.get(letters)),
        _status(person.get(f"{letters}/{case.letter}")),
        _status(person.post(letters, LETTER)),
        _is_in(person.get("/api/conversations"), "conversations", case.talk["id"]),
        _status(person.get(talk)),
        _status(person.post(f"{talk}/messages", {"body": "Better."})),
        *told(case),
    )
    return dict(zip(COLUMNS, answers, strict=True))


def _status(answer: Any) -> str:
    return str(answer.status_code)


def _is_in(answer: Any, key: str, wanted: object) -> str:
    if answer.status_code != 200:
        return _status(answer)
    return "yes" if wanted in [row["id"] for row in answer.json()[key]] else "no"


def told(case: Case) -> list[str]:
    """Return whether a new message and a new letter would be told, by stream and by notification alike."""
    clinic, patient = case.place.clinic, PatientId(case.place.patient)
    state, talk_id = clinic.client.app.state, ConversationId(case.talk["id"])  # type: ignore[attr-defined]
    message = LiveEvent("message", patient, talk_id, {"message_id": "1"})
    letter = LiveEvent("letter", patient, None, {"composition_uid": case.letter})

    async def ask() -> list[str]:
        async with clinic.services.database.reading() as session:
            user_id = UserId(case.person.id)
            actors = (await identity.find_actors(session, clinic.services.settings, [user_id])).values()
            streamed = [
                await who_may_see(session, actors, event, state.who_may_read_conversation)
                for event in (message, letter)
            ]
            notified = {
                actor.person_id for actor in actors if await state.may_read_conversation(session, actor, talk_id)
            }
            assert streamed[0] == notified
            return ["yes" if user_id in people else "no" for people in streamed]

    found: list[str] = clinic.run(ask)
    return found


def test_a_participant_who_left_the_staff_is_not_even_counted(clinic: Clinic) -> None:
    """Gap: a removed member kept reading and writing in every conversation they had joined."""
    place = surgery(clinic)
    talk = begin(place.doctor, place.patient, place.nurse)
    assert listed_ids(place.nurse) == [talk["id"]]
    admin = clinic.admin()
    _done(admin.delete(f"/api/organizations/{place.organisation}/staff/{place.nurse.id}"))
    assert listed_ids(place.nurse) == []
