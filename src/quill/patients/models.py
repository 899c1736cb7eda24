"""Tables that project the FHIR patients for lists and searches, and what Quill itself knows about a patient."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base

LIVE_WITH_NHS_NUMBER = sa.text("nhs_number IS NOT NULL AND is_active")


class PatientIndex(Base):
    """The last known state of a FHIR Patient, ready for lists.

    ``sort_name`` orders the list (family, then given, folded); ``search_text`` holds every name folded;
    ``document`` is the resource as the store returned it. ``is_active`` is Quill's own: a deactivated patient leaves
    the lists and takes no new entries.
    """

    __tablename__ = "patient_index"

    patient_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    version: Mapped[int]
    last_updated: Mapped[datetime.datetime]
    display_name: Mapped[str] = mapped_column(sa.Text)
    sort_name: Mapped[str] = mapped_column(sa.Text)
    search_text: Mapped[str] = mapped_column(sa.Text)
    birth_date: Mapped[str | None] = mapped_column(sa.String(10))
    gender: Mapped[str | None] = mapped_column(sa.String(10))
    nhs_number: Mapped[str | None] = mapped_column(sa.String(10))
    document: Mapped[str] = mapped_column(sa.Text)
    is_active: Mapped[bool] = mapped_column(default=True)
    activity_changed_at: Mapped[datetime.datetime | None]
    activity_changed_by_user_id: Mapped[int | None] = mapped_column(
        sa.ForeignKey("user_account.id", ondelete="SET NULL")
    )
    created_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))

    __table_args__ = (
        sa.Index("ix_patient_index_sort_name_patient_id", "sort_name", "patient_id"),
        sa.Index(
            "uq_patient_index_nhs_number",
            "nhs_number",
            unique=True,
            sqlite_where=LIVE_WITH_NHS_NUMBER,
            postgresql_where=LIVE_WITH_NHS_NUMBER,
        ),
    )


class PatientIdentifier(Base):
    """One identifier of a patient, for exact look-ups; ``value_folded`` is without case, spaces and punctuation."""

    __tablename__ = "patient_identifier"

    patient_id: Mapped[str] = mapped_column(
        sa.ForeignKey("patient_index.patient_id", ondelete="CASCADE"), primary_key=True
    )
    position: Mapped[int] = mapped_column(primary_key=True)
    system: Mapped[str] = mapped_column(sa.Text)
    value: Mapped[str] = mapped_column(sa.Text)
    value_folded: Mapped[str] = mapped_column(sa.Text, index=True)
