"""What people write never reaches a log line or an error: a whole story of marked values, its failures included."""

from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from quill.errors import FhirUnavailable, OpenEhrRefused
from tests.clinic import Clinic, Person
from tests.conversations.talk import patient_account
from tests.letters.desk import letters_of
from tests.remote_like import Line, with_remote_fhir, with_remote_openehr

FAMILY, GIVEN, NHS_NUMBER, BORN = "Qwertzfamily", "Qwertzgiven", "9434765919", "1931-03-07"
MESSAGE, SUBJECT = "Qwertzmessage about the hip", "Qwertzsubject"
TITLE, LETTER = "Qwertztitle", "Qwertzletter text"
MEDICATION, PASSWORD, WRONG_PASSWORD = "Qwertzmorphine", "Qwertzpass word 1", "Qwertzwrong word 2"
PATIENT_ID = "qwertz-patient-id"
UPSTREAM = "Qwertzupstream said: row of Qwertzfamily"


@dataclass
class Story:
    """What must not be found, and the errors that were answered."""

    marks: set[str] = field(default_factory=lambda: {"qwertz", NHS_NUMBER, BORN})
    errors: list[str] = field(default_factory=list)
    statuses: set[int] = field(default_factory=set)

    def told(self, answer: Any) -> Any:
        """Note an answer; an error is searched later, and cookies of any are secrets."""
        self.statuses.add(answer.status_code)
        self.marks |= {value.lower() for value in answer.cookies.values()}
        if answer.is_error:
            self.errors.append(f"{answer.text} {answer.headers}")
        return answer

    def found_in(self, text: str) -> list[str]:
        """Return which marks a text holds."""
        return sorted(mark for mark in self.marks if mark in text.lower())


@pytest.mark.parametrize("production_logs", ["debug"], indirect=True)
@pytest.mark.usefixtures("production_logs")
def test_no_log_line_and_no_error_holds_what_people_wrote(clinic: Clinic, capsys: pytest.CaptureFixture[str]) -> None:
    story = Story()
    surgery = clinic.organisation()
    doctor = clinic.clinician(surgery, password=PASSWORD, is_signed_in=False)
    story.told(doctor.sign_in(PASSWORD))
    patient = care(story, doctor)
    invitation(story, patient_account(clinic, patient), clinic)
    mistakes(story, doctor, patient)
    outages(story, clinic, doctor, patient)

    written = "".join(capsys.readouterr())
    assert {200, 201, 400, 401, 404, 409, 412, 422, 428, 500, 502, 503} <= story.statuses
    assert '"event":"unforeseen"' in written
    assert "/api/patients/{patient_id}/letters" in written
    assert story.found_in(written) == []
    assert [error for error in story.errors if story.found_in(error)] == []


def care(story: Story, doctor: Person) -> str:
    """Make a patient, write a letter, prescribe, talk."""
    new_patient = {
        "patient_id": PATIENT_ID,
        "given_name": GIVEN,
        "family_name": FAMILY,
        "birth_date": BORN,
        "nhs_number": NHS_NUMBER,
    }
    patient: str = story.told(doctor.post("/api/patients", new_patient)).json()["id"]
    story.told(doctor.get("/api/patients", params={"search": FAMILY}))
    story.told(doctor.post(letters_of(patient), {"title": TITLE, "body": LETTER}))
    order = {"patient_id": patient, "medication": MEDICATION, "dose": MEDICATION, "duration_days": 3}
    story.told(doctor.post("/api/prescriptions/controlled", order))
    talk = {"patient_id": patient, "subject": SUBJECT, "initial_message": MESSAGE}
    number = story.told(doctor.post("/api/conversations", talk)).json()["id"]
    story.told(doctor.post(f"/api/conversations/{number}/messages", {"body": MESSAGE}))
    # Once more is a conflict with what the first call stored.
    story.told(doctor.post("/api/patients", new_patient))
    story.told(doctor.post("/api/patients", new_patient | {"patient_id": "another-id"}))
    return patient


