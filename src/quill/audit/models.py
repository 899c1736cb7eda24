"""Tables of the audit trail. The application only ever inserts into them."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class AuditEvent(Base):
    """One act: who, what, about which patient, with what outcome, when."""

    __tablename__ = "audit_event"

    id: Mapped[int] = mapped_column(sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True)
    occurred_at: Mapped[datetime.datetime]
    request_id: Mapped[str] = mapped_column(sa.String(64))
    actor_user_id: Mapped[int | None]
    actor_name: Mapped[str] = mapped_column(sa.String(160))
    login_id: Mapped[str | None] = mapped_column(sa.String(36))
    source: Mapped[str] = mapped_column(sa.String(64))
    act: Mapped[str] = mapped_column(sa.String(64))
    outcome: Mapped[str] = mapped_column(sa.String(16))
    reason: Mapped[str] = mapped_column(sa.String(160))
    patient_id: Mapped[str | None] = mapped_column(sa.String(64))
    subject: Mapped[str | None] = mapped_column(sa.String(200))

    __table_args__ = (
        sa.Index("ix_audit_event_patient_id_id", "patient_id", "id"),
        sa.Index("ix_audit_event_actor_user_id_id", "actor_user_id", "id"),
        {"sqlite_autoincrement": True},
    )


class AuditSeal(Base):
    """A hash over the previous seal and the leaf hashes of the events sealed with it."""

    __tablename__ = "audit_seal"

    number: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    sealed_at: Mapped[datetime.datetime]
    event_count: Mapped[int]
    previous_hash: Mapped[str] = mapped_column(sa.String(64))
    hash: Mapped[str] = mapped_column(sa.String(64))


class AuditSealEntry(Base):
    """Which seal holds an event, at which place, and the event's leaf hash."""

    __tablename__ = "audit_seal_entry"

    event_id: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer, "sqlite"), primary_key=True, autoincrement=False
    )
    seal_number: Mapped[int] = mapped_column(sa.ForeignKey("audit_seal.number"))
    position: Mapped[int]
    leaf_hash: Mapped[str] = mapped_column(sa.String(64))

    __table_args__ = (sa.UniqueConstraint("seal_number", "position"),)
