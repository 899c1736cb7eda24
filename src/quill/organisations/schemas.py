"""What crosses the wire about organisations."""

import datetime
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, StrictBool, StringConstraints

from quill.edge.inputs import BlankAsAbsent, Input, Line, RowNumber, Trimmed

TypeWord = Annotated[str, StringConstraints(strip_whitespace=True), Field(description="One of the catalogue's types.")]
Location = Annotated[str, Trimmed(500)]


class OrganisationIn(Input):
    """A new organisation."""

    name: Line
    type: TypeWord
    location: Annotated[Location | None, BlankAsAbsent] = None


class OrganisationChangeIn(Input):
    """What to change; absent or null leaves a value, a blank location clears it."""

    name: Line | None = None
    type: Annotated[TypeWord | None, BlankAsAbsent] = None
    location: Location | None = None


class StaffIn(Input):
    """Who becomes staff."""

    user_id: RowNumber


class PatientIn(Input):
    """Which patient is to be cared for."""

    patient_id: Line


class FeatureIn(Input):
    """On or off."""

    enabled: StrictBool


class _Out(BaseModel):
    model_config = ConfigDict(from_attributes=True)


class OrganisationName(_Out):
    """An organisation as strangers see it."""

    id: int
    name: str


class OrganisationNamesOut(BaseModel):
    """Organisations to choose from."""

    organizations: list[OrganisationName]
    next_cursor: str | None


class OrganisationOut(_Out):
    """An organisation."""

    id: int
    name: str
    type: str
    location: str | None
    created_at: datetime.datetime
    updated_at: datetime.datetime


class OrganisationsOut(BaseModel):
    """A page of organisations in order of their names."""

    organizations: list[OrganisationOut]
    next_cursor: str | None
    total: int


class StaffMemberOut(BaseModel):
    """Somebody who works in an organisation."""

    id: int
    username: str
    name: str
    email: str
    system_permissions: str
    is_active: bool
    is_primary: bool
    joined_at: datetime.datetime


class PatientMemberOut(_Out):
    """A patient in an organisation's care."""

    patient_id: str
    is_primary: bool
    joined_at: datetime.datetime


class OrganisationDetailsOut(OrganisationOut):
    """An organisation, how many members it has in all, and a page of each kind; ``next_cursor`` continues both."""

    staff_count: int
    patient_count: int
    staff_members: list[StaffMemberOut]
    patient_members: list[PatientMemberOut]
    next_cursor: str | None


class StaffAddedOut(BaseModel):
    """Somebody became staff."""

    organisation_id: int
    user_id: int
    username: str


class PatientAddedOut(BaseModel):
    """A patient is cared for."""

    organisation_id: int
    patient_id: str


class StatusOut(BaseModel):
    """What became of it."""

    status: str


class FeatureOut(_Out):
    """A feature that is switched on."""

    feature_key: str
    enabled_at: datetime.datetime
    enabled_by: int | None


class FeaturesOut(BaseModel):
    """The features that are switched on, in order of their keys."""

    features: list[FeatureOut]


class JoinRequestOut(BaseModel):
    """Somebody asks to work here."""

    id: int
    user_id: int
    username: str
    name: str
    email: str
    system_permissions: str
    status: str
    requested_at: datetime.datetime
    decided_at: datetime.datetime | None


class JoinRequestsOut(BaseModel):
    """A page of requests, oldest first."""

    join_requests: list[JoinRequestOut]
    next_cursor: str | None


class JoinDecisionOut(BaseModel):
    """What became of a request."""

    id: int
    organisation_id: int
    user_id: int
    status: str


class SharedOrganisation(_Out):
    """An organisation that caller and patient both belong to."""

    id: int
    name: str
    type: str


class SharedOrganisationsOut(BaseModel):
    """The organisations that caller and patient share, in order of their numbers."""

    organisations: list[SharedOrganisation]
