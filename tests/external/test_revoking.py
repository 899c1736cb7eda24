"""Who has access, and ending it for good."""

from concurrent.futures import ThreadPoolExecutor
from typing import Any

import pytest
import sqlalchemy as sa

from quill.access import service as access
from quill.access.service import Relationship
from quill.actor import Level
from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.app import KINDS
from quill.conversations.rebuild import rebuild_projection
from quill.errors import FhirRefused, FhirUnavailable
from quill.identity import service as identity
from quill.identity.models import ExternalAccess, UserAccount
from quill.kit.ids import PatientId, UserId
from quill.ports.fhir import StoredResource
from quill.ports.fhir_communication import conversation_facts
from quill.unit import Unit
from tests.clinic import Person
from tests.conversations.talk import begin, listed, read, send, try_send
from tests.external.desk import NEWCOMER, STRANGER, Desk
from tests.remote_like import Line, sweep_after_leases_ran_out, with_remote_fhir


@pytest.fixture(autouse=True)
def sweeps_are_ours(monkeypatch: pytest.MonkeyPatch) -> None:
    """Let the application not sweep by itself, so that these tests say when."""
    monkeypatch.setattr("quill.app.SWEEP_AFTER_START_SECONDS", 3600.0)


def test_list_shows_who_has_access(desk: Desk) -> None:
    """gap: nobody can see who has access, exactly when somebody does."""
    assert desk.patient.get(desk.url("external-access")).json() == {"grants": [], "next_cursor": None}
    first = desk.newcomer()
    second = desk.clinic.clinician(username="doctor", full_name="Dr Ada Grey")
    desk.accept(desk.token("doctor@example.org", by=desk.admin))
    for reader in (desk.patient, desk.admin):
        answer = reader.get(desk.url("external-access"))
        assert answer.status_code == 200
        newcomer, doctor = answer.json()["grants"]
        granted_at = newcomer.pop("granted_at")
        assert granted_at.endswith("Z")
        assert newcomer == {
            "user_id": first.id,
            "username": "relative",
            "name": "relative",
            "email": STRANGER,
            "user_type": "external_hcp",
            "is_active": True,
            "granted_by_user_id": desk.patient.id,
            "access_level": "full",
        }
        assert (doctor["user_id"], doctor["name"], doctor["user_type"]) == (second.id, "Dr Ada Grey", "staff")
        assert doctor["granted_by_user_id"] == desk.admin.id
    page = desk.patient.get(desk.url("external-access?limit=1")).json()
    rest = desk.patient.get(desk.url(f"external-access?cursor={page['next_cursor']}")).json()
    assert [row["user_id"] for row in (*page["grants"], *rest["grants"])] == [first.id, second.id]
    assert desk.clinic.audited("external-access:list")


def test_listing_sends_as_many_selects_for_many_as_for_one(desk: Desk) -> None:
    def look() -> None:
        assert desk.patient.get(desk.url("external-access")).status_code == 200

    desk.newcomer()
    one = desk.clinic.selects(look)
    for number in range(3):
        desk.clinic.person(f"more{number}", is_signed_in=False)
        assert desk.accept(desk.token(f"more{number}@example.org")).status_code == 200
    assert desk.clinic.selects(look) == one
    assert len(desk.grants()) == 4


@pytest.mark.parametrize("who", ["patient", "admin"])
def test_patient_and_admin_revoke_and_no_old_link_brings_it_back(desk: Desk, who: str) -> None:
    """gap: replaying an unexpired invite undoes a revocation; gap: the patient who invited cannot revoke."""
    token = desk.token()
    person = Person(desk.clinic.client, desk.accept(token, **NEWCOMER).json()["user_id"], "relative")
    person.sign_in()
    pending = [desk.token(by=desk.admin), desk.token(STRANGER.upper())]
    other = desk.token("other@example.org")
    revoker: Person = getattr(desk, who)
    assert desk.may_read(person)
    answer = desk.revoke(person.id, by=revoker)
    assert (answer.status_code, answer.json()) == (200, {"status": "revoked"})
    assert not desk.may_read(person), "from the next request on"
    for replayed in (token, *pending):
        gone = desk.accept(replayed, **NEWCOMER)
        assert (gone.status_code, gone.json()["error_code"]) == (410, "invite_gone")
    assert desk.grants() == []
    assert not desk.may_read(person)
    assert [invite["status"] for invite in desk.invites()] == ["pending", "withdrawn", "withdrawn", "accepted"]
    assert desk.accept(other, username="other", password=NEWCOMER["password"]).status_code == 200
    again = desk.revoke(person.id, by=revoker)
    assert (again.status_code, again.json()["detail"]) == (404, "Active access grant not found")


