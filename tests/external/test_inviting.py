"""Sending, listing and withdrawing invites."""

import datetime
import hashlib
import json
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from pydantic import SecretStr

from quill.actor import Level
from quill.external.models import ExternalInvite
from quill.kit import clock
from quill.outbox.models import OutboxEntry
from quill.unit import Unit
from tests.accounts.browsers import Mailbox
from tests.clinic import Clinic
from tests.external.desk import NEWCOMER, STRANGER, Desk, use_settings
from tests.letters.desk import deactivate


def stored(clinic: Clinic, column: Any) -> list[Any]:
    async def read(unit: Unit) -> list[Any]:
        return list(await unit.session.scalars(sa.select(column)))

    found: list[Any] = clinic.in_unit(read)
    return found


def test_patient_invites_and_the_token_is_kept_nowhere(desk: Desk) -> None:
    """gap: the inviter's identity is not in the token; gap: invites cannot be limited to one use."""
    answer = desk.invite("  Relative@Example.org ", user_type="patient_advocate")
    assert answer.status_code == 200
    body = answer.json()
    assert body["invite_url"] == f"/app/accept-invite?token={body['token']}"
    assert not body["is_emailed"]
    (invite,) = desk.invites()
    assert (invite["id"], invite["email"], invite["user_type"]) == (
        body["id"],
        "Relative@Example.org",
        "patient_advocate",
    )
    assert (invite["status"], invite["invited_by_user_id"]) == ("pending", desk.patient.id)
    created, expires = (datetime.datetime.fromisoformat(invite[name]) for name in ("created_at", "expires_at"))
    assert expires - created == datetime.timedelta(days=7)
    (kept,) = stored(desk.clinic, ExternalInvite.token_hash)
    assert kept == hashlib.sha256(b"invite:" + body["token"].encode()).hexdigest()
    (row,) = desk.clinic.audited("invite:send")
    assert (row.actor_user_id, row.patient_id, row.subject) == (
        desk.patient.id,
        desk.patient_id,
        f"invite:{body['id']}",
    )


def test_inviting_grants_nothing_yet(desk: Desk) -> None:
    doctor = desk.clinic.clinician(username="doctor")
    desk.token("doctor@example.org")
    assert not desk.may_read(doctor)
    assert desk.grants() == []


def test_admin_invites_too(desk: Desk) -> None:
    desk.token(by=desk.admin)
    assert desk.invites()[0]["invited_by_user_id"] == desk.admin.id


def test_insider_is_403_outsider_404_everywhere(desk: Desk) -> None:
    insider, outsider = desk.clinic.clinician(desk.organisation), desk.clinic.clinician()
    invited = desk.newcomer()
    desk.token("somebody@example.org")
    number = desk.invites()[0]["id"]
    calls: list[tuple[str, str, dict[str, str] | None, str]] = [
        (
            "POST",
            "invite-external",
            {"email": "x@example.org", "user_type": "external_hcp"},
            "Only the patient or an admin can invite external users",
        ),
        ("GET", "invites", None, "Access denied"),
        ("DELETE", f"invites/{number}", None, "Only the patient or an admin can withdraw invites"),
        ("GET", "external-access", None, "Access denied"),
        ("DELETE", f"external-access/{invited.id}", None, "Admin only"),
    ]
    for method, rest, body, words in calls:
        for person in (insider, invited):
            answer = person.client.request(method, desk.url(rest), json=body, headers=person.csrf)
            assert (answer.status_code, answer.json()["detail"]) == (403, words)
        answer = outsider.client.request(method, desk.url(rest), json=body, headers=outsider.csrf)
        assert (answer.status_code, answer.json()["detail"]) == (404, "Patient not found")
        answer = desk.clinic.client.request(method, desk.url(rest), json=body)
        assert answer.status_code == 401
        if method != "GET":
            answer = desk.patient.client.request(method, desk.url(rest), json=body)
            assert (answer.status_code, answer.json()["detail"]) == (403, "CSRF failed")
    assert [invite["status"] for invite in desk.invites()] == ["pending", "accepted"]
    assert len(desk.grants()) == 1
    assert {row.reason for row in desk.clinic.audited("access:check")} == {"not_own_record", "no_relationship"}


