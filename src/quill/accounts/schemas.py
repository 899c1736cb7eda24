"""What one's own account takes and gives over the wire."""

import datetime
import re
from typing import Annotated

from pydantic import AfterValidator, BaseModel, ConfigDict, Field, StringConstraints
from pydantic_core import PydanticCustomError

from quill.edge.inputs import BlankAsAbsent, Input, OptionalLine, Trimmed

_ADDRESS = re.compile(r"[^\s@]+@[^\s@]+")


def _check_username(username: str) -> str:
    if not username.isprintable():
        raise PydanticCustomError("not_printable", "A username must not hold control characters")
    return username


def _check_address(address: str) -> str:
    # Blank is answered by the service, with the words of the wire contract. Whether mail arrives only mail can tell.
    if address and not (address.isprintable() and _ADDRESS.fullmatch(address)):
        raise PydanticCustomError("not_an_address", "This is not an e-mail address")
    return address


Password = Annotated[str, StringConstraints(max_length=128)]
Username = Annotated[str, Trimmed(150), AfterValidator(_check_username)]
EmailAddress = Annotated[str, Trimmed(255), AfterValidator(_check_address)]
Code = Annotated[str, Trimmed(32)]

OrganisationNumber = Annotated[int, Field(strict=True, ge=-(2**31), lt=2**31)]
"""A number the database can compare with, not a text; whether an organisation has it, the service says."""


class LoginIn(Input):
    """Username, password and, where two-factor sign-in is on, a code of the app or a recovery code."""

    username: Annotated[str, Trimmed(150)]
    password: Password
    totp_code: Annotated[Code | None, BlankAsAbsent] = None


class RegisterIn(Input):
    """A new account; an organisation named is asked, and an admin decides."""

    username: Username
    email: EmailAddress
    password: Password
    full_name: OptionalLine = None
    organisation_id: Annotated[OrganisationNumber | None, BlankAsAbsent] = None


class ForgotPasswordIn(Input):
    """The address to send a link to."""

    email: Annotated[str, Trimmed(255)]


class ResetPasswordIn(Input):
    """The token of the link, and the new password."""

    token: Annotated[str, Trimmed(512)]
    new_password: Password


class ChangePasswordIn(Input):
    """The password so far, and the new one."""

    current_password: Password
    new_password: Password


class TotpVerifyIn(Input):
    """A code of the authenticator app."""

    code: Code


class TotpDisableIn(Input):
    """Proof for a sign-in older than 15 minutes."""

    password: Annotated[Password | None, BlankAsAbsent] = None


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


class TotpSetupOut(BaseModel):
    """What to show as a QR code."""

    provision_uri: str = Field(description="`otpauth://` address.")


class TotpVerifyOut(BaseModel):
    """The second factor is on."""

    detail: str
    recovery_codes: list[str] = Field(description="Single-use codes, shown this once; empty when it was on already.")


class LoginLineOut(BaseModel):
    """Where somebody is signed in."""

    id: str
    created_at: datetime.datetime
    refreshed_at: datetime.datetime
    source: str = Field(description="Address the sign-in came from.")
    user_agent: str = Field(description="What the browser said about itself.")
    is_current: bool = Field(description="Whether this very request came with it.")


class LoginsOut(BaseModel):
    """A page of live logins, newest first."""

    logins: list[LoginLineOut]
    next_cursor: str | None


class RegistrationOut(BaseModel):
    """A number with a professional regulator."""

    model_config = ConfigDict(from_attributes=True)

    body: str
    number: str


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
    professional_registrations: list[RegistrationOut]
    fhir_patient_id: str | None