def test_actor_is_recorded(desk: Desk) -> None:
    """gap: actor not recorded."""
    person = desk.newcomer()
    desk.revoke(person.id, by=desk.admin)

    async def read(unit: Unit) -> int | None:
        return await unit.session.scalar(sa.select(ExternalAccess.revoked_by_user_id))

    assert desk.clinic.in_unit(read) == desk.admin.id
    (row,) = desk.clinic.audited("external-access:revoke")
    assert (row.actor_user_id, row.patient_id, row.subject) == (desk.admin.id, desk.patient_id, f"user:{person.id}")


@pytest.mark.parametrize("level", [Level.PATIENT, Level.STAFF])
def test_grants_of_every_level_open_and_are_revoked(desk: Desk, level: Level) -> None:
    person = desk.clinic.person("doctor", level=level)

    async def tie(unit: Unit) -> Relationship | None:
        actor = await identity.find_actor(unit.session, unit.settings, UserId(person.id))
        assert actor is not None
        return await access.find_relationship(unit.session, actor, PatientId(desk.patient_id))

    assert desk.clinic.in_unit(tie) is None
    desk.accept(desk.token("doctor@example.org"))
    assert desk.clinic.in_unit(tie) == Relationship.EXTERNAL_GRANT
    assert desk.revoke(person.id).status_code == 200
    assert desk.clinic.in_unit(tie) is None
    assert not desk.may_read(person)


def test_new_invite_after_a_revocation_gives_access_again(desk: Desk) -> None:
    person = desk.newcomer()
    desk.revoke(person.id)
    answer = desk.accept(desk.token())
    assert answer.json() == {"status": "access_granted", "user_id": person.id, "redirect": "/app/"}
    assert desk.may_read(person)
    assert len(desk.grants()) == 1


def test_address_changed_since_is_no_way_back(desk: Desk) -> None:
    person = desk.newcomer()
    pending = desk.token()

    async def move(unit: Unit) -> None:
        await unit.session.execute(
            sa.update(UserAccount)
            .where(UserAccount.id == person.id)
            .values(email="moved@example.org", email_folded="moved@example.org")
        )

    desk.clinic.in_unit(move)
    assert desk.revoke(person.id).status_code == 200
    assert desk.accept(pending, username="again", password=NEWCOMER["password"]).status_code == 410


def test_revoking_nobodys_access_is_404_and_withdraws_nothing(desk: Desk) -> None:
    doctor = desk.clinic.clinician(desk.organisation, username="doctor")
    token = desk.token("doctor@example.org")
    for user_id in (doctor.id, 999_999, 0):
        answer = desk.revoke(user_id)
        assert (answer.status_code, answer.json()["detail"]) == (404, "Active access grant not found")
    for wrong in ("x", "-1", str(2**31)):
        assert desk.patient.delete(desk.url(f"external-access/{wrong}")).status_code == 422
    assert desk.accept(token).status_code == 200


def test_membership_outlives_a_revoked_grant(desk: Desk) -> None:
    doctor = desk.clinic.clinician(desk.organisation, username="doctor")
    desk.accept(desk.token("doctor@example.org"))
    assert desk.revoke(doctor.id).status_code == 200
    assert desk.may_read(doctor), "the organisation cares for the patient still"


def test_of_parallel_revocations_one_counts(desk: Desk) -> None:
    person = desk.newcomer()
    with ThreadPoolExecutor(4) as pool:
        answers = list(pool.map(lambda _: desk.revoke(person.id), range(4)))
    assert sorted(answer.status_code for answer in answers) == [200, 404, 404, 404]
    assert len(desk.clinic.audited("external-access:revoke")) == 1


