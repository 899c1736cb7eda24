"""Changing what the header of a conversation tells: its status, and who takes part."""

from quill.actor import Actor
from quill.audit.service import Act
from quill.conversations import headers, queries
from quill.conversations.appending import SMALLEST_STEP
from quill.conversations.projection import CHANGE_KIND
from quill.conversations.queries import ConversationRow
from quill.conversations.schemas import ConversationOut
from quill.conversations.service import finding, wire
from quill.intents import service as intents
from quill.intents.service import Wish
from quill.kit import clock
from quill.kit.documents import Document
from quill.kit.ids import ConversationId
from quill.unit import Unit


async def set_status(unit: Unit, actor: Actor, conversation_id: ConversationId, status: str) -> ConversationOut:
    """Give a conversation a status; any may follow any. The one it has already changes nothing.

    Raises:
        ConversationNotFound: 404, there is none the actor may read.
        CompetencyMissing: 403, the actor may not read records.
        NotParticipant: 403, the actor may only read.
        PatientDeactivated: 409, the record takes no new entries.
        Unavailable: 502 or 503, the FHIR store did not take it; the status is what it was.
    """
    row = await finding.find_writable(unit, actor, conversation_id, Act.CONVERSATION_CHANGE)
    if row.status != status:
        # Later than the change before and than every message so far, so that a rebuilding sees the same order.
        at = max(clock.now(), row.updated_at + SMALLEST_STEP, row.status_changed_at + SMALLEST_STEP)
        wanted = headers.setting_status(status, at, actor.person_id)
        await change(unit, actor, row, wanted, Act.CONVERSATION_CHANGE)
        row = await finding.find_readable(unit, actor, conversation_id, Act.CONVERSATION_CHANGE)
    people = await wire.participants_of(unit, [conversation_id])
    return wire.conversation_out(row, people.get(conversation_id, []))


async def change(
    unit: Unit, actor: Actor, row: ConversationRow, wanted: Document, act: Act, *, about: int | None = None
) -> None:
    """Write a change of the header to FHIR and project it.

    Args:
        unit: the transaction.
        actor: who changes it.
        row: the conversation.
        wanted: the change, made by ``headers``.
        act: what the audit trail calls it.
        about: the person it is about, if any.

    Raises:
        Unavailable: 502 or 503, the FHIR store did not take it; nothing has changed.
    """
    # Held to the end where the store shares our transaction: its header is read, changed and written by one at a time.
    await queries.lock_conversation(unit.session, ConversationId(row.id))
    subject = f"conversation:{row.id}" if about is None else f"conversation:{row.id}:user:{about}"
    payload: Document = {
        "conversation_id": row.id,
        "fhir_id": row.fhir_conversation_id,
        "change": wanted,
        "act": act.value,
        "audit_subject": subject,
    }
    await intents.perform(unit, actor, Wish(CHANGE_KIND, payload))
