"""Tables of clinical writes under way and done."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class Intent(Base):
    """One clinical write, from its announcement to its end.

    ``state`` is ``pending``, ``done``, ``refused`` (the store refuses it for good) or ``abandoned`` (the caller
    was told it failed and nothing had landed). ``attempts`` counts into whose hands it went: the last one may close it.
    ``payload`` is emptied when the intent closes: the record itself is the copy.
    """

    __tablename__ = "intent"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    kind: Mapped[str] = mapped_column(sa.String(40))
    state: Mapped[str] = mapped_column(sa.String(12))
    actor: Mapped[str] = mapped_column(sa.Text)
    payload: Mapped[str | None] = mapped_column(sa.Text)
    result: Mapped[str | None] = mapped_column(sa.Text)
    reason: Mapped[str | None] = mapped_column(sa.String(200))
    owner_key: Mapped[str] = mapped_column(sa.String(64))
    idempotency_key: Mapped[str | None] = mapped_column(sa.String(255))
    fingerprint: Mapped[str] = mapped_column(sa.String(64))
    attempts: Mapped[int] = mapped_column(default=0)
    lease_until: Mapped[datetime.datetime]
    created_at: Mapped[datetime.datetime]
    closed_at: Mapped[datetime.datetime | None]

    __table_args__ = (
        sa.UniqueConstraint("owner_key", "idempotency_key"),
        sa.Index(
            "ix_intent_pending",
            "lease_until",
            sqlite_where=sa.text("state = 'pending'"),
            postgresql_where=sa.text("state = 'pending'"),
        ),
        sa.Index("ix_intent_closed_at", "closed_at"),
    )


class IntentClaim(Base):
    """A name only one pending intent may hold, such as ``patient:…`` or ``nhs-number:…``."""

    __tablename__ = "intent_claim"

    name: Mapped[str] = mapped_column(sa.String(200), primary_key=True)
    intent_id: Mapped[str] = mapped_column(sa.ForeignKey("intent.id", ondelete="CASCADE"), index=True)