def test_revoking_and_accepting_at_once_leave_no_open_door(desk: Desk) -> None:
    """Whichever comes first: revoked last means no access, and a replay afterwards is 410."""
    person = desk.newcomer()
    token = desk.token()
    with ThreadPoolExecutor(2) as pool:
        revoked = pool.submit(desk.revoke, person.id)
        accepted = pool.submit(desk.accept, token)
    assert revoked.result().status_code == 200
    assert accepted.result().status_code in {200, 410}
    assert desk.accept(token).status_code == 410
    assert not desk.may_read(person)


def test_taking_part_in_conversations_ends_too(desk: Desk) -> None:
    """gap: conversation participations remain, with write access."""
    doctor = desk.clinic.clinician(desk.organisation)
    person = desk.newcomer()
    talks = [begin(doctor, desk.patient_id, person), begin(person, desk.patient_id)]
    send(person, talks[0])
    assert desk.revoke(person.id).status_code == 200
    for talk in talks:
        assert read(person, talk).status_code == 404
        assert try_send(person, talk).status_code == 404
        assert person.id not in [row["user_id"] for row in read(doctor, talk).json()["participants"]]
    assert len(read(doctor, talks[0]).json()["messages"]) == 2, "what was said stays"
    assert desk.accept(desk.token()).status_code == 200
    assert read(person, talks[0]).status_code == 404, "access given anew does not bring back the part taken before"


def test_colleague_with_a_grant_too_stays_in_conversations(desk: Desk) -> None:
    doctor = desk.clinic.clinician(desk.organisation)
    colleague = desk.clinic.clinician(desk.organisation, username="colleague")
    desk.accept(desk.token("colleague@example.org"))
    talk = begin(doctor, desk.patient_id, colleague)
    assert desk.revoke(colleague.id).status_code == 200
    send(colleague, talk)


@pytest.fixture
def line(desk: Desk) -> Line:
    """Put a FHIR store of its own behind the application; returns the line to it."""
    line = Line()
    desk.clinic.client.app.state.services = with_remote_fhir(desk.clinic.services, line)  # type: ignore[attr-defined]
    return line


def rebuild(desk: Desk, line: Line) -> None:
    line.serves_a_job = True
    desk.clinic.run(rebuild_projection, desk.clinic.services)
    line.serves_a_job = False


def sweep(desk: Desk) -> int:
    closed: int = desk.clinic.run(sweep_after_leases_ran_out, desk.clinic.services, KINDS)
    return closed


def named(desk: Desk, talk: dict[str, Any]) -> list[int]:
    """Return whom the header in the store names, behind the line and the API alike."""

    async def find() -> StoredResource | None:
        async with desk.clinic.services.database.reading() as session:
            return await EmbeddedFhirStore(session).find("Communication", talk["fhir_conversation_id"])

    stored: StoredResource | None = desk.clinic.run(find)
    facts = conversation_facts(stored.document) if stored is not None else None
    assert facts is not None
    return sorted(found.user_id for found in facts.participants)


def shown(reader: Person, talk: dict[str, Any]) -> list[int]:
    return sorted(row["user_id"] for row in read(reader, talk).json()["participants"])


@pytest.mark.usefixtures("line")
def test_store_hears_of_it_from_the_sweep_and_each_part_ended_is_audited_once(desk: Desk) -> None:
    doctor = desk.clinic.clinician(desk.organisation)
    person = desk.newcomer()
    talks = [begin(doctor, desk.patient_id, person), begin(person, desk.patient_id, doctor)]
    assert desk.revoke(person.id).status_code == 200
    for talk in talks:
        assert read(person, talk).status_code == 404
        assert shown(doctor, talk) == [doctor.id]
        assert named(desk, talk) == [doctor.id, person.id]
    assert sweep(desk) == 2
    for talk in talks:
        assert shown(doctor, talk) == named(desk, talk) == [doctor.id]
    assert sweep(desk) == 0
    assert len(desk.clinic.audited("external-access:revoke")) == 1
    assert [row.actor_user_id for row in desk.clinic.audited("participant:remove")] == [desk.patient.id] * 2


