"""Tables of organisations; memberships live with identity."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class Organisation(Base):
    """A practice, team, clinic, department or school."""

    __tablename__ = "organisation"

    id: Mapped[int] = mapped_column(primary_key=True)
    name: Mapped[str] = mapped_column(sa.String(255))
    type: Mapped[str] = mapped_column(sa.String(50))
    location: Mapped[str | None] = mapped_column(sa.String(500))
    created_at: Mapped[datetime.datetime]
    updated_at: Mapped[datetime.datetime]


class OrganisationFeature(Base):
    """A feature switched on for an organisation's clients; a row means on."""

    __tablename__ = "organisation_feature"

    organisation_id: Mapped[int] = mapped_column(sa.ForeignKey("organisation.id", ondelete="CASCADE"), primary_key=True)
    feature_key: Mapped[str] = mapped_column(sa.String(50), primary_key=True)
    enabled_at: Mapped[datetime.datetime]
    enabled_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
