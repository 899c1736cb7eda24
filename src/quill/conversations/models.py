"""Tables that project the FHIR Communications: conversations, who takes part, and messages."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class Conversation(Base):
    """A thread about a patient. Counters and preview are kept when messages are written, so a list counts nothing."""

    __tablename__ = "conversation"

    id: Mapped[int] = mapped_column(primary_key=True)
    fhir_conversation_id: Mapped[str] = mapped_column(sa.String(64), unique=True)
    patient_id: Mapped[str] = mapped_column(sa.String(64))
    subject: Mapped[str | None] = mapped_column(sa.String(500))
    status: Mapped[str] = mapped_column(sa.String(20))
    include_patient_as_participant: Mapped[bool]
    created_by_user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id"))
    created_at: Mapped[datetime.datetime]
    updated_at: Mapped[datetime.datetime]
    last_message_preview: Mapped[str | None] = mapped_column(sa.String(200))
    last_message_at: Mapped[datetime.datetime | None]

    __table_args__ = (
        sa.Index("ix_conversation_updated_at_id", "updated_at", "id"),
        sa.Index("ix_conversation_patient_id_updated_at_id", "patient_id", "updated_at", "id"),
    )


class ConversationParticipant(Base):
    """Somebody takes part. ``unread_count`` grows with each message of others and falls when they read."""

    __tablename__ = "conversation_participant"

    conversation_id: Mapped[int] = mapped_column(sa.ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id"), primary_key=True)
    role: Mapped[str] = mapped_column(sa.String(20))
    joined_at: Mapped[datetime.datetime]
    added_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
    last_read_message_id: Mapped[int | None]
    last_read_at: Mapped[datetime.datetime | None]
    unread_count: Mapped[int] = mapped_column(default=0)

    __table_args__ = (sa.Index("ix_conversation_participant_user_id", "user_id", "conversation_id"),)


class ConversationOrganisation(Base):
    """A conversation belongs to an organisation, whose staff may read it."""

    __tablename__ = "conversation_organisation"

    conversation_id: Mapped[int] = mapped_column(sa.ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True)
    organisation_id: Mapped[int] = mapped_column(sa.ForeignKey("organisation.id", ondelete="CASCADE"), primary_key=True)

    __table_args__ = (sa.Index("ix_conversation_organisation_organisation_id", "organisation_id", "conversation_id"),)


class Message(Base):
    """One message; an amendment is a message that names the one it amends."""

    __tablename__ = "message"

    id: Mapped[int] = mapped_column(primary_key=True)
    fhir_communication_id: Mapped[str] = mapped_column(sa.String(64), unique=True)
    conversation_id: Mapped[int] = mapped_column(sa.ForeignKey("conversation.id", ondelete="CASCADE"))
    sender_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id"))
    body: Mapped[str] = mapped_column(sa.Text)
    amends_id: Mapped[int | None] = mapped_column(sa.ForeignKey("message.id"))
    created_at: Mapped[datetime.datetime]

    __table_args__ = (sa.Index("ix_message_conversation_id_created_at_id", "conversation_id", "created_at", "id"),)
