"""Reading conversations: lists, one with its messages, who takes part."""

import contextlib
import datetime

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.conversations import queries
from quill.conversations.queries import ConversationRow, Wanted
from quill.conversations.schemas import (
    ConversationDetailOut,
    ConversationListOut,
    MessageListOut,
    ParticipantOut,
)
from quill.conversations.service import finding, marking, wire
from quill.errors import PatientDeactivated
from quill.kit.ids import ConversationId, MessageId, PatientId, is_fhir_id
from quill.kit.paging import MAXIMUM_ROWS, BadCursor, PageRequest, cursor_of
from quill.patients import service as patients
from quill.unit import Reader

STATUSES = ("new", "active", "resolved", "closed")

_EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)
_MICROSECOND = datetime.timedelta(microseconds=1)


async def list_visible(
    reader: Reader, actor: Actor, page: PageRequest, *, status: str | None = None, patient_id: str | None = None
) -> ConversationListOut:
    """Return what the actor may read, newest activity first; two statements, however many there are.

    Args:
        reader: where to read.
        actor: who reads; the right to read records has been checked.
        page: which rows.
        status: only this status; an unknown one matches nothing.
        patient_id: only about this patient; one the actor is not tied to matches nothing.

    Raises:
        BadCursor: 422, the cursor is not one of this list's.
    """
    after = _key(page)
    subject = PatientId(patient_id) if patient_id is not None and is_fhir_id(patient_id) else None
    audit.record(reader, actor, Act.CONVERSATION_LIST, patient_id=subject)
    if (status is not None and status not in STATUSES) or (patient_id is not None and subject is None):
        return {"conversations": [], "next_cursor": None}
    wanted = Wanted(limit=page.limit + 1, after=after, status=status, patient_id=subject)
    rows = await queries.visible_page(reader.session, actor, wanted)
    shown = rows[: page.limit]
    people = await wire.participants_of(reader, [row.id for row in shown])
    return {
        "conversations": [wire.conversation_out(row, people.get(row.id, [])) for row in shown],
        "next_cursor": _cursor(shown[-1].updated_at, shown[-1].id) if len(rows) > page.limit else None,
    }


async def list_about(
    reader: Reader, actor: Actor, patient_id: PatientId, page: PageRequest, *, status: str | None = None
) -> ConversationListOut:
    """Return what the actor may read about one patient, whose circle the actor is in.

    Raises:
        PatientNotFound: 404, Quill knows no such patient.
        BadCursor: 422, the cursor is not one of this list's.
    """
    # What was said stays readable; only new entries are refused.
    with contextlib.suppress(PatientDeactivated):
        await patients.check_takes_entries(reader, patient_id)
    return await list_visible(reader, actor, page, status=status, patient_id=patient_id)


async def show(reader: Reader, actor: Actor, conversation_id: ConversationId) -> ConversationDetailOut:
    """Return a conversation with its newest messages, and remember that a participant was shown them.

    Raises:
        ConversationNotFound: 404, there is none the actor may read.
        CompetencyMissing: 403, the actor may not read records.
    """
    row = await finding.find_readable(reader, actor, conversation_id, Act.CONVERSATION_READ)
    detail = await detail_of(reader, row)
    finding.record(reader, actor, Act.CONVERSATION_READ, row)
    if row.my_unread_count and detail["messages"]:
        # Marking is a write: the connection goes back first, because holding one while waiting for another can starve
        # the pool.
        await reader.session.close()
        await marking.mark_shown(reader, actor, row, MessageId(detail["messages"][-1]["id"]))
    return detail


async def list_messages(
    reader: Reader, actor: Actor, conversation_id: ConversationId, page: PageRequest
) -> MessageListOut:
    """Return a page of messages, oldest first; the cursor leads to older ones. Nothing is marked read.

    Raises:
        ConversationNotFound: 404, there is none the actor may read.
        CompetencyMissing: 403, the actor may not read records.
        BadCursor: 422, the cursor is not one of this list's.
    """
    before = _key(page)
    row = await finding.find_readable(reader, actor, conversation_id, Act.MESSAGE_LIST)
    finding.record(reader, actor, Act.MESSAGE_LIST, row)
    return await _messages(reader, conversation_id, before, page.limit)


async def list_participants(reader: Reader, actor: Actor, conversation_id: ConversationId) -> list[ParticipantOut]:
    """Return who takes part, to participants and other readers alike.

    Raises:
        ConversationNotFound: 404, there is none the actor may read.
        CompetencyMissing: 403, the actor may not read records.
    """
    row = await finding.find_readable(reader, actor, conversation_id, Act.PARTICIPANT_LIST)
    finding.record(reader, actor, Act.PARTICIPANT_LIST, row)
    return (await wire.participants_of(reader, [conversation_id])).get(conversation_id, [])


async def detail_of(reader: Reader, row: ConversationRow) -> ConversationDetailOut:
    """Return a conversation's row with its people and its newest messages."""
    people = await wire.participants_of(reader, [row.id])
    found = await _messages(reader, ConversationId(row.id), None, MAXIMUM_ROWS)
    return {**wire.core(row, people.get(row.id, [])), **found}


async def _messages(
    reader: Reader, conversation_id: ConversationId, before: tuple[datetime.datetime, int] | None, limit: int
) -> MessageListOut:
    rows = await queries.newest_messages(reader.session, conversation_id, before=before, limit=limit + 1)
    shown = rows[:limit]
    next_cursor = _cursor(shown[-1].created_at, shown[-1].id) if len(rows) > limit else None
    return {"messages": [wire.message_out(row) for row in reversed(shown)], "next_cursor": next_cursor}


def _cursor(instant: datetime.datetime, number: int) -> str:
    return cursor_of((instant - _EPOCH) // _MICROSECOND, number)


def _key(page: PageRequest) -> tuple[datetime.datetime, int] | None:
    key = page.after(int, int)
    if key is None:
        return None
    microseconds, number = int(str(key[0])), int(str(key[1]))
    try:
        return _EPOCH + microseconds * _MICROSECOND, number
    except OverflowError as error:
        raise BadCursor("The cursor belongs to another list.") from error
