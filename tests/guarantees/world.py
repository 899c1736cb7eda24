"""One clinic with everybody in it whom the access table is about, and fresh things for calls that use them up."""

import itertools
from dataclasses import dataclass
from typing import Any

from starlette.testclient import TestClient

from quill.actor import Level
from quill.auth.throttle import Throttle
from tests.clinic import PASSWORD, Clinic, Person
from tests.conversations.talk import begin, grant, patient_account
from tests.letters.desk import LETTER, letters_of
from tests.published_api import Browser

KINDS = (
    "anonymous",
    "patient",
    "unrelated_patient",
    "staff",
    "staff_elsewhere",
    "external",
    "external_without_grant",
    "admin",
    "superadmin",
)
"""Everybody the table is about, in the order of its columns."""


@dataclass
class Letter:
    """A letter that was written, and the version an amendment must name."""

    uid: str
    etag: str


class World:
    """A surgery and a hospital; ``patient`` is in the care of the surgery, everybody else is as their kind says."""

    def __init__(self, client: TestClient) -> None:
        self.clinic = Clinic(client)
        self._numbers = itertools.count(1)
        self.surgery, self.hospital = self.clinic.organisation(), self.clinic.organisation("General Hospital")
        self.patient, self.other_patient = self.clinic.patient(self.surgery), self.clinic.patient(self.hospital)
        self.people = {kind: self.somebody(kind) for kind in KINDS}
        self.colleague = self.clinic.clinician(self.surgery)
        self.letter = self.new_letter()
        self.shared = self.new_conversation()
        self.among_staff: int = begin(self.people["staff"], self.patient, self.colleague)["id"]

    def number(self) -> int:
        """Return a number not given before."""
        return next(self._numbers)

    def somebody(self, kind: str) -> Person:
        """Make and sign in a person of a kind; the patient's own account can exist once only."""
        clinic = self.clinic
        if kind == "anonymous":
            return Person(clinic.client, 0, "nobody")
        if kind == "patient":
            return patient_account(clinic, self.patient)
        if kind == "unrelated_patient":
            return patient_account(clinic, self.other_patient)
        if kind in {"external", "external_without_grant"}:
            # As somebody is who accepted an invite.
            person = clinic.person(level=Level.EXTERNAL_HCP, profession="patient")
            grant(clinic, person, self.patient if kind == "external" else self.other_patient)
            return person
        if kind in {"staff", "staff_elsewhere"}:
            return clinic.clinician(self.surgery if kind == "staff" else self.hospital)
        return clinic.admin() if kind == "admin" else clinic.superadmin()

    def visitor(self, kind: str, *, signs_in_anew: bool = False) -> Person:
        """Return somebody of a kind with cookies of their own, so that no call takes them from the next."""
        known = self.people[kind]
        person = Person(self.clinic.client, known.id, known.username)
        if signs_in_anew and kind != "anonymous":
            assert person.sign_in().status_code == 200
        else:
            person.client = Browser(self.clinic.client.app, raise_server_exceptions=False)
            person.client.portal = self.clinic.client.portal
            person.client.cookies.update(known.client.cookies)
        return person

    def forget_attempts(self) -> None:
        """Start counting attempts afresh; nine people behind one address are not what throttles are for."""
        self.clinic.authenticator.throttle = Throttle()

    def new_letter(self) -> Letter:
        """Write a letter about the patient."""
        answer = self.people["staff"].post(letters_of(self.patient), LETTER)
        assert answer.status_code == 200, answer.text
        return Letter(answer.json()["composition_uid"], answer.headers["etag"])

    def new_conversation(self) -> int:
        """Begin a conversation of staff, a colleague and the patient; nobody else takes part."""
        made = begin(self.people["staff"], self.patient, self.colleague, self.people["patient"])
        number: int = made["id"]
        return number

    def new_account(self, **extra: Any) -> Person:
        """Make an account that does not sign in."""
        return self.clinic.person(is_signed_in=False, **extra)

    def new_join_request(self) -> int:
        """Register somebody who asks to join the surgery, and return the request."""
        self.forget_attempts()
        name = f"newcomer{self.number()}"
        body = {
            "username": name,
            "email": f"{name}@example.org",
            "password": PASSWORD,
            "organisation_id": self.surgery,
        }
        assert self.clinic.client.post("/api/auth/register", json=body).status_code == 200
        waiting = self.people["admin"].get(f"/api/organizations/{self.surgery}/join-requests").json()["join_requests"]
        number: int = waiting[-1]["id"]
        return number

    def login_of_somebody(self) -> tuple[int, str]:
        """Sign somebody in and return their number and the login's id."""
        person = self.clinic.person()
        login_id: str = person.get("/api/auth/logins").json()["logins"][0]["id"]
        return person.id, login_id

    def new_invite(self) -> dict[str, Any]:
        """Invite an address that has no account yet."""
        self.forget_attempts()
        body = {"email": f"invited{self.number()}@example.org", "user_type": "external_hcp"}
        answer = self.people["admin"].post(f"/api/patients/{self.patient}/invite-external", body)
        assert answer.status_code == 200, answer.text
        invite: dict[str, Any] = answer.json()
        return invite
