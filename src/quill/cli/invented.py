"""Invented people and words for the demo clinic; the same seed gives the same clinic.

Nobody here exists. NHS numbers come from the range 999 000 0000 to 999 999 9999, which is never issued and kept for
tests (NHS Digital, NHS number, "test data").
"""

import datetime
import random
from collections.abc import Iterator

from quill.kit.documents import Document
from quill.kit.ids import new_uuid
from quill.ports.fhir_patient import NHS_NUMBER_SYSTEM

SEED = 20261122
FIRST_TEST_NUMBER = 999_000_000
"""The nine digits before the check digit."""

FAMILY = (
    "Adeyemi", "Ahmed", "Baker", "Begum", "Brown", "Campbell", "Chowdhury", "Clarke", "Davies", "Evans", "Ferreira",
    "García", "Griffiths", "Hughes", "Hussain", "Iqbal", "Kaur", "Kelly", "Khan", "Kowalski", "Lewis", "MacLeod", "Mensah",
    "Morgan", "Murphy", "Müller", "Nguyen", "O'Neill", "Okafor", "Patel", "Popescu", "Roberts", "Scott", "Singh", "Smith",
    "Taylor", "Thomas", "Walker", "Williams", "Wójcik",
)  # fmt: skip
GIVEN = {
    "female": ("Aisha", "Amelia", "Beatrix", "Chloé", "Efua", "Fatima", "Grace", "Hana", "Ines", "Jasmine", "Kerys", "Mairi"),
    "male": ("Aaron", "Callum", "Dafydd", "Emeka", "Farhan", "George", "Hamza", "Isaac", "José", "Kofi", "Liam", "Noah"),
}  # fmt: skip
STREETS = ("High Street", "Mill Lane", "Station Road", "Church View", "Victoria Terrace", "Orchard Close")
TOWNS = (("Cardiff", "CF10 1AA"), ("Leeds", "LS1 1AA"), ("Norwich", "NR1 1AA"), ("Perth", "PH1 1AA"))

SUBJECTS = ("Medication review", "Blood test results", "Follow-up appointment", "Referral", "Repeat prescription")
SENTENCES = (
    "Thank you for getting in touch.",
    "The results are back and nothing needs to be done before your next visit.",
    "Please take the tablets with food, once in the morning.",
    "Could you send a reading from your home monitor this week?",
    "I have asked the hospital for an earlier date.",
    "That is good to hear.",
    "The nurse can see you on Thursday at ten.",
    "Please ring us at once if the pain comes back.",
)


def nhs_number(index: int) -> str:
    """Return the test NHS number with this index among those whose check digit exists (modulus 11)."""
    return _valid_number(FIRST_TEST_NUMBER + index)


def _valid_number(nine: int) -> str:
    digits = f"{nine:09d}"
    check = 11 - sum(int(digit) * weight for digit, weight in zip(digits, range(10, 1, -1), strict=True)) % 11
    check = 0 if check == 11 else check
    # A remainder of one has no check digit, so such a number is not given out; its neighbour in another range is.
    return f"{digits}{check}" if check != 10 else _valid_number(nine + 500_000)


def patients(count: int, *, start: int = 0) -> Iterator[Document]:
    """Yield invented FHIR Patients, each with an id of its own."""
    for index in range(start, start + count):
        chance = random.Random(f"{SEED}:{index}")  # noqa: S311 - invented data wants repetition, not secrecy
        gender = chance.choice(("female", "male"))
        town, postcode = chance.choice(TOWNS)
        born = datetime.date(1932, 1, 1) + datetime.timedelta(days=chance.randrange(32_000))
        yield {
            "resourceType": "Patient",
            "id": new_uuid(),
            "identifier": [{"use": "official", "system": NHS_NUMBER_SYSTEM, "value": nhs_number(index)}],
            "name": [{"use": "official", "family": chance.choice(FAMILY), "given": [chance.choice(GIVEN[gender])]}],
            "gender": gender,
            "birthDate": born.isoformat(),
            "address": [
                {
                    "use": "home",
                    "line": [f"{chance.randrange(1, 180)} {chance.choice(STREETS)}"],
                    "city": town,
                    "postalCode": postcode,
                    "country": "GB",
                }
            ],
        }


def message(index: int) -> str:
    """Return an invented message."""
    return SENTENCES[index % len(SENTENCES)]


def subject(index: int) -> str:
    """Return an invented subject line."""
    return SUBJECTS[index % len(SUBJECTS)]
