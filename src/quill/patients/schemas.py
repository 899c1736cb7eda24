"""What the routes about patients take and give over the wire."""

import datetime
from typing import Annotated, Any, Required

from pydantic import AfterValidator, BaseModel, BeforeValidator, Field, StrictBool, model_validator
from pydantic_core import PydanticCustomError

from quill.edge.inputs import BlankAsAbsent, Input, Line, OptionalLine, blank_as_absent
from quill.kit import clock
from quill.kit.documents import Document
from quill.kit.ids import is_fhir_id
from quill.patients import nhs_number
from quill.patients.demographics import MRN_SYSTEM, Changes
from quill.ports.fhir_datatypes import Date, DateTime, Gender
from quill.ports.fhir_patient import NHS_NUMBER_SYSTEM
from quill.ports.fhir_resources import PatientShape

EARLIEST_TIME_ZONE = datetime.timedelta(hours=14)
"""Where the day begins first, so that nobody born today is refused (``Pacific/Kiritimati``)."""

MOST_ENTRIES = 100
"""Names, identifiers and the like one call may tell; no record holds as many."""


def _check_past(date: str) -> str:
    today = (clock.now() + EARLIEST_TIME_ZONE).date().isoformat()
    # Texts of one length compare as dates do: a year with a year, a month with a month.
    if date > today[: len(date)]:
        raise PydanticCustomError("date_in_future", "The date must not be in the future")
    return date


def _normalised_number(text: str) -> str:
    try:
        return nhs_number.normalised(text)
    except nhs_number.InvalidNhsNumber as error:
        raise PydanticCustomError("nhs_number", "{why}", {"why": str(error)}) from error


def _lowered(value: object) -> object:
    value = blank_as_absent(value)
    return value.strip().lower() if isinstance(value, str) else value


def _check_new_id(text: str) -> str:
    if not is_fhir_id(text):
        raise PydanticCustomError("fhir_id", "Input should be 1 to 64 letters, digits, hyphens and full stops")
    if text.isdecimal():
        raise PydanticCustomError("fhir_id_numeric", "An id of digits alone is left to the record store")
    if not text.strip("."):
        raise PydanticCustomError("fhir_id_dots", "An id must not be full stops alone, which addresses give a meaning")
    return text


BirthDate = Annotated[Annotated[Date, AfterValidator(_check_past)] | None, BlankAsAbsent]
"""A FHIR date, not in the future; blank counts as absent."""
OptionalGender = Annotated[Gender | None, BeforeValidator(_lowered)]
"""FHIR administrative gender in any case; blank counts as absent."""
OptionalNhsNumber = Annotated[
    Annotated[str, Field(max_length=64), AfterValidator(_normalised_number)] | None, BlankAsAbsent
]
"""An NHS number, checked and without its spaces; blank counts as absent."""
NewPatientId = Annotated[Annotated[str, Field(max_length=64), AfterValidator(_check_new_id)] | None, BlankAsAbsent]
"""A FHIR id that any store takes from a client; HAPI refuses those of digits alone."""
Entries = Annotated[list[dict[str, Any]], Field(max_length=MOST_ENTRIES)] | None
"""FHIR elements, checked as part of the whole resource."""
MergedEntries = Annotated[list[dict[str, Any]], Field(min_length=1, max_length=MOST_ENTRIES)] | None
"""FHIR elements that replace those of their kind; an empty list would say nothing."""


class PatientIn(Input):
    """A patient to be added."""

    given_name: Line
    family_name: Line
    birth_date: BirthDate = None
    gender: OptionalGender = None
    nhs_number: OptionalNhsNumber = None
    mrn: OptionalLine = None
    patient_id: NewPatientId = None

    def changes(self) -> Changes:
        """Return what this tells about the patient."""
        return _changes(self)


class PatientPatch(Input):
    """What is to change in a patient's record; fields left out are kept."""

    given_name: OptionalLine = None
    family_name: OptionalLine = None
    birth_date: BirthDate = None
    gender: OptionalGender = None
    nhs_number: OptionalNhsNumber = None
    mrn: OptionalLine = None
    patient_id: OptionalLine = Field(None, description="The id in the path, if given at all.")

    def changes(self) -> Changes:
        """Return what this tells about the patient."""
        return _changes(self)


