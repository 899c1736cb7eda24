"""Who reads what, and how lists behave."""

from collections.abc import Callable, Iterator
from contextlib import contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.dialects import sqlite
from starlette.testclient import TestClient

from quill.actor import Actor, Level
from quill.conversations import queries, visibility
from quill.conversations import service as conversations
from quill.conversations.models import Conversation
from quill.conversations.queries import Wanted
from quill.conversations.schemas import ConversationIn
from quill.identity import service as identity
from quill.identity.terms import ActorShape, actor_values
from quill.kit.ids import ConversationId, OrganisationId, PatientId, UserId
from quill.patients.models import PatientIndex
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.conversations.talk import (
    NOT_FOUND,
    Surgery,
    acts,
    begin,
    change_account,
    execute,
    external,
    grant,
    in_list,
    leave_care,
    leave_organisation,
    listed,
    listed_ids,
    patient_account,
    read,
    refusal,
    revoke,
    send,
)
from tests.databases import POSTGRESQL_URL

Maker = Callable[[Surgery], Person]


TABLES = {
    *("conversation", "conversation_participant", "conversation_organisation", "message", "user_account"),
    *("any_participant", "any_owner", "caring", "access_grant"),
}
"""Tables and aliases that must never be read from one end to the other for a page."""


def elsewhere(place: Surgery) -> Person:
    """Make staff of another organisation that cares for the patient too, but whose conversation it is not."""
    second = place.clinic.organisation("Hospital")

    async def care(unit: Unit) -> None:
        await identity.add_patient_membership(unit, OrganisationId(second), PatientId(place.patient))

    place.clinic.in_unit(care)
    return place.clinic.clinician(second)


def far_away(place: Surgery) -> Person:
    return place.clinic.clinician(place.clinic.organisation("Far"))


def far_away_with_a_grant(place: Surgery) -> Person:
    person = far_away(place)
    grant(place.clinic, person, place.patient)
    return person


# Who, and whether they read talk among staff, talk the patient takes part in, talk they take part in themselves.
READERS: dict[str, tuple[Maker, bool, bool, bool]] = {
    "colleague": (lambda place: place.nurse, True, True, True),
    "staff elsewhere who care": (elsewhere, False, False, True),
    "staff elsewhere": (far_away, False, False, False),
    "staff with a grant": (far_away_with_a_grant, False, True, True),
    "admin": (lambda place: place.clinic.admin(), True, True, True),
    "external with a grant": (lambda place: external(place.clinic, place.patient), False, True, True),
    "external without": (lambda place: external(place.clinic), False, False, False),
    "another patient": (
        lambda place: patient_account(place.clinic, place.clinic.patient(place.organisation)),
        False,
        False,
        False,
    ),
}


@pytest.mark.parametrize("who", READERS)
def test_who_reads_what(clinic: Clinic, place: Surgery, who: str) -> None:
    make, reads_staff_talk, reads_patient_talk, may_take_part = READERS[who]
    patient = patient_account(clinic, place.patient)
    among_staff = begin(place.doctor, place.patient)
    with_patient = begin(place.doctor, place.patient, patient)
    person = make(place)
    expected = {among_staff["id"]: reads_staff_talk, with_patient["id"]: reads_patient_talk}
    if may_take_part and person is not place.nurse:
        with_person = begin(place.doctor, place.patient, person)
        expected[with_person["id"]] = True
    for number, may in expected.items():
        at = f"/api/conversations/{number}"
        for answer in (person.get(at), person.get(f"{at}/messages"), person.get(f"{at}/participants")):
            assert (answer.status_code == 200) if may else (refusal(answer) == NOT_FOUND)
    readable = sorted(number for number, may in expected.items() if may)
    assert sorted(listed_ids(person)) == readable
    assert sorted(listed_ids(person, patient_id=place.patient)) == readable
    about = person.get(f"/api/patients/{place.patient}/conversations")
    if may_take_part:
        assert sorted(found["id"] for found in about.json()["conversations"]) == readable
    else:
        assert refusal(about) == (404, "Patient not found")
    assert sorted(listed_ids(patient)) == [with_patient["id"]]