@pytest.mark.parametrize("trouble", [FhirUnavailable(), FhirRefused()])
def test_nothing_of_a_revocation_waits_for_the_store_and_nothing_revives_it(
    desk: Desk, line: Line, trouble: Exception
) -> None:
    """Decisions, rule 22: grants, pending invites and parts in conversations end together, and stay ended."""
    doctor = desk.clinic.clinician(desk.organisation)
    person = desk.newcomer()
    pending = desk.token()
    talk = begin(doctor, desk.patient_id, person)
    line.cut(trouble)
    assert desk.revoke(person.id, by=desk.admin).status_code == 200
    assert not desk.may_read(person)
    assert desk.accept(pending).status_code == 410
    assert desk.grants() == []
    (row,) = desk.clinic.audited("external-access:revoke")
    assert (row.actor_user_id, row.outcome) == (desk.admin.id, "allowed")
    assert sweep(desk) == 0, "the store is still away"
    assert desk.accept(desk.token()).status_code == 200
    assert desk.may_read(person)
    assert read(person, talk).status_code == 404, "access given anew does not bring back the part taken before"
    line.mend()
    assert sweep(desk) == 1
    assert read(person, talk).status_code == 404
    assert shown(doctor, talk) == named(desk, talk) == [doctor.id]


def test_header_that_names_somebody_still_brings_nobody_back(desk: Desk, line: Line) -> None:
    doctor, colleague = desk.clinic.clinician(desk.organisation), desk.clinic.clinician(desk.organisation)
    person = desk.newcomer()
    talk = begin(doctor, desk.patient_id, person)
    assert desk.revoke(person.id).status_code == 200
    assert desk.accept(desk.token()).status_code == 200
    url = f"/api/conversations/{talk['id']}"
    # Another change of the same header is projected before the sweep has corrected it.
    assert doctor.post(f"{url}/participants", {"user_id": colleague.id}).status_code == 200
    assert named(desk, talk) == sorted([doctor.id, person.id, colleague.id])
    assert shown(doctor, talk) == sorted([doctor.id, colleague.id])
    assert read(person, talk).status_code == 404
    # Nor do tables made anew from that header.
    rebuild(desk, line)
    assert shown(doctor, talk) == sorted([doctor.id, colleague.id])
    assert sweep(desk) == 1
    assert named(desk, talk) == shown(doctor, talk) == sorted([doctor.id, colleague.id])


@pytest.mark.parametrize("is_swept_first", [True, False])
def test_who_is_added_again_on_purpose_takes_part_again(desk: Desk, line: Line, is_swept_first: bool) -> None:
    doctor = desk.clinic.clinician(desk.organisation)
    person = desk.newcomer()
    talk = begin(doctor, desk.patient_id, person)
    assert desk.revoke(person.id).status_code == 200
    assert desk.accept(desk.token()).status_code == 200
    if is_swept_first:
        assert sweep(desk) == 1
    added = doctor.post(f"/api/conversations/{talk['id']}/participants", {"user_id": person.id})
    assert added.status_code == 200
    assert read(person, talk).status_code == 200
    assert sweep(desk) == (0 if is_swept_first else 1)
    assert shown(doctor, talk) == named(desk, talk) == sorted([doctor.id, person.id])
    send(person, talk)
    rebuild(desk, line)
    assert shown(doctor, talk) == sorted([doctor.id, person.id])


async def heard() -> None:
    """Let an answer through."""


def test_part_on_its_way_when_access_ended_is_not_taken(desk: Desk, line: Line) -> None:
    """A conversation that arrived in the store, whose answer was lost, and which the sweep projects later."""
    doctor = desk.clinic.clinician(desk.organisation)
    person = desk.newcomer()
    # The header's answer arrives, that of the first message does not.
    line.after_next("write", heard)
    line.lose_next("write", FhirUnavailable)
    body = {"patient_id": desk.patient_id, "initial_message": "Hello", "participant_ids": [person.id]}
    assert doctor.post("/api/conversations", body).status_code == 503
    line.mend()
    assert desk.revoke(person.id).status_code == 200
    assert desk.accept(desk.token()).status_code == 200
    sweep(desk)
    (talk,) = listed(doctor)
    assert shown(doctor, talk) == [doctor.id]
    assert listed(person) == []
