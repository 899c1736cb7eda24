"""The table that projects MedicationRequests for a patient's list."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class Prescription(Base):
    """A MedicationRequest as lists show it; ``id`` is the FHIR id."""

    __tablename__ = "prescription"

    id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    version: Mapped[int]
    patient_id: Mapped[str] = mapped_column(sa.ForeignKey("patient_index.patient_id", ondelete="CASCADE"))
    status: Mapped[str] = mapped_column(sa.String(20))
    medication: Mapped[str] = mapped_column(sa.Text)
    dose: Mapped[str] = mapped_column(sa.Text)
    duration_days: Mapped[int]
    prescriber: Mapped[str] = mapped_column(sa.Text)
    prescriber_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
    prescribed_at: Mapped[datetime.datetime]

    __table_args__ = (sa.Index("ix_prescription_patient_id_prescribed_at_id", "patient_id", "prescribed_at", "id"),)