def test_reader_sees_but_does_not_write(place: Surgery) -> None:
    made = begin(place.doctor, place.patient)
    seen = read(place.nurse, made).json()
    assert (seen["is_participant"], seen["can_write"]) == (False, False)
    row = in_list(place.nurse, made)
    assert (row["is_participant"], row["can_write"], row["unread_count"]) == (False, False, 0)
    at = f"/api/conversations/{made['id']}"
    assert refusal(place.nurse.post(f"{at}/messages", {"body": "Hi"})) == (403, "User is not a participant")
    assert refusal(place.nurse.patch(at, {"status": "closed"})) == (403, "User is not a participant")
    answer = place.nurse.post(f"{at}/participants", {"user_id": place.nurse.id})
    assert refusal(answer) == (403, "Only participants can add others")
    assert read(place.doctor, made).json()["status"] == "new"


def test_reading_leaves_a_trace(place: Surgery) -> None:
    """gap: readers who are not participants leave no trace; no access log."""
    made = begin(place.doctor, place.patient)
    read(place.nurse, made)
    assert ("conversation:read", "allowed", place.nurse.id) in acts(place.clinic, f"conversation:{made['id']}")


def test_refused_reading_leaves_a_trace(clinic: Clinic, place: Surgery) -> None:
    made = begin(place.doctor, place.patient)
    outsider = clinic.clinician()
    read(outsider, made)
    assert ("conversation:read", "refused", outsider.id) in acts(clinic, f"conversation:{made['id']}")


@pytest.mark.parametrize("end", ["organisation", "care", "competency"])
def test_access_that_ends_is_gone_at_the_next_request(clinic: Clinic, place: Surgery, end: str) -> None:
    """gap: a removed member kept reading and writing in every conversation they had joined."""
    made = begin(place.doctor, place.patient, place.nurse)
    if end == "organisation":
        leave_organisation(clinic, place.nurse)
    elif end == "care":
        leave_care(clinic, place.patient)
    else:
        change_account(clinic, place.nurse, base_profession="receptionist")
    expected = 403 if end == "competency" else 404
    at = f"/api/conversations/{made['id']}"
    for answer in (
        place.nurse.get(at),
        place.nurse.get(f"{at}/messages"),
        place.nurse.get(f"{at}/participants"),
        place.nurse.post(f"{at}/messages", {"body": "Hi"}),
        place.nurse.patch(at, {"status": "closed"}),
        place.nurse.post(f"{at}/participants", {"user_id": place.doctor.id}),
        place.nurse.post(f"{at}/read"),
        place.nurse.post(f"{at}/join"),
        place.nurse.delete(f"{at}/participants/{place.nurse.id}"),
    ):
        assert answer.status_code == expected
    if end == "competency":
        answer = place.nurse.get("/api/conversations")
        assert (answer.status_code, answer.json()["error_code"]) == (403, "competency_missing")
    else:
        assert listed_ids(place.nurse) == []
    assert refusal(place.nurse.get(f"/api/patients/{place.patient}/conversations"))[0] == expected


def test_revoked_external_is_out_at_once(clinic: Clinic, place: Surgery) -> None:
    """gap: revoking a grant leaves the external user's participations, so they keep read and write there."""
    person = external(clinic, place.patient)
    made = begin(place.doctor, place.patient, person)
    assert listed_ids(person) == [made["id"]]
    revoke(clinic, person)
    assert listed_ids(person) == []
    assert refusal(read(person, made)) == NOT_FOUND
    assert refusal(person.post(f"/api/conversations/{made['id']}/messages", {"body": "Hi"})) == NOT_FOUND


