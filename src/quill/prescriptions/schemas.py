"""What the routes about prescriptions take and give over the wire."""

import datetime
from typing import Annotated, Literal

from pydantic import BaseModel, Field

from quill.edge.inputs import Input, Line, Trimmed

LONGEST_DURATION_DAYS = 366
"""Decisions, rule 20: a year, leap years included."""


class PrescriptionIn(Input):
    """A controlled medicine to be prescribed."""

    patient_id: Annotated[str, Trimmed(255, shortest=1)]
    medication: Line
    dose: Line
    duration_days: Annotated[int, Field(strict=True, ge=1, le=LONGEST_DURATION_DAYS)]


class PrescriptionOut(BaseModel):
    """A prescription that was stored."""

    status: Literal["success"]
    prescription_id: str
    prescriber: str
    patient_id: str
    medication: str
    dose: str
    duration_days: int


class PrescriptionRow(BaseModel):
    """A prescription in a patient's list; ``status`` is FHIR's, such as ``active``."""

    prescription_id: str
    status: str
    prescriber: str
    patient_id: str
    medication: str
    dose: str
    duration_days: int
    prescribed_at: datetime.datetime


class PrescriptionListOut(BaseModel):
    """A page of a patient's prescriptions, newest first."""

    patient_id: str
    prescriptions: list[PrescriptionRow]
    next_cursor: str | None
