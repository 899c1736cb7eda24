"""Tables that project the FHIR Communications: conversations, who takes part, and messages."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base

MessageNumber = sa.BigInteger().with_variant(sa.Integer(), "sqlite")
"""Messages outgrow 32 bits; SQLite's own integer holds 64 and is the only one it numbers by itself."""

ONLY_AMENDMENTS = sa.text("amends_id IS NOT NULL")


class Conversation(Base):
    """A thread about a patient. Preview and times are kept when messages are written, so a list counts nothing.

    ``updated_at`` is the instant of the last message or change of status and orders every list. ``header_version`` is
    the version of the FHIR header the row was last brought up to date with; an older one changes nothing.
    """

    __tablename__ = "conversation"

    id: Mapped[int] = mapped_column(primary_key=True)
    fhir_conversation_id: Mapped[str] = mapped_column(sa.String(64), unique=True)
    header_version: Mapped[int]
    patient_id: Mapped[str] = mapped_column(sa.String(64))
    subject: Mapped[str | None] = mapped_column(sa.String(500))
    status: Mapped[str] = mapped_column(sa.String(20))
    status_changed_at: Mapped[datetime.datetime]
    status_changed_by_user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id"))
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
    """Somebody takes part. ``unread_count`` grows with each message of others and falls when they read.

    ``active_at`` repeats the conversation's ``updated_at``, so that a page of somebody's conversations is read from the
    index in order and costs the same whether the person has fifty or fifty thousand.
    """

    __tablename__ = "conversation_participant"

    conversation_id: Mapped[int] = mapped_column(sa.ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id"), primary_key=True)
    role: Mapped[str] = mapped_column(sa.String(20))
    joined_at: Mapped[datetime.datetime]
    added_by_user_id: Mapped[int | None] = mapped_column(sa.ForeignKey("user_account.id", ondelete="SET NULL"))
    last_read_message_id: Mapped[int | None] = mapped_column(MessageNumber)
    last_read_at: Mapped[datetime.datetime | None]
    unread_count: Mapped[int] = mapped_column(default=0)
    active_at: Mapped[datetime.datetime]

    __table_args__ = (
        sa.Index("ix_conversation_participant_user_id_active_at", "user_id", "active_at", "conversation_id"),
    )


class ParticipationEnd(Base):
    """Somebody's access to a patient ended: any part taken until then in conversations about that patient is over.

    It outlives access given anew, so that neither a header corrected late nor a rebuilding brings such a part back.
    """

    __tablename__ = "participation_end"

    patient_id: Mapped[str] = mapped_column(sa.String(64), primary_key=True)
    user_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id", ondelete="CASCADE"), primary_key=True)
    ended_at: Mapped[datetime.datetime]


class ConversationOrganisation(Base):
    """A conversation belongs to an organisation, whose staff may read it; ``active_at`` as with participants."""

    __tablename__ = "conversation_organisation"

    conversation_id: Mapped[int] = mapped_column(sa.ForeignKey("conversation.id", ondelete="CASCADE"), primary_key=True)
    organisation_id: Mapped[int] = mapped_column(sa.ForeignKey("organisation.id", ondelete="CASCADE"), primary_key=True)
    active_at: Mapped[datetime.datetime]

    __table_args__ = (
        sa.Index(
            "ix_conversation_organisation_organisation_id_active_at", "organisation_id", "active_at", "conversation_id"
        ),
    )


class Message(Base):
    """One message; an amendment is a message that names the one it amends.

    Within a conversation ``created_at`` grows strictly in the order in which messages became visible.
    """

    __tablename__ = "message"

    id: Mapped[int] = mapped_column(MessageNumber, primary_key=True)
    fhir_communication_id: Mapped[str] = mapped_column(sa.String(64), unique=True)
    conversation_id: Mapped[int] = mapped_column(sa.ForeignKey("conversation.id", ondelete="CASCADE"))
    sender_id: Mapped[int] = mapped_column(sa.ForeignKey("user_account.id"))
    body: Mapped[str] = mapped_column(sa.Text)
    amends_id: Mapped[int | None] = mapped_column(MessageNumber, sa.ForeignKey("message.id"))
    created_at: Mapped[datetime.datetime]

    __table_args__ = (
        sa.Index("ix_message_conversation_id_created_at_id", "conversation_id", "created_at", "id"),
        sa.Index(
            "ix_message_amends_id",
            "amends_id",
            sqlite_where=ONLY_AMENDMENTS,
            postgresql_where=ONLY_AMENDMENTS,
        ),
    )


class NumberSeries(Base):
    """The last number given out, on SQLite only; PostgreSQL has sequences.

    A number is part of the FHIR record and therefore given out before the row it will belong to is written.
    """

    __tablename__ = "number_series"

    name: Mapped[str] = mapped_column(sa.String(40), primary_key=True)
    last: Mapped[int] = mapped_column(sa.BigInteger)
