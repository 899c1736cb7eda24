"""Tables of organisations; memberships live with identity."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base

LONGEST_NAME = 255
LONGEST_LOCATION = 500

ONLY_PENDING = sa.text("decided_at IS NULL")


class Organisation(Base):
    """A practice, team, clinic, department or school."""

    __tablename__ = "organisation"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(LONGEST_NAME))
    type: Mapped[str] = mapped_column(sa.String(50))
    location: Mapped[str | None] = mapped_column(sa.String(LONGEST_LOCATION))
    created_at: Mapped[datetime.datetime]
    updated_at: Mapped[datetime.datetime]


class OrganisationFeature(Base):
    """A feature switched on for an organisation's clients; a row means on."""

    __tablename__ = "organisation_feature"

    organisation_id: Mapped[int] = mapped_column(sa.ForeignKey("organisation.id", ondelete="CASCADE"), primary_key=True)
    feature_key: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    enabled_at: Mapped[datetime.datetime]
    enabled_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))


class JoinRequest(Base):
    """Somebody asked to work in an organisation; pending until an admin decides, and kept as a record afterwards."""

    __tablename__ = "join_request"

    id: Mapped[int] = mapped_column(primary_key=True)
    organisation_id: Mapped[int] = mapped_column(sa.ForeignKey("organisation.id", ondelete="CASCADE"), index=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"))
    requested_at: Mapped[datetime.datetime]
    decided_at: Mapped[datetime.datetime | None]
    decided_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
    is_approved: Mapped[bool | None]

    __table_args__ = (
        sa.Index(
            "uq_join_request_pending",
            "user_id",
            "organisation_id",
            unique=True,
            sqlite_where=ONLY_PENDING,
            postgresql_where=ONLY_PENDING,
        ),
    )