def test_another_patient_is_an_outsider(desk: Desk) -> None:
    other = desk.patient_account("other", desk.clinic.patient(desk.organisation))
    assert desk.invite(by=other).status_code == 404


def test_unknown_and_deactivated_patients_take_no_invites(desk: Desk) -> None:
    """gap: the patient is not looked up."""
    body = {"email": STRANGER, "user_type": "external_hcp"}
    unknown = desk.admin.post("/api/patients/nobody/invite-external", body)
    assert (unknown.status_code, unknown.json()["detail"]) == (404, "Patient not found")
    deactivate(desk.clinic, desk.patient_id)
    assert desk.invite().status_code == 409
    assert stored(desk.clinic, ExternalInvite.id) == []


MALFORMED_INVITES: list[Any] = [
    {},
    {"email": STRANGER},
    {"email": STRANGER, "user_type": "staff"},
    {"email": STRANGER, "user_type": "superadmin"},
    {"email": STRANGER, "user_type": None},
    {"email": "", "user_type": "external_hcp"},
    {"email": "   ", "user_type": "external_hcp"},
    {"email": "nobody", "user_type": "external_hcp"},
    {"email": "a@b@c", "user_type": "external_hcp"},
    {"email": "a b@example.org", "user_type": "external_hcp"},
    {"email": "a@example.org\r\nBcc: b@example.org", "user_type": "external_hcp"},
    {"email": "a\x00@example.org", "user_type": "external_hcp"},
    {"email": "a\ud800@example.org", "user_type": "external_hcp"},
    {"email": "x" * 250 + "@example.org", "user_type": "external_hcp"},
    {"email": "ΐ" * 240 + "@example.org", "user_type": "external_hcp"},
    {"email": 7, "user_type": "external_hcp"},
    {"email": STRANGER, "user_type": "external_hcp", "patient_id": "x"},
]


def test_malformed_invite_is_422(desk: Desk) -> None:
    """gap: no format check."""
    headers = desk.patient.csrf | {"content-type": "application/json"}
    for body in MALFORMED_INVITES:
        content = json.dumps(body).encode()
        answer = desk.patient.client.post(desk.url("invite-external"), content=content, headers=headers)
        assert answer.status_code == 422, body
    assert desk.invites() == []


def test_unknown_query_is_422(desk: Desk) -> None:
    for rest in ("invites", "external-access"):
        assert desk.patient.get(desk.url(f"{rest}?page=2")).status_code == 422


def test_too_many_invites_are_429_for_this_person_only(desk: Desk) -> None:
    """gap: no rate limit."""
    statuses = [desk.invite().status_code for _ in range(21)]
    assert statuses == [200] * 20 + [429]
    assert "Retry-After" in desk.invite().headers
    assert desk.invite(by=desk.admin).status_code == 200


def test_invite_is_emailed_when_mail_is_configured(desk: Desk, monkeypatch: pytest.MonkeyPatch) -> None:
    """gap: FRONTEND_URL is not used."""
    mailbox = Mailbox(monkeypatch)
    use_settings(desk.clinic, smtp_url=SecretStr("smtp://127.0.0.1:1"), public_url="http://testserver/")
    sent = desk.invite().json()
    assert sent["is_emailed"]
    (mail,) = mailbox.mails(desk.clinic)
    assert (mail.to, mail.template) == (STRANGER, "invite")
    assert mail.link == f"http://testserver{sent['invite_url']}"
    assert stored(desk.clinic, OutboxEntry.payload) == [None]


def test_without_mail_nothing_is_queued(desk: Desk) -> None:
    desk.token()
    assert stored(desk.clinic, OutboxEntry.id) == []


