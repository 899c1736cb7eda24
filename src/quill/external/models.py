"""Table of invites; the grants that come of them live with identity."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base

LONGEST_FOLDED_EMAIL = 510
"""As long as an account's; folding case may lengthen a text."""


class ExternalInvite(Base):
    """Somebody was invited to see a patient's record. The token itself is kept nowhere, and a row is never deleted."""

    __tablename__ = "external_invite"

    id: Mapped[int] = mapped_column(primary_key=True)
    patient_id: Mapped[str] = mapped_column(sa.String(64))
    email: Mapped[str] = mapped_column(sa.String(255))
    email_folded: Mapped[str] = mapped_column(sa.String(LONGEST_FOLDED_EMAIL))
    user_type: Mapped[str] = mapped_column(sa.String(20))
    token_hash: Mapped[str] = mapped_column(sa.String(64), unique=True)
    invited_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
    created_at: Mapped[datetime.datetime]
    expires_at: Mapped[datetime.datetime]
    accepted_at: Mapped[datetime.datetime | None]
    accepted_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
    withdrawn_at: Mapped[datetime.datetime | None]
    withdrawn_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))

    __table_args__ = (sa.Index("ix_external_invite_patient_id", "patient_id", "id"),)
