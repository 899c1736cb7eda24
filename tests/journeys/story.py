"""One story told to any house: every answer of it, with headers, as bytes in which ids and times have become marks.

Two houses that keep their records in different places must give the same transcript.
"""

import re
from collections.abc import Mapping
from typing import Any

from quill.actor import Level
from tests.clinic import PASSWORD, Clinic, Person

UUID = r"[0-9a-f]{8}-[0-9a-f]{4}-7[0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}"
VERSION_UID = rf"({UUID})::[A-Za-z0-9.\-_]+::(\d+)"
"""What stands between is the name of the system the record lives in (openEHR, ``OBJECT_VERSION_ID``)."""
INSTANT = r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,6})?Z"
AVATAR = r'("url":"urn:quillmedical:avatar-gradient","valueInteger":)\d+'
"""Chosen at random for each new patient."""
CURSOR = r'"next_cursor":"[^"]+"'
DROPPED = frozenset({"date", "x-request-id", "content-length"})
"""Headers that are of the moment; the length follows from the body, whose ids are of different lengths."""

MARKDOWN = "# Review\n\nDear Zo\u00eb,\n\n* 128/82\t\u2264 140\n\n\u201cAll is well.\u201d \U0001f600  \nDr Osei\n"


class Story:
    """Tells the story and writes down what was answered.

    Args:
        clinic: the house it is told to.
    """

    def __init__(self, clinic: Clinic) -> None:
        self.answers: list[bytes] = []
        self._clinic = clinic
        self._marks: dict[str, str] = {}

    def tell(self) -> list[bytes]:
        """Tell the whole story; returns an entry for each call."""
        clinic = self._clinic
        surgery, clinic_two = (
            clinic.organisation("Riverside Surgery"),
            clinic.organisation("Northfield", "private_clinic"),
        )
        doctor = clinic.clinician(surgery, username="dr.osei", full_name="Dr Ama Osei")
        nurse = clinic.clinician(surgery, username="nurse.kay", full_name="Kay")
        stranger = clinic.clinician(clinic_two, username="dr.north")
        self.patients(doctor, stranger)
        patient_id = self.edits(doctor, nurse)
        self.letters(doctor, nurse, stranger, patient_id)
        talk = self.talks(doctor, nurse, stranger, patient_id)
        self.prescriptions(doctor, nurse, patient_id)
        self.endings(doctor, clinic.admin(username="manager"), patient_id, talk)
        return self.answers

    def patients(self, doctor: Person, stranger: Person) -> None:
        """Add patients, refuse some, list and search them."""
        self.call(doctor, "POST", "/api/auth/login", {"username": "dr.osei", "password": PASSWORD})
        for family, given, born, extra in (
            ("Andrews", "Zo\u00eb", "1980-02-29", {"gender": "female", "nhs_number": "9990527113"}),
            ("O\u2019Neill", "Ann Marie", "1931-03-07", {"gender": "other"}),
            ("\u0141uk\u00e1\u0161", "Jan", "2001-12-31", {}),
        ):
            self.call(
                doctor,
                "POST",
                "/api/patients",
                {"family_name": family, "given_name": given, "birth_date": born} | extra,
            )
        self.call(
            doctor, "POST", "/api/patients", {"family_name": "Two", "given_name": "T", "nhs_number": "9990527113"}
        )
        self.call(doctor, "POST", "/api/patients", {"family_name": "", "birth": "x"})
        for query in (
            "",
            "?name=andr",
            "?search=zoe",
            "?birth_date=1931",
            "?limit=2",
            "?identifier=9990527113",
            "?name=!",
        ):
            self.call(doctor, "GET", f"/api/patients{query}")
        self.call(stranger, "GET", "/api/patients")

    def edits(self, doctor: Person, nurse: Person) -> str:
        """Change a patient in every way; returns the id."""
        listed = doctor.get("/api/patients?name=andrews").json()["patients"]
        at = f"/api/patients/{listed[0]['id']}"
        demographics = {
            "telecom": [{"system": "phone", "value": "01632 960 983", "use": "home"}],
            "address": [{"line": ["1 High Street"], "city": "Bath", "postalCode": "BA1 1AA"}],
            "communication": [
                {"language": {"coding": [{"system": "urn:ietf:bcp:47", "code": "cy"}]}, "preferred": True}
            ],
        }
        self.call(doctor, "GET", at)
        self.call(doctor, "PATCH", at, {"family_name": "Andrews-Lee"}, {"If-Match": 'W/"1"'})
        self.call(doctor, "PATCH", at, {"family_name": "Late"}, {"If-Match": 'W/"1"'})
        self.call(nurse, "PUT", f"{at}/demographics", demographics)
        self.call(nurse, "PUT", f"{at}/demographics", demographics)
        self.call(doctor, "PATCH", at, {"birth_date": "1980-02-30"})
        for path in ("", "/demographics", "/metadata"):
            self.call(doctor, "GET", f"{at}{path}")
        self.call(doctor, "POST", f"/api/patients/verify?patient_id={listed[0]['id']}")
        self.call(doctor, "GET", "/api/patients/nobody")
        self.call(doctor, "GET", "/api/patients")
        return str(listed[0]["id"])

    def letters(self, doctor: Person, nurse: Person, stranger: Person, patient_id: str) -> None:
        """Write letters, amend one, and read them all."""
        at = f"/api/patients/{patient_id}/letters"
        self.call(doctor, "GET", at)
        key = {"Idempotency-Key": "letter-1"}
        first = self.call(doctor, "POST", at, {"title": "Review", "body": MARKDOWN}, key)
        self.call(doctor, "POST", at, {"title": "Review", "body": MARKDOWN}, key)
        self.call(doctor, "POST", at, {"title": "Another", "body": MARKDOWN}, key)
        self.call(nurse, "POST", at, {"title": "Second \u2013 short", "body": "x"})
        uid = first["composition_uid"]
        amended = self.call(nurse, "PUT", f"{at}/{uid}", {"title": "Review", "body": "Shorter"}, {"If-Match": 'W/"1"'})
        self.call(doctor, "PUT", f"{at}/{uid}", {"title": "Review", "body": "Late"}, {"If-Match": 'W/"1"'})
        self.call(doctor, "PUT", f"{at}/{uid}", {"title": "Review", "body": "Late"})
        for named in (uid, amended["composition_uid"], uid.partition("::")[0], f"{uid[:-1]}9"):
            self.call(doctor, "GET", f"{at}/{named}")
        self.call(doctor, "GET", f"{at}/{uid}/versions")
        self.call(doctor, "GET", at)
        self.call(doctor, "GET", f"{at}?limit=1")
        self.call(stranger, "GET", at)

    def talks(self, doctor: Person, nurse: Person, stranger: Person, patient_id: str) -> str:
        """Hold a conversation; returns its path."""
        patient = self._clinic.person("zoe", level=Level.PATIENT, profession="patient", patient_id=patient_id)
        begun = {
            "patient_id": patient_id,
            "subject": "Your blood pressure",
            "initial_message": MARKDOWN,
            "include_patient_as_participant": True,
        }
        made = self.call(doctor, "POST", "/api/conversations", begun, {"Idempotency-Key": "talk-1"})
        self.call(doctor, "POST", "/api/conversations", begun, {"Idempotency-Key": "talk-1"})
        at = f"/api/conversations/{made['id']}"
        sent = self.call(patient, "POST", f"{at}/messages", {"body": "128 over 82"})
        self.call(patient, "POST", f"{at}/messages", {"body": "128 over 84", "amends_id": sent["id"]})
        self.call(doctor, "POST", f"{at}/messages", {"body": "?", "amends_id": sent["id"]})
        self.call(nurse, "POST", f"{at}/join")
        self.call(doctor, "POST", f"{at}/participants", {"user_id": stranger.id})
        self.call(nurse, "PATCH", at, {"status": "resolved"})
        self.call(nurse, "DELETE", f"{at}/participants/{nurse.id}")
        self.call(patient, "POST", f"{at}/messages", {"body": "Thank you"})
        self.call(doctor, "POST", f"{at}/read")
        for path in ("", "/messages", "/messages?limit=2", "/participants"):
            self.call(doctor, "GET", f"{at}{path}")
        self.call(patient, "GET", "/api/conversations")
        self.call(stranger, "GET", at)
        self.call(doctor, "PATCH", at, {"status": "closed"})
        self.call(patient, "POST", f"{at}/messages", {"body": "Too late"})
        return at

    def prescriptions(self, doctor: Person, nurse: Person, patient_id: str) -> None:
        """Prescribe, and list what was prescribed."""
        order = {"patient_id": patient_id, "medication": "morphine \u00bd", "dose": "5 mg", "duration_days": 7}
        self.call(doctor, "POST", "/api/prescriptions/controlled", order, {"Idempotency-Key": "order-1"})
        self.call(doctor, "POST", "/api/prescriptions/controlled", order, {"Idempotency-Key": "order-1"})
        self.call(doctor, "POST", "/api/prescriptions/controlled", order | {"duration_days": 0})
        self.call(nurse, "GET", f"/api/patients/{patient_id}/prescriptions")

    def endings(self, doctor: Person, manager: Person, patient_id: str, talk: str) -> None:
        """Deactivate the record, and see what it takes."""
        at = f"/api/patients/{patient_id}"
        self.call(manager, "POST", f"{at}/deactivate")
        self.call(doctor, "PATCH", at, {"family_name": "Gone"})
        self.call(doctor, "POST", f"{at}/letters", {"title": "Late", "body": "x"})
        for path in (at, f"{at}/letters", talk, "/api/patients"):
            self.call(doctor, "GET", path)
        self.call(manager, "POST", f"{at}/activate")
        self.call(doctor, "GET", "/api/health")

    def call(
        self, person: Person, method: str, url: str, body: Any = None, headers: Mapping[str, str] | None = None
    ) -> Any:
        """Make a call, and write down what was answered."""
        sent = person.csrf | dict(headers or {}) if method != "GET" else dict(headers or {})
        answer = person.client.request(method, url, json=body, headers=sent)
        assert int(answer.headers.get("content-length", len(answer.content))) == len(answer.content)
        shown = sorted((name, self._plain_cookie(name, value)) for name, value in answer.headers.items())
        lines = [f"{method} {url} ({person.username}): {answer.status_code}"]
        lines += [f"{name}: {value}" for name, value in shown if name not in DROPPED]
        self.answers.append(self._plain("\n".join([*lines, "", answer.content.decode()])).encode())
        return answer.json() if answer.content else None

    def _plain(self, text: str) -> str:
        text = re.sub(r'"request_id":"[^"]+"', '"request_id":"<request>"', text)
        text = re.sub(VERSION_UID, lambda found: f"{found[1]}::<system>::{found[2]}", text)
        text = re.sub(UUID, lambda found: self._marks.setdefault(found[0], f"<id {len(self._marks)}>"), text)
        text = re.sub(INSTANT, "<time>", text)
        text = re.sub(AVATAR, r"\1<avatar>", text)
        return re.sub(CURSOR, '"next_cursor":"<cursor>"', text)

    @staticmethod
    def _plain_cookie(name: str, value: str) -> str:
        return re.sub(r"=[\w.\-]{40,}", "=<token>", value) if name == "set-cookie" else value