def test_withdrawn_invite_is_410_and_stays_so(desk: Desk) -> None:
    """gap: invites cannot be listed or withdrawn."""
    token = desk.token()
    number = desk.invites()[0]["id"]
    answer = desk.patient.delete(desk.url(f"invites/{number}"))
    assert (answer.status_code, answer.json()) == (200, {"status": "withdrawn"})
    (invite,) = desk.invites()
    assert (invite["status"], invite["withdrawn_by_user_id"]) == ("withdrawn", desk.patient.id)
    for _ in range(2):
        refused = desk.accept(token, **NEWCOMER)
        assert (refused.status_code, refused.json()["error_code"]) == (410, "invite_gone")
    assert desk.patient.delete(desk.url(f"invites/{number}")).status_code == 409
    (row,) = desk.clinic.audited("invite:withdraw")
    assert (row.actor_user_id, row.subject) == (desk.patient.id, f"invite:{number}")


def test_admin_withdraws_what_the_patient_sent(desk: Desk) -> None:
    desk.token()
    number = desk.invites()[0]["id"]
    assert desk.admin.delete(desk.url(f"invites/{number}")).status_code == 200


def test_accepted_invite_is_not_withdrawn(desk: Desk) -> None:
    person = desk.newcomer()
    number = desk.invites()[0]["id"]
    answer = desk.patient.delete(desk.url(f"invites/{number}"))
    assert (answer.status_code, answer.json()["error_code"]) == (409, "invite_closed")
    assert desk.may_read(person)


def test_invite_of_another_patient_is_404(desk: Desk) -> None:
    second = desk.clinic.patient(desk.organisation)
    other = desk.patient_account("other", second)
    desk.token()
    number = desk.invites()[0]["id"]
    answer = other.delete(desk.url(f"invites/{number}", second))
    assert (answer.status_code, answer.json()["error_code"]) == (404, "invite_not_found")
    assert desk.patient.delete(desk.url("invites/999999")).status_code == 404
    for wrong in ("x", "-1", str(2**31)):
        assert desk.patient.delete(desk.url(f"invites/{wrong}")).status_code == 422
    assert other.get(desk.url("invites", second)).json()["invites"] == []
    assert desk.invites()[0]["status"] == "pending"


def test_invites_come_newest_first_in_pages(desk: Desk) -> None:
    for number in range(3):
        desk.token(f"a{number}@example.org")
    first = desk.patient.get(desk.url("invites?limit=2")).json()
    assert [invite["email"] for invite in first["invites"]] == ["a2@example.org", "a1@example.org"]
    second = desk.patient.get(desk.url(f"invites?limit=2&cursor={first['next_cursor']}")).json()
    assert [invite["email"] for invite in second["invites"]] == ["a0@example.org"]
    assert second["next_cursor"] is None
    assert desk.patient.get(desk.url("invites?cursor=x")).status_code == 422
    assert len(desk.clinic.audited("invite:list")) == 2


def test_old_invite_shows_as_expired(desk: Desk) -> None:
    desk.token(by=desk.admin)

    async def age(unit: Unit) -> None:
        await unit.session.execute(sa.update(ExternalInvite).values(expires_at=clock.now()))

    desk.clinic.in_unit(age)
    assert desk.invites()[0]["status"] == "expired"


def test_clinical_services_off_is_503(desk: Desk, clinical_off: None) -> None:
    del clinical_off
    for method, rest in (("POST", "invite-external"), ("GET", "invites"), ("GET", "external-access")):
        answer = desk.patient.client.request(method, desk.url(rest), headers=desk.patient.csrf)
        assert (answer.status_code, answer.json()["error_code"]) == (503, "clinical_services_disabled")


def test_external_levels_may_be_owners_of_nothing(desk: Desk) -> None:
    """An invited person who holds a grant decides about nobody's access, not even for another invited person."""
    invited = desk.newcomer()
    assert invited.get("/api/auth/me").json()["system_permissions"] == Level.EXTERNAL_HCP
    assert desk.invite("next@example.org", by=invited).status_code == 403


def test_expiry_is_seven_days(desk: Desk) -> None:
    token = desk.token()
    with time_machine.travel(clock.now() + datetime.timedelta(days=7, seconds=1), tick=False):
        late = desk.accept(token, **NEWCOMER)
    assert (late.status_code, late.json()["detail"]) == (400, "Invalid or expired invite token")
    assert desk.accept(token, **NEWCOMER).status_code == 200
