"""What sign-in takes and gives over the wire."""

from typing import Annotated

from pydantic import BaseModel, BeforeValidator, Field, StringConstraints

from quill.edge.inputs import Input, blank_as_absent

Password = Annotated[str, StringConstraints(max_length=128)]


class LoginIn(Input):
    """Username, password and, where two-factor sign-in is on, a code."""

    username: Annotated[str, StringConstraints(strip_whitespace=True, max_length=150)]
    password: Password
    totp_code: Annotated[str | None, BeforeValidator(blank_as_absent), Field(max_length=32)] = None


class LoginUser(BaseModel):
    """Who signed in."""

    username: str
    roles: list[str]


class LoginOut(BaseModel):
    """Signed in; the cookies carry the tokens."""

    detail: str
    user: LoginUser


class DetailOut(BaseModel):
    """A word of confirmation."""

    detail: str


class MeOut(BaseModel):
    """The person signed in, with the rights held at this moment."""

    id: int
    username: str
    name: str | None
    email: str
    roles: list[str]
    system_permissions: str
    totp_enabled: bool
    enabled_features: list[str]
    clinical_services_enabled: bool
    competencies: list[str]
    fhir_patient_id: str | None