def _changes(told: PatientIn | PatientPatch) -> Changes:
    numbers = ((NHS_NUMBER_SYSTEM, told.nhs_number), (MRN_SYSTEM, told.mrn))
    identifiers = [{"system": system, "value": value} for system, value in numbers if value is not None]
    return Changes(
        given_name=told.given_name,
        family_name=told.family_name,
        birth_date=told.birth_date,
        gender=told.gender,
        identifiers=identifiers or None,
    )


class FlatAddress(Input):
    """An address as forms send it; it replaces the current one whole."""

    line: Annotated[list[Line], Field(max_length=10)] | None = None
    city: OptionalLine = None
    state: OptionalLine = None
    postalCode: OptionalLine = None  # noqa: N815 - FHIR's word
    country: OptionalLine = None


class FlatContact(Input):
    """How to reach the patient, as forms send it; the one left out is kept."""

    phone: OptionalLine = None
    email: OptionalLine = None


class DemographicsIn(Input):
    """What is to change in a patient's record: FHIR Patient elements, the flat fields of forms, or both.

    Fields left out are kept. Names and identifiers given replace those of the same use or system; other lists replace
    the element, and an empty one takes it away.
    """

    given_name: OptionalLine = None
    family_name: OptionalLine = None
    date_of_birth: BirthDate = None
    sex: OptionalGender = None
    address: FlatAddress | Entries = None
    contact: FlatContact | Entries = None
    name: MergedEntries = None
    telecom: Entries = None
    birthDate: BirthDate = None  # noqa: N815 - FHIR's word
    gender: OptionalGender = None
    identifier: MergedEntries = None
    communication: Entries = None
    maritalStatus: dict[str, Any] | None = None  # noqa: N815 - FHIR's word
    deceasedBoolean: StrictBool | None = None  # noqa: N815 - FHIR's word
    deceasedDateTime: Annotated[DateTime | None, BlankAsAbsent] = None  # noqa: N815 - FHIR's word
    generalPractitioner: Entries = None  # noqa: N815 - FHIR's word

    @model_validator(mode="after")
    def _told_once(self) -> "DemographicsIn":
        """Refuse two fields that tell the same thing, because one of them would be lost."""
        pairs = (
            (self.given_name or self.family_name, self.name),
            (self.date_of_birth, self.birthDate),
            (self.sex, self.gender),
            (self.contact if isinstance(self.contact, FlatContact) else None, self.telecom),
            (self.deceasedBoolean, self.deceasedDateTime),
        )
        if any(one is not None and other is not None for one, other in pairs):
            raise PydanticCustomError("told_twice", "The same thing is told by two fields")
        return self

    def changes(self, exact: Document) -> Changes:
        """Return what this tells about the patient.

        Args:
            exact: the same body with decimals as they were sent.
        """
        address, contact = self.address, self.contact
        replaced = {"telecom", "communication", "maritalStatus", "generalPractitioner"}
        replaced |= {"deceasedBoolean", "deceasedDateTime"}
        replaced |= {name for name, told in (("address", address), ("contact", contact)) if isinstance(told, list)}
        return Changes(
            given_name=self.given_name,
            family_name=self.family_name,
            birth_date=self.date_of_birth or self.birthDate,
            gender=self.sex or self.gender,
            names=exact.get("name"),
            identifiers=exact.get("identifier"),
            address=address.model_dump(exclude_none=True) or None if isinstance(address, FlatAddress) else None,
            contact=contact.model_dump(exclude_none=True) if isinstance(contact, FlatContact) else None,
            elements={name: exact[name] for name in sorted(replaced) if getattr(self, name) is not None},
        )


class ListedPatient(PatientShape, total=False):
    """A FHIR Patient and whether its record is active."""

    is_active: Required[bool]


class PatientListOut(BaseModel):
    """A page of patients."""

    patients: list[ListedPatient]
    fhir_ready: bool = Field(description="`false`: the record store does not answer, this is the last known list.")
    as_of: datetime.datetime | None = Field(description="When the record store last answered.")
    next_cursor: str | None
    total: int | None = Field(description="How many in all; told with the first page where counting is cheap.")


class DemographicsOut(BaseModel):
    """A patient's resource in an envelope."""

    patient_id: str
    data: PatientShape


class DemographicsChangedOut(DemographicsOut):
    """A patient's resource after a change."""

    updated: bool


class PatientMetadataOut(BaseModel):
    """What Quill itself knows about a patient."""

    patient_id: str
    is_active: bool


class PatientActivityOut(PatientMetadataOut):
    """A record deactivated or brought back."""

    message: str


class PatientReadyOut(BaseModel):
    """The record store holds the patient."""

    patient_id: str
    status: str
