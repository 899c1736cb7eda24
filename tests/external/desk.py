"""What tests about external people share: a patient with an account, invites, acceptances."""

import dataclasses
from typing import Any

from quill.actor import Level
from tests.clinic import PASSWORD, Clinic, Person

STRANGER = "relative@example.org"
NEWCOMER = {"username": "relative", "password": PASSWORD}


class Desk:
    """A patient in an organisation's care, with an account, and an admin."""

    def __init__(self, clinic: Clinic) -> None:
        self.clinic = clinic
        self.organisation = clinic.organisation()
        self.patient_id = clinic.patient(self.organisation)
        self.patient = self.patient_account("patient", self.patient_id)
        self.admin = clinic.admin(username="admin")

    def patient_account(self, username: str, patient_id: str | None, **extra: Any) -> Person:
        return self.clinic.person(username, level=Level.PATIENT, profession="patient", patient_id=patient_id, **extra)

    def url(self, rest: str, patient_id: str | None = None) -> str:
        return f"/api/patients/{patient_id or self.patient_id}/{rest}"

    def invite(self, email: str = STRANGER, *, by: Person | None = None, **fields: Any) -> Any:
        return (by or self.patient).post(
            self.url("invite-external"), {"email": email, "user_type": "external_hcp"} | fields
        )

    def token(self, email: str = STRANGER, *, by: Person | None = None, **fields: Any) -> str:
        answer = self.invite(email, by=by, **fields)
        assert answer.status_code == 200, answer.text
        return str(answer.json()["token"])

    def accept(self, token: str, **fields: Any) -> Any:
        return self.clinic.client.post("/api/accept-invite", json={"token": token, **fields})

    def newcomer(self) -> Person:
        """Return somebody new who has accepted an invite and is signed in."""
        answer = self.accept(self.token(), **NEWCOMER)
        assert answer.status_code == 200, answer.text
        person = Person(self.clinic.client, answer.json()["user_id"], NEWCOMER["username"])
        assert person.sign_in().status_code == 200
        return person

    def revoke(self, user_id: int, *, by: Person | None = None) -> Any:
        return (by or self.patient).delete(self.url(f"external-access/{user_id}"))

    def grants(self) -> list[dict[str, Any]]:
        grants: list[dict[str, Any]] = self.patient.get(self.url("external-access")).json()["grants"]
        return grants

    def invites(self) -> list[dict[str, Any]]:
        invites: list[dict[str, Any]] = self.patient.get(self.url("invites")).json()["invites"]
        return invites

    def may_read(self, person: Person) -> bool:
        """Tell whether somebody reads the patient's letters, which any active relationship allows."""
        status = person.get(self.url("letters")).status_code
        assert status in {200, 404}
        return bool(status == 200)


def use_settings(clinic: Clinic, **values: Any) -> None:
    """Go on with other settings; what runs in the background keeps those it began with."""
    services = clinic.services
    changed = dataclasses.replace(services, settings=services.settings.model_copy(update=values))
    clinic.client.app.state.services = changed  # type: ignore[attr-defined]
