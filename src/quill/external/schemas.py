"""What crosses the wire about invites and grants."""

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field

from quill.accounts.schemas import EmailAddress, Password, Username
from quill.edge.inputs import BlankAsAbsent, Input, Trimmed


def _empty_as_absent(value: object) -> object:
    return None if value == "" else value


class InviteIn(Input):
    """Whom to invite, and as what."""

    email: Annotated[EmailAddress, Field(min_length=1)]
    user_type: Literal["external_hcp", "patient_advocate"]


class InviteSentOut(BaseModel):
    """The link to pass on; the token in it is shown this once."""

    invite_url: str
    token: str
    id: int
    expires_at: datetime.datetime
    is_emailed: bool = Field(description="Whether a mail with the link is on its way to the address.")


class InviteOut(BaseModel):
    """An invite and what became of it."""

    model_config = ConfigDict(from_attributes=True)

    id: int
    email: str
    user_type: str
    status: Literal["pending", "accepted", "withdrawn", "expired"]
    invited_by_user_id: int | None
    created_at: datetime.datetime
    expires_at: datetime.datetime
    accepted_at: datetime.datetime | None
    accepted_by_user_id: int | None
    withdrawn_at: datetime.datetime | None
    withdrawn_by_user_id: int | None


class InvitesOut(BaseModel):
    """A page of invites, newest first."""

    invites: list[InviteOut]
    next_cursor: str | None


class AcceptanceIn(Input):
    """The token of the link; username and password for who has no account with that address yet."""

    token: Annotated[str, Trimmed(512)]
    username: Annotated[Username | None, BlankAsAbsent] = None
    password: Annotated[Password | None, BeforeValidator(_empty_as_absent)] = None


class AcceptedOut(BaseModel):
    """Whose account has access now, and which page of the client comes next."""

    status: Literal["registered", "access_granted"]
    user_id: int
    redirect: str


class GrantOut(BaseModel):
    """Somebody who may see the record; `user_type` is the account's permission level."""

    user_id: int
    username: str
    name: str
    email: str
    user_type: str
    is_active: bool = Field(description="Whether the account may sign in.")
    granted_at: datetime.datetime
    granted_by_user_id: int | None
    access_level: str


class GrantsOut(BaseModel):
    """A page of active grants, oldest first."""

    grants: list[GrantOut]
    next_cursor: str | None


class StatusOut(BaseModel):
    """What has been done."""

    status: str
