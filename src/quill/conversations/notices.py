"""Who is told that something happened: devices through the outbox, open browsers through live events; ids only."""

from collections.abc import Sequence

from quill.access.service import Requirement
from quill.identity.catalogue import ACCESS_PATIENT_RECORDS
from quill.kit.ids import ConversationId, MessageId, PatientId, UserId
from quill.outbox import service as outbox
from quill.outbox.service import LiveEvent
from quill.unit import Unit

READING = Requirement(competency=ACCESS_PATIENT_RECORDS, is_clinical=True)
"""What reading and writing in conversations needs, besides being tied to the patient."""


async def after_message(
    unit: Unit, conversation_id: ConversationId, message_id: MessageId, patient_id: PatientId, others: Sequence[UserId]
) -> None:
    """Notify the participants but for the sender of a message, and whoever is looking.

    Whether each of them may still read it is asked when they are told, which may be later than now.
    """
    await outbox.enqueue_push(unit, user_ids=others, kind="message", facts={"conversation_id": str(conversation_id)})
    await outbox.publish(unit, LiveEvent("message", patient_id, conversation_id, facts={"message_id": str(message_id)}))


async def after_status(unit: Unit, conversation_id: ConversationId, patient_id: PatientId, status: str) -> None:
    """Tell whoever is looking that a conversation's status has changed."""
    await outbox.publish(unit, LiveEvent("status", patient_id, conversation_id, facts={"status": status}))


async def after_reading(
    unit: Unit, conversation_id: ConversationId, patient_id: PatientId, user_id: UserId, message_id: int
) -> None:
    """Tell whoever is looking how far somebody has read, so that another of the reader's windows follows."""
    facts = {"user_id": str(user_id), "message_id": str(message_id)}
    await outbox.publish(unit, LiveEvent("read", patient_id, conversation_id, facts=facts))
