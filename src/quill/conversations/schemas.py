"""What crosses the wire about conversations."""

import datetime
from typing import Annotated, Literal

from pydantic import AfterValidator, Field, StrictBool, StringConstraints
from pydantic_core import PydanticCustomError
from typing_extensions import TypedDict

from quill.edge.inputs import BlankAsAbsent, Input, RowNumber, Trimmed

LONGEST_MESSAGE = 10_000
"""Characters (Unicode code points) of one message; at most four times as many bytes in UTF-8."""
LONGEST_SUBJECT = 500
"""Characters of a subject line."""
MOST_PARTICIPANTS = 200
"""People named when a conversation begins; more can be added."""
HIGHEST_MESSAGE_NUMBER = 2**53 - 1
"""The highest integer that JavaScript keeps exactly (ECMA-262, ``Number.MAX_SAFE_INTEGER``)."""

Status = Literal["new", "active", "resolved", "closed"]
# The limit stands inside: outside, it would be asked of the ``None`` that a blank becomes.
StatusFilter = Annotated[Annotated[str, StringConstraints(max_length=20)] | None, BlankAsAbsent]
PatientFilter = Annotated[Annotated[str, StringConstraints(max_length=255)] | None, BlankAsAbsent]


def _check_not_blank(text: str) -> str:
    if not text.strip():
        raise PydanticCustomError("blank", "A message must not be blank")
    return text


MessageText = Annotated[
    str, StringConstraints(min_length=1, max_length=LONGEST_MESSAGE), AfterValidator(_check_not_blank)
]
"""Markdown, kept exactly as sent."""
MessageNumber = Annotated[int, Field(strict=True, ge=1, le=HIGHEST_MESSAGE_NUMBER)]
SubjectLine = Annotated[
    Annotated[str, Trimmed(LONGEST_SUBJECT, shortest=1)] | None,
    BlankAsAbsent,
]


class ConversationIn(Input):
    """A conversation to begin."""

    patient_id: str = Field(min_length=1, max_length=255, description="FHIR logical id of the patient it is about.")
    subject: SubjectLine = Field(default=None, description="Subject line; blank counts as none.")
    participant_ids: list[RowNumber] = Field(
        default=[],
        max_length=MOST_PARTICIPANTS,
        description="Who else takes part; each must be allowed to access the patient. Repetitions and you are ignored.",
    )
    initial_message: MessageText = Field(description="The first message, in Markdown.")
    include_patient_as_participant: StrictBool = Field(
        default=False, description="Also add the account linked to the patient."
    )


class MessageIn(Input):
    """A message to send."""

    body: MessageText = Field(description="Markdown.")
    amends_id: MessageNumber | None = Field(default=None, description="The message of yours this one amends.")


class StatusIn(Input):
    """A status to give."""

    status: Status


class ParticipantIn(Input):
    """Somebody to add."""

    user_id: RowNumber
    role: Literal["participant", "tagged"] = "participant"


class ReadIn(Input):
    """How far the caller has read."""

    message_id: MessageNumber | None = Field(
        default=None, description="The newest message that was shown; left out, the newest there is."
    )


# What goes out is plain data, made from rows and encoded at once (``edge.answers``): a list holds hundreds of these.


class ParticipantOut(TypedDict):
    """Somebody takes part."""

    user_id: int
    username: str
    display_name: str
    role: str
    joined_at: datetime.datetime
    added_by: Annotated[
        int | None, Field(description="Who added the person; `null` for who began or joined by themselves.")
    ]


class MessageOut(TypedDict):
    """A message; an amendment names the one it amends, which stays as it was."""

    id: int
    fhir_communication_id: str
    sender_id: int
    sender_username: str
    sender_display_name: str
    body: str
    amends_id: int | None
    is_amendment: bool
    created_at: datetime.datetime


class ConversationCore(TypedDict):
    """What a conversation in a list and one with its messages have in common."""

    id: int
    fhir_conversation_id: str
    patient_id: str
    subject: str | None
    status: str
    status_changed_at: Annotated[datetime.datetime, Field(description="When a person last set the status.")]
    status_changed_by: Annotated[int, Field(description="Who did.")]
    created_at: datetime.datetime
    updated_at: datetime.datetime
    participants: list[ParticipantOut]
    is_participant: bool
    can_write: bool
    include_patient_as_participant: bool


class ConversationOut(ConversationCore):
    """A conversation in a list."""

    last_message_preview: Annotated[str | None, Field(description="The first 200 characters of the newest message.")]
    last_message_time: datetime.datetime | None
    unread_count: int


class ConversationDetailOut(ConversationCore):
    """A conversation with its newest messages, oldest first."""

    messages: list[MessageOut]
    next_cursor: Annotated[str | None, Field(description="For older messages, at `…/messages`.")]


class ConversationListOut(TypedDict):
    """A page of conversations, newest activity first."""

    conversations: list[ConversationOut]
    next_cursor: str | None


class MessageListOut(TypedDict):
    """A page of messages, oldest first; the next page holds older ones."""

    messages: list[MessageOut]
    next_cursor: str | None


class OkOut(TypedDict):
    """It is done."""

    ok: bool
