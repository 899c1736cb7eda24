"""Tables of people, their rights, and their ties to organisations and patients."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base

ONLY_PRIMARY = sa.text("is_primary")
NOT_PRIMARY = sa.text("NOT is_primary")
ONLY_ACTIVE = sa.text("revoked_at IS NULL")

LONGEST_FOLDED_USERNAME = 300
LONGEST_FOLDED_EMAIL = 510
"""Folding case may lengthen a text, as it does with ``ß``; twice the length leaves room for all but mischief."""


class UserAccount(Base):
    """A person who may sign in. ``*_folded`` columns make names and addresses unique whatever their case."""

    __tablename__ = "user_account"

    id: Mapped[int] = mapped_column(primary_key=True)
    username: Mapped[str] = mapped_column(sa.String(150))
    username_folded: Mapped[str] = mapped_column(sa.String(LONGEST_FOLDED_USERNAME), unique=True)
    full_name: Mapped[str | None] = mapped_column(sa.String(255))
    email: Mapped[str] = mapped_column(sa.String(255))
    email_folded: Mapped[str] = mapped_column(sa.String(LONGEST_FOLDED_EMAIL), unique=True)
    password_hash: Mapped[str] = mapped_column(sa.String(255))
    totp_secret: Mapped[str | None] = mapped_column(sa.String(255))
    is_totp_enabled: Mapped[bool] = mapped_column(default=False)
    totp_last_step: Mapped[int | None] = mapped_column(sa.BigInteger)
    is_active: Mapped[bool] = mapped_column(default=True)
    patient_id: Mapped[str | None] = mapped_column(sa.String(64), unique=True)
    permission_level: Mapped[str] = mapped_column(sa.String(20), index=True)
    base_profession: Mapped[str] = mapped_column(sa.String(100))
    additional_competencies: Mapped[list[str]] = mapped_column(sa.JSON)
    removed_competencies: Mapped[list[str]] = mapped_column(sa.JSON)
    created_at: Mapped[datetime.datetime]
    updated_at: Mapped[datetime.datetime]


class UserRole(Base):
    """A role somebody holds."""

    __tablename__ = "user_role"

    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"), primary_key=True)
    role: Mapped[str] = mapped_column(sa.String(64), primary_key=True)


class ProfessionalRegistration(Base):
    """Somebody's number with a regulator; a number belongs to one person."""

    __tablename__ = "professional_registration"

    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"), primary_key=True)
    body: Mapped[str] = mapped_column(sa.String(16), primary_key=True)
    number: Mapped[str] = mapped_column(sa.String(16))

    __table_args__ = (sa.UniqueConstraint("body", "number"),)


class OrganisationStaffMember(Base):
    """Somebody works in an organisation; exactly one membership of a person is primary."""

    __tablename__ = "organisation_staff_member"

    organisation_id: Mapped[int] = mapped_column(sa.ForeignKey("organisation.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"), primary_key=True)
    is_primary: Mapped[bool] = mapped_column(default=False)
    joined_at: Mapped[datetime.datetime]

    __table_args__ = (
        sa.Index("ix_organisation_staff_member_user_id", "user_id", "organisation_id"),
        sa.Index(
            "uq_organisation_staff_member_primary",
            "user_id",
            unique=True,
            sqlite_where=ONLY_PRIMARY,
            postgresql_where=ONLY_PRIMARY,
        ),
    )


class OrganisationPatientMember(Base):
    """A patient is cared for by an organisation; exactly one of a patient's memberships is primary."""

    __tablename__ = "organisation_patient_member"

    organisation_id: Mapped[int] = mapped_column(sa.ForeignKey("organisation.id", ondelete="CASCADE"), primary_key=True)
    patient_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    is_primary: Mapped[bool] = mapped_column(default=False)
    joined_at: Mapped[datetime.datetime]

    __table_args__ = (
        sa.Index("ix_organisation_patient_member_patient_id", "patient_id", "organisation_id"),
        sa.Index(
            "uq_organisation_patient_member_primary",
            "patient_id",
            unique=True,
            sqlite_where=ONLY_PRIMARY,
            postgresql_where=ONLY_PRIMARY,
        ),
        # Who is in several organisations, one of which is not the primary one.
        sa.Index(
            "ix_organisation_patient_member_secondary",
            "organisation_id",
            "patient_id",
            sqlite_where=NOT_PRIMARY,
            postgresql_where=NOT_PRIMARY,
        ),
    )


class ExternalAccess(Base):
    """A grant: somebody may see one patient's record; at most one active grant per person and patient."""

    __tablename__ = "external_access"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"))
    patient_id: Mapped[str] = mapped_column(sa.String(64), index=True)
    access_level: Mapped[str] = mapped_column(sa.String(20), default="full")
    granted_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
    granted_at: Mapped[datetime.datetime]
    revoked_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
    revoked_at: Mapped[datetime.datetime | None]

    __table_args__ = (
        sa.Index(
            "uq_external_access_active",
            "user_id",
            "patient_id",
            unique=True,
            sqlite_where=ONLY_ACTIVE,
            postgresql_where=ONLY_ACTIVE,
        ),
    )
