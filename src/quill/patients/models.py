"""Tables that project the FHIR patients for lists and searches, and what Quill itself knows about a patient."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base

LIVE_WITH_NHS_NUMBER = sa.text("nhs_number IS NOT NULL AND is_active")


NAME_INDEX = "ix_patient_index_search_text"
"""The trigrams of ``search_text`` on PostgreSQL; made by a migration alone, because SQLite has no such index."""

NAME_SEARCH = sa.table("patient_name_search", sa.column("rowid", sa.Integer), sa.column("names", sa.Text))
"""The same on SQLite, a full-text table that triggers on ``patient_index`` keep; made by a migration alone."""

NAME_NUMBER = sa.table("patient_name_number", sa.column("number", sa.Integer), sa.column("patient_id", sa.String(64)))
"""Who the numbers of the full-text table are. Those SQLite gives to rows by itself may change at ``VACUUM``."""


class PatientIndex(Base):
    """The last known state of a FHIR Patient, as far as lists sort and search by it.

    ``sort_name`` orders the list (family, then given, folded, its beginning); ``search_text`` is what ``naming`` makes
    of every name, indexed by its trigrams (``NAME_INDEX``). ``is_active`` is Quill's own: a deactivated patient leaves
    the lists and takes no new entries. Rows are kept small because lists pass over many; the resource itself is in
    ``patient_document``.
    """

    __tablename__ = "patient_index"

    patient_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    version: Mapped[int]
    last_updated: Mapped[datetime.datetime]
    display_name: Mapped[str] = mapped_column(sa.Text)
    sort_name: Mapped[str] = mapped_column(sa.Text)
    search_text: Mapped[str] = mapped_column(sa.Text)
    birth_date: Mapped[str | None] = mapped_column(sa.String(10), index=True)
    nhs_number: Mapped[str | None] = mapped_column(sa.String(10))
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


class PatientDocument(Base):
    """The resource as the store returned it, ready to be sent; ``is_active``, were it there, is left to the index."""

    __tablename__ = "patient_document"

    patient_id: Mapped[str] = mapped_column(
        sa.ForeignKey("patient_index.patient_id", ondelete="CASCADE"), primary_key=True
    )
    document: Mapped[str] = mapped_column(sa.Text)


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


class OrganisationPatientName(Base):
    """A patient within one organisation's list: what the list is ordered and narrowed by, kept beside the membership.

    Triggers made by a migration keep it: there is a row for each membership of a patient of ``patient_index``, with
    what stands there, and nobody else writes here. A row cannot outlive its membership, which rights go by.
    """

    __tablename__ = "organisation_patient_name"

    patient_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    organisation_id: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    is_active: Mapped[bool]
    sort_name: Mapped[str] = mapped_column(sa.Text)

    __table_args__ = (
        sa.ForeignKeyConstraint(
            ["organisation_id", "patient_id"],
            ["organisation_patient_member.organisation_id", "organisation_patient_member.patient_id"],
            name="fk_organisation_patient_name_membership",
            ondelete="CASCADE",
        ),
        sa.Index("ix_organisation_patient_name_in_order", "organisation_id", "is_active", "sort_name", "patient_id"),
        {"sqlite_with_rowid": False},
    )


class PatientFollowing(Base):
    """How far changes made straight in the FHIR server have been followed; one row.

    ``since`` is the store's own position, opaque; ``owner`` follows until ``lease_until``.
    """

    __tablename__ = "patient_following"

    name: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    since: Mapped[str | None] = mapped_column(sa.Text)
    owner: Mapped[str | None] = mapped_column(sa.String(64))
    lease_until: Mapped[datetime.datetime | None]