def invitation(story: Story, owner: Person, clinic: Clinic) -> None:
    """Invite somebody, who accepts twice."""
    guest = {"email": "qwertzguest@example.org", "user_type": "external_hcp"}
    path = f"/api/patients/{PATIENT_ID}/invite-external"
    token: str = story.told(owner.post(path, guest)).json()["token"]
    story.marks.add(token.lower())
    body = {"token": token, "username": "qwertzguest", "password": PASSWORD}
    for _ in range(2):
        story.told(clinic.client.post("/api/accept-invite", json=body))


def mistakes(story: Story, doctor: Person, patient: str) -> None:
    """Call wrongly in every way that has a status of its own."""
    letters = letters_of(patient)
    uid = story.told(doctor.get(letters)).json()["letters"][0]["composition_uid"]
    wrong: dict[str, Any] = {"title": TITLE, "body": LETTER, "author_name": "Qwertzauthor"}
    story.told(doctor.post(letters, wrong))
    story.told(doctor.post(letters, {"title": [TITLE], "body": {"text": LETTER}}))
    story.told(doctor.post(letters, {"title": TITLE, "body": f"{LETTER}\x00"}))
    story.told(doctor.put(f"{letters}/{uid}", {"title": TITLE, "body": LETTER}))
    story.told(doctor.put(f"{letters}/{uid}", {"title": TITLE, "body": LETTER}, headers={"If-Match": 'W/"7"'}))
    story.told(doctor.get("/api/patients/qwertz-nobody"))
    story.told(doctor.get(f"{letters}/{uid.split('::')[0][:-4]}0000"))
    story.told(doctor.get(f"{letters}/Qwertzuid"))
    story.told(doctor.patch(f"/api/patients/{patient}", {"nhs_number": "943 476 5918", "given_name": GIVEN}))
    story.told(doctor.put(f"/api/patients/{patient}/demographics", {"birthDate": f"{BORN}x", "family_name": FAMILY}))
    story.told(doctor.get("/api/patients", params={"cursor": "Qwertzcursor"}))
    story.told(doctor.post("/api/conversations", {"patient_id": "qwertz-nobody", "initial_message": MESSAGE}))
    change = {"current_password": WRONG_PASSWORD, "new_password": PASSWORD}
    story.told(doctor.post("/api/auth/change-password", change))
    story.told(Person(doctor.client, 0, doctor.username).sign_in(WRONG_PASSWORD))
    story.told(Person(doctor.client, 0, "qwertznobody").sign_in(WRONG_PASSWORD))
    doctor.sign_in(PASSWORD)
    story.told(Person(doctor.client, 0, "").get("/api/auth/me", headers={"Cookie": "access_token=Qwertztoken"}))


def outages(story: Story, clinic: Clinic, doctor: Person, patient: str) -> None:
    """Break the stores and the database's answers in ways whose exceptions quote what was sent."""
    line = Line()
    services = with_remote_openehr(with_remote_fhir(clinic.services, line), line)
    clinic.client.app.state.services = services  # type: ignore[attr-defined]
    troubles = (
        RuntimeError(UPSTREAM),
        sa.exc.OperationalError(f"INSERT {UPSTREAM}", {"text": UPSTREAM}, Exception(UPSTREAM)),
        FhirUnavailable(),
        OpenEhrRefused(),
    )
    for trouble in troubles:
        line.cut(trouble)
        story.told(doctor.get(f"/api/patients/{patient}"))
        story.told(doctor.get(letters_of(patient)))
        story.told(doctor.post(letters_of(patient), {"title": TITLE, "body": LETTER}))
        story.told(doctor.post("/api/conversations", {"patient_id": patient, "initial_message": MESSAGE}))
        story.told(doctor.post("/api/patients", {"given_name": GIVEN, "family_name": FAMILY}))
    line.mend()
    clinic.client.get("/api/nowhere/Qwertzpath")
