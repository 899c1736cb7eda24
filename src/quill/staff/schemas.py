"""What crosses the wire about people."""

import datetime
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, StrictBool, StringConstraints
from pydantic_core import PydanticCustomError

from quill.actor import Level
from quill.edge.inputs import BlankAsAbsent, Input, Trimmed

_PLAUSIBLE_EMAIL = re.compile(r"[^@\s]+@[^@\s.]+(\.[^@\s.]+)*")


def _plausible_email(text: str) -> str:
    # Blank is left to the service, because the wire has a sentence of its own for it.
    if text and not (_PLAUSIBLE_EMAIL.fullmatch(text) and text.isprintable()):
        raise PydanticCustomError("email", "This is not an e-mail address")
    return text


def _printable_name(text: str) -> str:
    if not text.isprintable():
        raise PydanticCustomError("not_printable", "A name must not hold control characters")
    return text


Name = Annotated[str, Trimmed(255), AfterValidator(_printable_name)]
Username = Annotated[str, Trimmed(150), AfterValidator(_printable_name)]
Email = Annotated[str, Trimmed(255), AfterValidator(_plausible_email)]
Password = Annotated[str, StringConstraints(max_length=128)]
CatalogueNames = Annotated[list[Annotated[str, StringConstraints(max_length=100)]], Field(max_length=100)]


class RegistrationIn(Input):
    """Somebody's number with a professional regulator; case and surrounding spaces do not matter."""

    body: Annotated[str, StringConstraints(max_length=20)]
    number: Annotated[str, StringConstraints(max_length=40)]


Registrations = Annotated[list[RegistrationIn], Field(max_length=10)]


def _empty_as_absent(value: object) -> object:
    return None if value == "" else value


class UserIn(Input):
    """A new account; a blank username means that the name serves."""

    name: Name
    username: Annotated[Username | None, BlankAsAbsent] = None
    email: Email
    password: Password
    base_profession: Annotated[str, Trimmed(100)] = "patient"
    additional_competencies: CatalogueNames = []
    removed_competencies: CatalogueNames = []
    system_permissions: Level = Level.PATIENT
    roles: CatalogueNames = []
    professional_registrations: Registrations = []


class UserChangeIn(Input):
    """What to change; absent or null leaves a value, a blank name clears it, a list replaces the one before."""

    name: Name | None = None
    username: Annotated[Username | None, BlankAsAbsent] = None
    email: Email | None = None
    password: Annotated[Password | None, BeforeValidator(_empty_as_absent)] = None
    base_profession: Annotated[
        Annotated[str, Trimmed(100)] | None,
        BlankAsAbsent,
    ] = None
    additional_competencies: CatalogueNames | None = None
    removed_competencies: CatalogueNames | None = None
    system_permissions: Annotated[Level | None, BlankAsAbsent] = None
    roles: CatalogueNames | None = None
    professional_registrations: Registrations | None = None
    is_active: StrictBool | None = None


class LinkIn(Input):
    """Which record is the person's own."""

    fhir_patient_id: Annotated[
        Annotated[str, Trimmed(255)] | None,
        BlankAsAbsent,
    ] = None


class OwnCompetenciesIn(Input):
    """One's own competencies; absent or null leaves a list, a list replaces the one before."""

    additional_competencies: CatalogueNames | None = None
    removed_competencies: CatalogueNames | None = None


class UserDoneOut(BaseModel):
    """What was made or changed."""

    detail: str
    id: int
    username: str
    email: str


class UserSummary(BaseModel):
    """An account in a list."""

    id: int
    username: str
    name: str
    email: str
    system_permissions: str
    is_active: bool


class UsersOut(BaseModel):
    """A page of accounts in order of the usernames."""

    users: list[UserSummary]
    next_cursor: str | None
    total: int


class EmployerOut(BaseModel):
    """An organisation somebody is staff of."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    name: str
    is_primary: bool


class RegistrationOut(BaseModel):
    """Somebody's number with a professional regulator."""

    model_config = ConfigDict(from_attributes=True)

    body: str
    number: str


class UserDetailOut(BaseModel):
    """All an admin may know about an account."""

    id: int
    username: str
    email: str
    name: str
    base_profession: str
    additional_competencies: list[str]
    removed_competencies: list[str]
    final_competencies: list[str]
    system_permissions: str
    is_active: bool
    roles: list[str]
    professional_registrations: list[RegistrationOut]
    totp_enabled: bool
    fhir_patient_id: str | None
    organisations: list[EmployerOut]


class UserActivityOut(BaseModel):
    """Whether an account is active now."""

    detail: str
    id: int
    is_active: bool


class LinkOut(BaseModel):
    """Which record is the person's own now."""

    user_id: int
    fhir_patient_id: str | None


class LoginLineOut(BaseModel):
    """A login that is alive."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    source: str
    user_agent: str
    created_at: datetime.datetime
    refreshed_at: datetime.datetime
    expires_at: datetime.datetime


class LoginsOut(BaseModel):
    """A page of live logins, newest first."""

    logins: list[LoginLineOut]
    next_cursor: str | None


class DetailOut(BaseModel):
    """A word of confirmation."""

    detail: str


class CompetenciesOut(BaseModel):
    """The competencies somebody holds: profession's and additional, minus removed; each list is sorted."""

    user_id: int
    username: str
    base_profession: str
    additional_competencies: list[str]
    removed_competencies: list[str]
    final_competencies: list[str]


class CompetencyOut(BaseModel):
    """A kind of act, and how much harm doing it wrongly can do."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    category: str
    risk_level: str


class ProfessionOut(BaseModel):
    """A profession, the competencies that come with it, sorted, and the regulator it needs a registration with."""

    id: str
    competencies: list[str]
    requires_registration: str | None


class RegulatorOut(BaseModel):
    """A professional regulator; its numbers match the pattern, in capital letters."""

    model_config = ConfigDict(from_attributes=True)

    id: str
    name: str
    number_pattern: str


class CatalogueOut(BaseModel):
    """Every profession, competency and regulator there is."""

    professions: list[ProfessionOut]
    competencies: list[CompetencyOut]
    regulators: list[RegulatorOut]
    registration_enforced: bool


class RolesOut(BaseModel):
    """Every role there is."""

    roles: list[str]
