"""A surgery before the trouble, and every call people make that one part or another is needed for."""

from dataclasses import dataclass

from quill.kit.ids import new_uuid
from tests.clinic import Person
from tests.faults.house import Call, House, new_sign_in

LETTER = {"title": "Review", "body": "All is *well*."}


@dataclass(frozen=True)
class People:
    """Who is there before the trouble: three clinicians of one surgery, and an admin."""

    surgery: int
    doctor: Person
    nurse: Person
    locum: Person
    manager: Person


@dataclass(frozen=True)
class Scene:
    """The surgery with a patient, a letter and a conversation of one test's own."""

    house: House
    people: People
    patient: str
    letter: str
    talk: int
    family: str

    def reads(self, part: str) -> dict[str, Call]:
        """Return the calls that read what is kept in a part."""
        doctor, at = self.people.doctor, f"/api/patients/{self.patient}"
        if part == "fhir":
            return {
                "patient": lambda: doctor.get(at),
                "demographics": lambda: doctor.get(f"{at}/demographics"),
                "verify": lambda: doctor.post(f"/api/patients/verify?patient_id={self.patient}"),
            }
        object_id = self.letter.partition("::")[0]
        return {
            "letters": lambda: doctor.get(f"{at}/letters"),
            "letter": lambda: doctor.get(f"{at}/letters/{self.letter}"),
            "newest letter": lambda: doctor.get(f"{at}/letters/{object_id}"),
            "versions": lambda: doctor.get(f"{at}/letters/{object_id}/versions"),
        }

    def writes(self, part: str) -> dict[str, Call]:
        """Return the calls that add something to a part; made again they carry the same keys."""
        people, at = self.people, f"/api/patients/{self.patient}"
        keys = [{"Idempotency-Key": new_uuid()} for _ in range(4)]
        if part == "openehr":
            changed, headers = LETTER | {"body": "Second"}, keys[1] | {"If-Match": 'W/"1"'}
            return {
                "letter": lambda: people.doctor.post(f"{at}/letters", LETTER, headers=keys[0]),
                "amendment": lambda: people.nurse.put(f"{at}/letters/{self.letter}", changed, headers=headers),
            }
        person = {"given_name": "Ann", "family_name": self.family}
        begun = {"patient_id": self.patient, "subject": "New", "initial_message": "Hello"}
        order = {"patient_id": self.patient, "medication": "morphine", "dose": "5 mg", "duration_days": 7}
        sent = f"/api/conversations/{self.talk}/messages"
        return {
            "patient": lambda: people.nurse.post("/api/patients", person, headers=keys[0]),
            "message": lambda: people.doctor.post(sent, {"body": "Second"}, headers=keys[1]),
            "conversation": lambda: people.locum.post("/api/conversations", begun, headers=keys[2]),
            "prescription": lambda: people.locum.post("/api/prescriptions/controlled", order, headers=keys[3]),
        }

    def changes(self, part: str) -> dict[str, Call]:
        """Return the calls that change what a part has."""
        people, at, talk = self.people, f"/api/patients/{self.patient}", f"/api/conversations/{self.talk}"
        if part == "openehr":
            return {}
        return {
            "edit": lambda: people.doctor.patch(at, {"family_name": "Leigh"}),
            "replacement": lambda: people.nurse.put(f"{at}/demographics", {"given_name": "Eve"}),
            "status": lambda: people.doctor.patch(talk, {"status": "resolved"}),
            "participant": lambda: people.doctor.post(f"{talk}/participants", {"user_id": people.locum.id}),
        }

    def essentials(self, part: str) -> dict[str, Call]:
        """Return a few calls that have nothing to do with a part."""
        doctor = self.people.doctor
        other = {"fhir": f"/api/patients/{self.patient}/letters", "openehr": f"/api/patients/{self.patient}"}
        return {
            "fine: sign-in": new_sign_in(doctor),
            "fine: patients": lambda: doctor.get("/api/patients"),
            "fine: conversation": lambda: doctor.get(f"/api/conversations/{self.talk}"),
            "fine: other store": lambda: doctor.get(other[part]),
            "fine: ready": lambda: doctor.get("/api/health/ready"),
        }

    def everything_else(self) -> dict[str, Call]:
        """Return all that needs no record store."""
        people, at, talk = self.people, f"/api/patients/{self.patient}", f"/api/conversations/{self.talk}"
        return {
            "sign-in": new_sign_in(people.doctor),
            "me": lambda: people.doctor.get("/api/auth/me"),
            "people": lambda: people.manager.get("/api/users"),
            "organisations": lambda: people.manager.get("/api/organizations"),
            "whether active": lambda: people.doctor.get(f"{at}/metadata"),
            "prescriptions": lambda: people.doctor.get(f"{at}/prescriptions"),
            "conversations": lambda: people.doctor.get("/api/conversations"),
            "about the patient": lambda: people.doctor.get(f"{at}/conversations"),
            "conversation": lambda: people.nurse.get(talk),
            "messages": lambda: people.nurse.get(f"{talk}/messages"),
            "marking": lambda: people.nurse.post(f"{talk}/read"),
            "alive": lambda: people.doctor.get("/api/health/live"),
            "ready": lambda: people.doctor.get("/api/health/ready"),
        }

    def listed(self) -> dict[str, int]:
        """Return how much of each kind the tables show."""
        doctor, at = self.people.doctor, f"/api/patients/{self.patient}"
        return {
            "patient": len(doctor.get(f"/api/patients?name={self.family}").json()["patients"]),
            "message": len(doctor.get(f"/api/conversations/{self.talk}/messages").json()["messages"]),
            "conversation": len(doctor.get(f"{at}/conversations").json()["conversations"]),
            "prescription": len(doctor.get(f"{at}/prescriptions").json()["prescriptions"]),
        }

    def kept(self) -> dict[str, int]:
        """Return how much of each kind there is, letters included."""
        answer = self.people.doctor.get(f"/api/patients/{self.patient}/letters")
        assert answer.status_code == 200, answer.text
        letters = answer.json()["letters"]
        amendments = sum(letter["version"] - 1 for letter in letters)
        return self.listed() | {"letter": len(letters), "amendment": amendments}


def people_of(house: House) -> People:
    """Make the people."""
    clinic = house.clinic
    surgery = clinic.organisation()
    doctor, nurse, locum = (clinic.clinician(surgery) for _ in range(3))
    return People(surgery, doctor, nurse, locum, clinic.admin())


def scene_of(house: House, people: People) -> Scene:
    """Make a patient with a letter and a conversation."""
    patient = house.clinic.patient(people.surgery)
    letter = people.doctor.post(f"/api/patients/{patient}/letters", LETTER)
    others = [people.nurse.id]
    begun = {"patient_id": patient, "subject": "Tests", "initial_message": "First", "participant_ids": others}
    talk = people.doctor.post("/api/conversations", begun)
    assert (letter.status_code, talk.status_code) == (200, 200), (letter.text, talk.text)
    family = f"Lee{new_uuid().replace('-', '')}"
    return Scene(house, people, patient, letter.json()["composition_uid"], talk.json()["id"], family)
