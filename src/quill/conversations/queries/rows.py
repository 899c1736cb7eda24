"""What the selects of conversations return, typed.

Rows of a list are made of these at once: asking SQLAlchemy's own row for a column by its name costs a third of a
microsecond, and a page of fifty conversations asks a thousand times.
"""

import datetime
from typing import Any, NamedTuple, TypeAlias

import sqlalchemy as sa

Select: TypeAlias = sa.Select[*tuple[Any, ...]]


class ConversationRow(NamedTuple):
    """A conversation, with the actor's own participation.

    Attributes:
        my_role: ``None`` when the actor takes no part; so is ``my_unread_count`` then.
        patient_is_active: asked only by ``lock_where``; ``None`` where Quill knows no such patient.
        message_number: the number of the next message, where ``lock_where`` was asked for it and could take it.
    """

    id: int
    fhir_conversation_id: str
    patient_id: str
    subject: str | None
    status: str
    status_changed_at: datetime.datetime
    status_changed_by_user_id: int
    created_by_user_id: int
    created_at: datetime.datetime
    updated_at: datetime.datetime
    include_patient_as_participant: bool
    last_message_preview: str | None
    last_message_at: datetime.datetime | None
    my_role: str | None
    my_unread_count: int | None
    patient_is_active: bool | None = None
    message_number: int | None = None


class ParticipantRow(NamedTuple):
    """Somebody who takes part in a conversation."""

    conversation_id: int
    user_id: int
    role: str
    joined_at: datetime.datetime
    added_by_user_id: int | None
    username: str
    display_name: str


class MessageRow(NamedTuple):
    """A message with its sender."""

    id: int
    fhir_communication_id: str
    conversation_id: int
    sender_id: int
    body: str
    amends_id: int | None
    created_at: datetime.datetime
    sender_username: str
    sender_display_name: str


def select_into(row: type[NamedTuple], *columns: sa.ColumnElement[Any]) -> Select:
    """Return a select of columns in the order of a row's fields, so that the row can be made of what it returns.

    Raises:
        KeyError: a field without a default has no column.
    """
    by_name = {column.key: column for column in columns}
    return sa.select(*(by_name[name] for name in row._fields if name not in row._field_defaults))
