"""Changes to a conversation's header: who takes part, which status it has.

A change is kept as data in its intent and applied to the header as the store holds it at that moment, so two changes at
the same time are both kept, and applying one twice is harmless.
"""

import datetime
from collections.abc import Mapping
from dataclasses import replace

from quill.errors import FhirRefused, RequestInProgress, StaleEdit
from quill.kit.clock import rfc3339
from quill.kit.documents import Document
from quill.ports.fhir import FhirStore, StoredResource
from quill.ports.fhir_communication import ConversationFacts, ParticipantFacts, conversation_facts, rewritten
from quill.ports.fhir_meta import with_source
from quill.unit import Unit

MOST_TRIES = 20
"""Writers of one header who come at the same moment; each of them lets another one through."""


def adding(participant: ParticipantFacts, *, ended_at: datetime.datetime | None = None) -> Document:
    """Return the change that somebody takes part from now on.

    Args:
        participant: who, and how.
        ended_at: until when any part the person took is over, though the header may not say so yet.
    """
    before = {} if ended_at is None else ending(participant.user_id, ended_at)
    return before | {
        "add": {
            "user_id": participant.user_id,
            "display": participant.display,
            "role": participant.role,
            "joined_at": rfc3339(participant.joined_at),
            "added_by": participant.added_by,
        }
    }


def removing(user_id: int) -> Document:
    """Return the change that somebody takes no part any longer."""
    return {"remove": user_id}


def ending(user_id: int, ended_at: datetime.datetime) -> Document:
    """Return the change that the part somebody took until an instant is over; a part taken later stays."""
    return {"end": {"user_id": user_id, "at": rfc3339(ended_at)}}


def setting_status(status: str, at: datetime.datetime, by: int) -> Document:
    """Return the change that a person gives the conversation a status."""
    return {"status": {"value": status, "at": rfc3339(at), "by": by}}


def applied(facts: ConversationFacts, change: Document) -> ConversationFacts:
    """Return what the header tells once a change is made; the same when it has been made already."""
    if "end" in change:
        facts = _without_ended(facts, change["end"])
    if "add" in change:
        return _with_participant(facts, change["add"])
    if "remove" in change:
        stay = tuple(found for found in facts.participants if found.user_id != change["remove"])
        return replace(facts, participants=stay)
    return _with_status(facts, change["status"]) if "status" in change else facts


def _with_status(facts: ConversationFacts, status: Document) -> ConversationFacts:
    at = datetime.datetime.fromisoformat(status["at"])
    # The later one holds, whichever arrived first.
    if at <= facts.status_at:
        return facts
    return replace(facts, status=status["value"], status_at=at, status_by=status["by"])


def _without_ended(facts: ConversationFacts, ended: Document) -> ConversationFacts:
    return without_ended(facts, {ended["user_id"]: datetime.datetime.fromisoformat(ended["at"])})


def without_ended(facts: ConversationFacts, ends: Mapping[int, datetime.datetime]) -> ConversationFacts:
    """Return what a header tells without the parts that are over.

    Args:
        facts: what it tells.
        ends: by person, until when any part taken is over.
    """

    def stays(found: ParticipantFacts) -> bool:
        return found.user_id not in ends or found.joined_at > ends[found.user_id]

    return replace(facts, participants=tuple(found for found in facts.participants if stays(found)))


def _with_participant(facts: ConversationFacts, added: Document) -> ConversationFacts:
    if any(found.user_id == added["user_id"] for found in facts.participants):
        return facts
    joined_at = datetime.datetime.fromisoformat(added["joined_at"])
    return replace(facts, participants=(*facts.participants, ParticipantFacts(**{**added, "joined_at": joined_at})))


async def read(fhir: FhirStore, fhir_id: str) -> tuple[StoredResource, ConversationFacts]:
    """Return a header that must be there, and what it tells.

    Raises:
        FhirRefused: 502, the store does not hold what it acknowledged.
    """
    stored = await fhir.find("Communication", fhir_id)
    facts = conversation_facts(stored.document) if stored is not None else None
    if stored is None or facts is None:
        raise FhirRefused("The patient record store does not hold this conversation")
    return stored, facts


async def apply(unit: Unit, fhir_id: str, change: Document) -> StoredResource:
    """Make a change to a header, on top of whatever others have made of it meanwhile.

    Returns:
        The header with the change made.

    Raises:
        FhirRefused: 502, the store does not hold the header.
        RequestInProgress: 409, too many others change it at this moment.
    """
    for _ in range(MOST_TRIES):
        stored, facts = await read(unit.fhir, fhir_id)
        changed = applied(facts, change)
        if changed == facts:
            return stored
        try:
            document = with_source(rewritten(stored.document, changed), unit.settings.source_uri)
            return await unit.fhir.write(document, if_match=stored.version)
        except StaleEdit:
            continue
    raise RequestInProgress
