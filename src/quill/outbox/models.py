"""Tables of what is to be delivered, and of what live listeners are told."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base

ONLY_PENDING = sa.text("state = 'pending'")
UNNUMBERED = sa.text("number IS NULL")


class OutboxEntry(Base):
    """One thing to deliver. The payload is there only while it is needed; a mail's is sealed (``outbox.payloads``).

    ``lease_until`` says until when a worker has it in hand; should that worker die, another takes it then.
    """

    __tablename__ = "outbox_entry"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    channel: Mapped[str] = mapped_column(sa.String(10))
    payload: Mapped[str | None] = mapped_column(sa.Text)
    state: Mapped[str] = mapped_column(sa.String(10))
    attempts: Mapped[int] = mapped_column(default=0)
    next_attempt_at: Mapped[datetime.datetime]
    lease_until: Mapped[datetime.datetime | None]
    give_up_at: Mapped[datetime.datetime]
    last_error: Mapped[str | None] = mapped_column(sa.String(60))
    created_at: Mapped[datetime.datetime]
    closed_at: Mapped[datetime.datetime | None]

    __table_args__ = (
        sa.CheckConstraint("state IN ('pending', 'sent', 'failed')", name="state"),
        sa.Index(
            "ix_outbox_entry_pending", "next_attempt_at", sqlite_where=ONLY_PENDING, postgresql_where=ONLY_PENDING
        ),
        sa.Index("ix_outbox_entry_closed_at", "closed_at"),
    )


class LiveEventRow(Base):
    """Something that happened, for listeners now and for those who come back soon; ids only.

    A listener resumes after the last number it saw, so numbers grow in the order in which events become visible, and
    are never used twice. Ids do not: PostgreSQL takes them before the commit, and a lower one may show up later. There
    an event is numbered once it is visible; on SQLite, which has one writer at a time, as it is written.
    """

    __tablename__ = "live_event"

    id: Mapped[int] = mapped_column(
        sa.BigInteger().with_variant(sa.Integer(), "sqlite"), primary_key=True, autoincrement=True
    )
    number: Mapped[int | None] = mapped_column(sa.BigInteger, unique=True)
    kind: Mapped[str] = mapped_column(sa.String(10))
    patient_id: Mapped[str] = mapped_column(sa.String(64))
    conversation_id: Mapped[int | None]
    facts: Mapped[str] = mapped_column(sa.Text)
    created_at: Mapped[datetime.datetime] = mapped_column(index=True)

    __table_args__ = (sa.Index("ix_live_event_unnumbered", "id", sqlite_where=UNNUMBERED, postgresql_where=UNNUMBERED),)