def test_adding_somebody_opens_nothing_to_their_colleagues(clinic: Clinic, place: Surgery) -> None:
    """gap: snowballing lets one tagged outsider open a conversation to everyone in all their organisations."""
    far = clinic.organisation("Far")
    specialist = clinic.person(organisations=[place.organisation, far])
    colleague = clinic.clinician(far)
    grant(clinic, colleague, place.patient)
    made = begin(place.doctor, place.patient, specialist)
    assert read(specialist, made).status_code == 200
    assert refusal(read(colleague, made)) == NOT_FOUND


@pytest.mark.parametrize("number", ["999999", "0", "-1", str(2**31), str(2**80)])
def test_unknown_conversation_is_not_found(place: Surgery, number: str) -> None:
    assert refusal(place.doctor.get(f"/api/conversations/{number}")) == NOT_FOUND


def test_malformed_questions_are_refused(client: TestClient, place: Surgery) -> None:
    begin(place.doctor, place.patient)
    for url in (
        "/api/conversations/one",
        "/api/conversations?limit=0",
        "/api/conversations?limit=1001",
        "/api/conversations?cursor=nonsense",
        "/api/conversations?cursor=WzFd",
        "/api/conversations?cursor=WzkyMjMzNzIwMzY4NTQ3NzU4MDcsMV0",
        "/api/conversations?staus=new",
        "/api/conversations?status=%00",
        "/api/conversations?status=resolved-a-long-time-ago",
        "/api/conversations/1/messages?cursor=WyJ4IiwxXQ",
        "/api/conversations/1/participants?limit=1",
    ):
        assert place.doctor.get(url).status_code == 422, url
    assert listed_ids(place.doctor, status="") != []
    assert listed_ids(place.doctor, status="brand-new") == []
    assert listed_ids(place.doctor, patient_id="no such id") == []
    assert client.get("/api/conversations").status_code == 401


def test_admin_asks_about_an_unknown_patient(clinic: Clinic) -> None:
    assert refusal(clinic.admin().get("/api/patients/nobody/conversations")) == (404, "Patient not found")


def test_deactivated_patients_conversations_stay_readable(clinic: Clinic, place: Surgery) -> None:
    made = begin(place.doctor, place.patient)
    execute(clinic, sa.update(PatientIndex).values(is_active=False))
    assert read(place.doctor, made).status_code == 200
    about = place.doctor.get(f"/api/patients/{place.patient}/conversations").json()
    assert [found["id"] for found in about["conversations"]] == [made["id"]]


def test_newest_activity_comes_first(place: Surgery) -> None:
    """gap: updated_at does not move when a message is sent, so the order is not by latest activity."""
    first, second = begin(place.doctor, place.patient), begin(place.doctor, place.patient)
    assert listed_ids(place.doctor) == [second["id"], first["id"]]
    message = send(place.doctor, first, "Newer")
    assert listed_ids(place.doctor) == listed_ids(place.nurse) == [first["id"], second["id"]]
    row = in_list(place.doctor, first)
    assert row["updated_at"] == row["last_message_time"] == message["created_at"]
    assert row["last_message_preview"] == "Newer"
    send(place.doctor, first, "x" * 300)
    assert in_list(place.doctor, first)["last_message_preview"] == "x" * 200


def test_status_filter(place: Surgery) -> None:
    first, second = begin(place.doctor, place.patient), begin(place.doctor, place.patient)
    place.doctor.patch(f"/api/conversations/{first['id']}", {"status": "resolved"})
    assert listed_ids(place.doctor, status="resolved") == [first["id"]]
    assert listed_ids(place.doctor, status="new") == [second["id"]]
    about = place.doctor.get(f"/api/patients/{place.patient}/conversations?status=resolved").json()
    assert [found["id"] for found in about["conversations"]] == [first["id"]]


