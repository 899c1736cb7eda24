"""What health answers over the wire."""

from typing import Literal

from pydantic import BaseModel, Field


class ServiceHealth(BaseModel):
    """One part: whether it answers, and in a word why not."""

    available: bool
    status_code: int | None = Field(description="200 when it answers, 503 when not, null when not provisioned.")
    error: str | None = Field(description="`unavailable` or `Not provisioned`; never an exception's text.")


class ServicesHealth(BaseModel):
    """The parts."""

    auth_db: ServiceHealth
    fhir: ServiceHealth
    ehrbase: ServiceHealth
    redis: ServiceHealth | None = Field(
        None, description="Only where Redis is configured.", exclude_if=lambda part: part is None
    )


class HealthOut(BaseModel):
    """`healthy` when every provisioned part answers, else `degraded`."""

    status: Literal["healthy", "degraded"]
    services: ServicesHealth


class ProbeOut(BaseModel):
    """For orchestrators."""

    status: Literal["alive", "ready"]
