"""Finding one conversation for somebody: to read it, or to write in it."""

from collections.abc import Collection

from sqlalchemy.ext.asyncio import AsyncSession

from quill.access import service as access
from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.conversations import queries
from quill.conversations.appending import lock_name
from quill.conversations.notices import READING
from quill.conversations.queries import ConversationRow, Row
from quill.conversations.visibility import visible_conversations
from quill.errors import ConversationNotFound, NotParticipant
from quill.kit.ids import ConversationId, PatientId, UserId
from quill.patients import service as patients
from quill.unit import Reader, Unit


async def find_readable(reader: Reader, actor: Actor, conversation_id: ConversationId, act: Act) -> ConversationRow:
    """Return a conversation the actor may read, with the actor's own participation.

    Raises:
        ConversationNotFound: 404, there is none; a refusal is in the audit trail.
        CompetencyMissing: 403, the actor may not read records.
    """
    row = await queries.find_where(reader.session, actor, conversation_id, visible_conversations)
    return _checked(reader, actor, conversation_id, act, row)


async def may_read(session: AsyncSession, actor: Actor, conversation_id: ConversationId) -> bool:
    """Tell whether somebody may read a conversation at this moment; for deliveries."""
    if access.missing_right(actor, READING) is not None:
        return False
    return await queries.may_read(session, actor, conversation_id)


async def who_may_read(
    session: AsyncSession, actors: Collection[Actor], conversation_id: ConversationId
) -> set[UserId]:
    """Return those of some people who may read a conversation at this moment, in one statement; for live events."""
    entitled = [actor for actor in actors if access.missing_right(actor, READING) is None]
    return await queries.readers_among(session, entitled, conversation_id) if entitled else set()


async def find_writable(
    unit: Unit,
    actor: Actor,
    conversation_id: ConversationId,
    act: Act,
    *,
    sentence: str | None = None,
    takes_number: bool = False,
) -> ConversationRow:
    """Return a conversation the actor takes part in, about a patient whose record takes entries; its row is locked.

    What is written in a conversation becomes visible one by one, so whoever writes waits for those before.

    Args:
        unit: the transaction.
        actor: who wants to write.
        conversation_id: where.
        act: what, for the audit trail.
        sentence: the words for a reader who takes no part, where the wire wants particular ones.
        takes_number: whether what is written is a message, so that its number may come with the conversation.

    Raises:
        ConversationNotFound: 404, there is none the actor may read.
        CompetencyMissing: 403, the actor may not read records.
        NotParticipant: 403, the actor may only read.
        PatientDeactivated: 409, the record takes no new entries.
    """
    found = await queries.lock_where(
        unit.session, actor, conversation_id, visible_conversations, takes_number=takes_number
    )
    row = _checked(unit, actor, conversation_id, act, found)
    unit.note_lock(lock_name(conversation_id))
    if row.my_role is None:
        record_refusal(unit, actor, act, row, NotParticipant.code)
        raise NotParticipant(sentence)
    patients.refuse_entries(row.patient_is_active)
    return row


def _checked(
    reader: Reader, actor: Actor, conversation_id: ConversationId, act: Act, row: ConversationRow | None
) -> ConversationRow:
    if row is None:
        audit.record_refusal(reader, actor, act, reason="not_readable", subject=f"conversation:{conversation_id}")
        raise ConversationNotFound
    access.check_rights(reader, actor, READING, patient_id=PatientId(row.patient_id))
    return row


def record_refusal(reader: Reader, actor: Actor, act: Act, row: ConversationRow, reason: str) -> None:
    """Note that something was refused in a conversation the actor may read."""
    audit.record_refusal(
        reader,
        actor,
        act,
        reason=reason,
        patient_id=PatientId(row.patient_id),
        subject=f"conversation:{row.id}",
    )


def record(reader: Reader, actor: Actor, act: Act, row: ConversationRow | Row) -> None:
    """Note what was done in a conversation."""
    audit.record(reader, actor, act, patient_id=PatientId(row.patient_id), subject=f"conversation:{row.id}")