@pytest.mark.parametrize("who", ["doctor", "nurse", "admin", "external", "patient"])
def test_pages_hold_everything_once_and_in_order(clinic: Clinic, place: Surgery, who: str) -> None:
    """gap: loads every matching conversation, then filters in memory; no paging."""
    account = patient_account(clinic, place.patient)
    guest = external(clinic, place.patient)
    people = {"doctor": place.doctor, "nurse": place.nurse, "admin": clinic.admin(), "external": guest}
    person = people.get(who, account)
    made = [begin(place.doctor, place.patient, account, guest, place.nurse) for _ in range(5)]
    send(place.doctor, made[0])
    expected = [made[0]["id"], *(found["id"] for found in reversed(made[1:]))]
    for url in ("/api/conversations", f"/api/patients/{place.patient}/conversations"):
        found: list[int] = []
        cursor = None
        for _ in range(3):
            page = person.get(url, params={"limit": 2} | ({"cursor": cursor} if cursor else {})).json()
            found += [row["id"] for row in page["conversations"]]
            cursor = page["next_cursor"]
        assert (found, cursor) == (expected, None)


def test_older_messages_are_paged(place: Surgery) -> None:
    made = begin(place.doctor, place.patient, text="0")
    for number in range(1, 5):
        send(place.doctor, made, str(number))
    at = f"/api/conversations/{made['id']}/messages"
    newest = place.doctor.get(at, params={"limit": 2}).json()
    assert [message["body"] for message in newest["messages"]] == ["3", "4"]
    older = place.doctor.get(at, params={"limit": 2, "cursor": newest["next_cursor"]}).json()
    assert [message["body"] for message in older["messages"]] == ["1", "2"]
    oldest = place.doctor.get(at, params={"limit": 2, "cursor": older["next_cursor"]}).json()
    assert ([message["body"] for message in oldest["messages"]], oldest["next_cursor"]) == (["0"], None)


@contextmanager
def statements(clinic: Clinic) -> Iterator[list[str]]:
    """Note the statements about conversations that are sent meanwhile."""
    noted: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        if "conversation" in statement or "FROM message" in statement:
            noted.append(statement)

    engine = clinic.services.database.engine.sync_engine
    event.listen(engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        event.remove(engine, "before_cursor_execute", note)


def test_number_of_statements_does_not_grow_with_rows(clinic: Clinic, place: Surgery) -> None:
    guest = external(clinic, place.patient)
    made = begin(place.doctor, place.patient, guest)
    urls = (
        "/api/conversations",
        f"/api/patients/{place.patient}/conversations",
        f"/api/conversations/{made['id']}",
        f"/api/conversations/{made['id']}/messages",
    )
    people = (place.doctor, place.nurse, clinic.admin(), guest)

    def cost() -> list[int]:
        found = []
        for person in people:
            # What is unread is marked first, which is a write and costs more.
            person.get(urls[2])
            for url in urls:
                with statements(clinic) as noted:
                    assert person.get(url).status_code == 200
                found.append(len(noted))
        return found

    few = cost()

    async def fill(unit: Unit) -> None:
        doctor = await identity.find_actor(unit.session, unit.settings, UserId(place.doctor.id))
        assert doctor is not None
        for number in range(49):
            body = ConversationIn(
                patient_id=place.patient,
                participant_ids=[guest.id, place.nurse.id],
                initial_message=f"Message {number}",
            )
            await conversations.create(unit, doctor, body)
            await conversations.send(unit, doctor, ConversationId(made["id"]), f"Message {number}")

    clinic.in_unit(fill)
    assert len(listed(place.nurse)) == 50
    assert cost() == few == [2, 2, 3, 2] * len(people)


def _actor(clinic: Clinic, person: Person) -> Actor:
    async def find() -> Actor | None:
        async with clinic.services.database.reading() as session:
            return await identity.find_actor(session, clinic.services.settings, UserId(person.id))

    actor: Actor | None = clinic.run(find)
    assert actor is not None
    return actor


@pytest.mark.skipif(POSTGRESQL_URL is not None, reason="the plans read here are SQLite's; `make test` reads them")
def test_a_page_is_read_from_indexes(clinic: Clinic, place: Surgery) -> None:
    guest, account = external(clinic, place.patient), patient_account(clinic, place.patient)

    async def explain(statement: sa.Select[*tuple[object, ...]]) -> list[str]:
        compiled = statement.compile(dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True})
        async with clinic.services.database.reading() as session:
            connection = await session.connection()
            values = tuple(compiled.params[name] for name in compiled.positiontup or ())
            rows = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", values)
            return [row.detail for row in rows]

    def plan(person: Person, about: str | None = None) -> list[str]:
        wanted = Wanted(limit=51, patient_id=PatientId(about) if about is not None else None)
        found: list[str] = clinic.run(explain, queries.newest_visible(_actor(clinic, person), wanted))
        return found

    for found in (
        *(plan(person) for person in (place.doctor, place.nurse, clinic.admin(), guest, account)),
        plan(place.doctor, place.patient),
    ):
        scans = [line for line in found if line.startswith("SCAN ") and "USING" not in line]
        assert [line for line in scans if line.split()[1] in TABLES] == []
        assert not any("message" in line for line in found)
    text = "\n".join(plan(place.doctor))
    assert "ix_conversation_participant_user_id_active_at (user_id=?)" in text
    assert "ix_conversation_organisation_organisation_id_active_at (organisation_id=?)" in text


