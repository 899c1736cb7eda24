"""Who has access, and ending it for good."""

from concurrent.futures import ThreadPoolExecutor

import pytest
import sqlalchemy as sa

from quill.access import service as access
from quill.access.service import Relationship
from quill.actor import Level
from quill.errors import FhirRefused, FhirUnavailable
from quill.identity import service as identity
from quill.identity.models import ExternalAccess, UserAccount
from quill.kit.ids import PatientId, UserId
from quill.unit import Unit
from tests.clinic import Person
from tests.conversations.talk import begin, read, send, try_send
from tests.external.desk import NEWCOMER, STRANGER, Desk
from tests.remote_like import Line, with_remote_fhir


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


def test_remote_store_hears_of_it_and_the_audit_row_comes_once(desk: Desk) -> None:
    person = desk.newcomer()
    talks = [begin(person, desk.patient_id) for _ in range(2)]
    desk.clinic.client.app.state.services = with_remote_fhir(desk.clinic.services, Line())  # type: ignore[attr-defined]
    assert desk.revoke(person.id).status_code == 200
    for talk in talks:
        assert read(person, talk).status_code == 404
    assert len(desk.clinic.audited("external-access:revoke")) == 1


@pytest.mark.parametrize(("trouble", "status"), [(FhirUnavailable(), 503), (FhirRefused(), 502)])
def test_access_ends_even_when_the_store_does_not_answer(desk: Desk, trouble: Exception, status: int) -> None:
    """The store may keep a name in conversations, but not the door open."""
    person = desk.newcomer()
    pending = desk.token()
    talk = begin(person, desk.patient_id)
    line = Line()
    desk.clinic.client.app.state.services = with_remote_fhir(desk.clinic.services, line)  # type: ignore[attr-defined]
    line.cut(trouble)
    assert desk.revoke(person.id, by=desk.admin).status_code == status
    assert not desk.may_read(person)
    assert read(person, talk).status_code == 404
    assert desk.accept(pending).status_code == 410
    assert desk.grants() == []
    (row,) = desk.clinic.audited("external-access:revoke")
    assert (row.actor_user_id, row.outcome) == (desk.admin.id, "allowed")
