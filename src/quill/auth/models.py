"""Tables of sign-in."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class Login(Base):
    """One sign-in of one person on one device, until it ends.

    ``generation`` counts refreshes: refresh and CSRF tokens carry the one they were made for, so an old one shows.
    """

    __tablename__ = "login"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    generation: Mapped[int] = mapped_column(default=1)
    source: Mapped[str] = mapped_column(sa.String(64))
    user_agent: Mapped[str] = mapped_column(sa.String(255))
    created_at: Mapped[datetime.datetime]
    refreshed_at: Mapped[datetime.datetime]
    expires_at: Mapped[datetime.datetime]
    ended_at: Mapped[datetime.datetime | None]
    end_reason: Mapped[str | None] = mapped_column(sa.String(40))