def test_lists_agree_with_the_rule_whatever_the_way(clinic: Clinic, place: Surgery) -> None:
    """Where conversations are looked for never decides what may be read."""
    many = [clinic.organisation(f"Place {number}") for number in range(queries.MOST_BRANCHES + 5)]
    everywhere = clinic.clinician(place.organisation, *many)
    second = clinic.patient(many[-1])
    another = clinic.clinician(many[-1])
    guest = external(clinic, second)
    for made_by, patient, others in (
        (place.doctor, place.patient, [everywhere]),
        (place.doctor, place.patient, []),
        (another, second, [guest]),
        (another, second, []),
    ):
        begin(made_by, patient, *others)
    own = clinic.person(level=Level.STAFF, patient_id=second, organisations=[place.organisation])
    begin(another, second, own)

    async def by_rule(actor: Actor) -> list[int]:
        async with clinic.services.database.reading() as session:
            statement = sa.select(Conversation.id).where(visibility.visible_conversations(ActorShape.of(actor)))
            return list(await session.scalars(statement, actor_values(actor)))

    async def by_list(actor: Actor) -> list[int]:
        async with clinic.services.database.reading() as session:
            return [row.id for row in await queries.visible_page(session, actor, Wanted(limit=100))]

    sizes = []
    for person in (everywhere, place.doctor, place.nurse, another, guest, own, clinic.admin()):
        actor = _actor(clinic, person)
        listed_now = clinic.run(by_list, actor)
        assert sorted(listed_now) == sorted(clinic.run(by_rule, actor))
        sizes.append(len(listed_now))
    # The guest reads what the guest or the patient takes part in, whose account is the fourth one's.
    assert sizes == [5, 2, 2, 3, 2, 3, 5]


def test_names_are_the_full_name_or_the_username_everywhere(place: Surgery) -> None:
    """gap: inconsistent names; two endpoints use the bare username."""
    made = begin(place.doctor, place.patient, place.nurse)
    at = f"/api/conversations/{made['id']}"
    expected = ["Dr Ada Hart", place.nurse.username]
    shown = [
        made["participants"],
        read(place.nurse, made).json()["participants"],
        place.nurse.get(f"{at}/participants").json(),
        place.nurse.patch(at, {"status": "active"}).json()["participants"],
        listed(place.nurse)[0]["participants"],
    ]
    assert [[person["display_name"] for person in people] for people in shown] == [expected] * len(shown)
    assert made["messages"][0]["sender_display_name"] == "Dr Ada Hart"
    assert made["messages"][0]["sender_username"] == place.doctor.username


def test_query_parameter_given_twice_is_422(clinic: Clinic) -> None:
    """One of the two would be passed over, and nobody could tell which."""
    gp = clinic.clinician(clinic.organisation())
    answer = gp.get("/api/conversations?status=new&status=closed")
    assert answer.status_code == 422
    assert answer.json()["errors"] == [
        {"loc": ["query", "status"], "msg": "Query parameter given more than once", "type": "repeated"}
    ]
