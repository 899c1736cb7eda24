"""Table of push subscriptions."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class PushSubscription(Base):
    """One browser of one person (Push API, ``PushSubscription``).

    The endpoint is a secret of that browser; its digest makes it unique, since an address may be too long for an index.
    """

    __tablename__ = "push_subscription"

    id: Mapped[int] = mapped_column(primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"))
    endpoint_digest: Mapped[str] = mapped_column(sa.String(64), unique=True)
    endpoint: Mapped[str] = mapped_column(sa.Text)
    p256dh: Mapped[str] = mapped_column(sa.String(90))
    auth: Mapped[str] = mapped_column(sa.String(30))
    expires_at: Mapped[datetime.datetime | None]
    created_at: Mapped[datetime.datetime]
    updated_at: Mapped[datetime.datetime]

    __table_args__ = (sa.Index("ix_push_subscription_user_id", "user_id", "updated_at"),)
