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


class PasswordReset(Base):
    """A link that resets a password, as mailed to one address; of its token only a digest is kept.

    ``closed_at`` is set when it is used, or withdrawn by a later link or by any change of the password.
    """

    __tablename__ = "password_reset"

    id: Mapped[str] = mapped_column(sa.String(36), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"), index=True)
    token_digest: Mapped[str] = mapped_column(sa.String(64), unique=True)
    email: Mapped[str] = mapped_column(sa.String(255))
    created_at: Mapped[datetime.datetime]
    expires_at: Mapped[datetime.datetime]
    closed_at: Mapped[datetime.datetime | None]


class RecoveryCode(Base):
    """A code that stands in for one TOTP code, once; only a digest is kept."""

    __tablename__ = "recovery_code"

    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"), primary_key=True)
    code_digest: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    created_at: Mapped[datetime.datetime]
    used_at: Mapped[datetime.datetime | None]
