"""How a conversation and its messages are FHIR Communications, and how they are read back.

A conversation is one *header*: a Communication with no ``partOf``, whose ``topic`` is the subject line and whose
``recipient`` are the participants. A message is ``partOf`` the header; an amendment is also ``inResponseTo`` the
message it amends. What FHIR has no element for stands in extensions, so that everything Quill shows of a conversation,
its numbers included, follows from these resources alone. Read markers are nobody else's business and stay out.

The header holds the status last set by a person; that a reply made it ``active`` follows from the later message, so
sending writes no header.

Source: FHIR R4 (4.0.1), ``communication.html``, ``references.html`` (logical references by ``identifier``).
"""

import datetime
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from quill.kit.clock import rfc3339
from quill.kit.documents import Document

CONVERSATION_SYSTEM = "urn:quill:conversation"
MESSAGE_SYSTEM = "urn:quill:message"
USER_SYSTEM = "urn:quill:user"

CONVERSATION_EXTENSION = "urn:quillmedical:conversation-id"
SENDER_EXTENSION = "urn:quillmedical:sender-user-id"
AMENDS_EXTENSION = "urn:quillmedical:amends"
STATUS_EXTENSION = "urn:quill:conversation-status"
INCLUDES_PATIENT_EXTENSION = "urn:quill:includes-patient"
ORGANISATION_EXTENSION = "urn:quill:organisation-id"
PARTICIPANT_EXTENSION = "urn:quill:participant"

CLOSED = "closed"


@dataclass(frozen=True, slots=True)
class ParticipantFacts:
    """Somebody takes part: who, shown how, as what, since when, and who added the person."""

    user_id: int
    display: str
    role: str
    joined_at: datetime.datetime
    added_by: int | None


@dataclass(frozen=True, slots=True)
class ConversationFacts:
    """Everything a header tells.

    Attributes:
        fhir_id: logical id of the header.
        number: the conversation's number on our wire.
        patient_id: whom it is about.
        subject: the subject line, if any.
        created_by: who began it.
        created_by_display: how that person is shown.
        created_at: when.
        includes_patient: whether the patient was to take part from the beginning.
        organisation_ids: whose conversation it is.
        status: the status last set by a person, ``new`` at the beginning.
        status_at: when it was set.
        status_by: who set it.
        participants: who takes part now.
    """

    fhir_id: str
    number: int
    patient_id: str
    subject: str | None
    created_by: int
    created_by_display: str
    created_at: datetime.datetime
    includes_patient: bool
    organisation_ids: tuple[int, ...]
    status: str
    status_at: datetime.datetime
    status_by: int
    participants: tuple[ParticipantFacts, ...]


@dataclass(frozen=True, slots=True)
class MessageFacts:
    """Everything a message tells; ``amends_fhir_id`` is the logical id of the message it amends."""

    fhir_id: str
    number: int
    conversation_fhir_id: str
    patient_id: str
    sender_id: int
    sender_display: str
    body: str
    sent_at: datetime.datetime
    amends_fhir_id: str | None


def is_header(document: Document) -> bool:
    """Tell whether a Communication is the header of one of our conversations."""
    return "partOf" not in document and bool(_number_or_none(document, CONVERSATION_SYSTEM))


def conversation_document(facts: ConversationFacts) -> Document:
    """Return the header of a conversation."""
    document: Document = {
        "resourceType": "Communication",
        "id": facts.fhir_id,
        "identifier": [{"system": CONVERSATION_SYSTEM, "value": str(facts.number)}],
        "status": "completed" if facts.status == CLOSED else "in-progress",
        "subject": {"reference": f"Patient/{facts.patient_id}"},
        "sent": rfc3339(facts.created_at),
        "sender": _person(facts.created_by, facts.created_by_display, [_sender_extension(facts.created_by)]),
        "extension": [
            {"url": CONVERSATION_EXTENSION, "valueString": facts.fhir_id},
            {"url": INCLUDES_PATIENT_EXTENSION, "valueBoolean": facts.includes_patient},
            {
                "url": STATUS_EXTENSION,
                "extension": [
                    {"url": "value", "valueCode": facts.status},
                    {"url": "at", "valueInstant": rfc3339(facts.status_at)},
                    {"url": "by", "valueInteger": facts.status_by},
                ],
            },
            *({"url": ORGANISATION_EXTENSION, "valueInteger": found} for found in facts.organisation_ids),
        ],
    }
    if facts.subject is not None:
        document["topic"] = {"text": facts.subject}
    if facts.participants:
        document["recipient"] = [_recipient(participant) for participant in facts.participants]
    return document


def rewritten(document: Document, facts: ConversationFacts) -> Document:
    """Return a header brought up to date, with every element somebody else may have added to it."""
    ours = ("recipient", "topic")
    return {name: value for name, value in document.items() if name not in ours} | conversation_document(facts)


def conversation_facts(document: Document) -> ConversationFacts | None:
    """Return what a header tells, or ``None`` when it is not one of ours or is broken."""
    if not is_header(document):
        return None
    try:
        status = _one(document, STATUS_EXTENSION)
        return ConversationFacts(
            fhir_id=document["id"],
            number=_number(document, CONVERSATION_SYSTEM),
            patient_id=_referred(document["subject"], "Patient"),
            subject=document.get("topic", {}).get("text"),
            created_by=_user(document["sender"]),
            created_by_display=document["sender"]["display"],
            created_at=_instant(document["sent"]),
            includes_patient=_one(document, INCLUDES_PATIENT_EXTENSION)["valueBoolean"],
            organisation_ids=tuple(found["valueInteger"] for found in _all(document, ORGANISATION_EXTENSION)),
            status=_one(status, "value")["valueCode"],
            status_at=_instant(_one(status, "at")["valueInstant"]),
            status_by=_one(status, "by")["valueInteger"],
            participants=tuple(_participant(recipient) for recipient in document.get("recipient", ())),
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def message_document(facts: MessageFacts) -> Document:
    """Return the Communication of a message."""
    document: Document = {
        "resourceType": "Communication",
        "id": facts.fhir_id,
        "identifier": [{"system": MESSAGE_SYSTEM, "value": str(facts.number)}],
        "status": "completed",
        "subject": {"reference": f"Patient/{facts.patient_id}"},
        "partOf": [{"reference": f"Communication/{facts.conversation_fhir_id}"}],
        "sent": rfc3339(facts.sent_at),
        "sender": _person(facts.sender_id, facts.sender_display, [_sender_extension(facts.sender_id)]),
        "payload": [{"contentString": facts.body}],
        "extension": [{"url": CONVERSATION_EXTENSION, "valueString": facts.conversation_fhir_id}],
    }
    if facts.amends_fhir_id is not None:
        amended = {"reference": f"Communication/{facts.amends_fhir_id}"}
        document["inResponseTo"] = [amended]
        document["extension"].append({"url": AMENDS_EXTENSION, "valueReference": amended})
    return document


def message_facts(document: Document) -> MessageFacts | None:
    """Return what a message tells, or ``None`` when it is not one of ours or is broken."""
    try:
        amends = [_referred(found["valueReference"], "Communication") for found in _all(document, AMENDS_EXTENSION)]
        return MessageFacts(
            fhir_id=document["id"],
            number=_number(document, MESSAGE_SYSTEM),
            conversation_fhir_id=_referred(document["partOf"][0], "Communication"),
            patient_id=_referred(document["subject"], "Patient"),
            sender_id=_user(document["sender"]),
            sender_display=document["sender"]["display"],
            body=document["payload"][0]["contentString"],
            sent_at=_instant(document["sent"]),
            amends_fhir_id=amends[0] if amends else None,
        )
    except (LookupError, TypeError, ValueError, AttributeError):
        return None


def _person(user_id: int, display: str, extension: list[Document]) -> Document:
    return {
        "identifier": {"system": USER_SYSTEM, "value": str(user_id)},
        "display": display,
        "extension": extension,
    }


def _sender_extension(user_id: int) -> Document:
    return {"url": SENDER_EXTENSION, "valueInteger": user_id}


def _recipient(participant: ParticipantFacts) -> Document:
    parts: list[Document] = [
        {"url": "role", "valueCode": participant.role},
        {"url": "joined-at", "valueInstant": rfc3339(participant.joined_at)},
    ]
    if participant.added_by is not None:
        parts.append({"url": "added-by", "valueInteger": participant.added_by})
    return _person(participant.user_id, participant.display, [{"url": PARTICIPANT_EXTENSION, "extension": parts}])


def _participant(recipient: Document) -> ParticipantFacts:
    parts = _one(recipient, PARTICIPANT_EXTENSION)
    return ParticipantFacts(
        user_id=_user(recipient),
        display=recipient["display"],
        role=_one(parts, "role")["valueCode"],
        joined_at=_instant(_one(parts, "joined-at")["valueInstant"]),
        added_by=next((found["valueInteger"] for found in _all(parts, "added-by")), None),
    )


def _all(element: Document, url: str) -> Iterator[Document]:
    return (found for found in element.get("extension", ()) if found["url"] == url)


def _one(element: Document, url: str) -> Document:
    for found in _all(element, url):
        return found
    raise LookupError("The extension is not there.")


def _number_or_none(document: Document, system: str) -> str | None:
    identifiers: Any = document.get("identifier", ())
    return next((found.get("value") for found in identifiers if found.get("system") == system), None)


def _number(document: Document, system: str) -> int:
    return int(_number_or_none(document, system) or "")


def _user(reference: Document) -> int:
    if reference["identifier"]["system"] != USER_SYSTEM:
        raise ValueError("This is not one of our people.")
    return int(reference["identifier"]["value"])


def _referred(reference: Document, resource_type: str) -> str:
    found, _, resource_id = reference["reference"].partition("/")
    if found != resource_type or not resource_id:
        raise ValueError("The reference points elsewhere.")
    return str(resource_id)


def _instant(text: str) -> datetime.datetime:
    instant = datetime.datetime.fromisoformat(text)
    if instant.tzinfo is None:
        raise ValueError("The instant has no zone.")
    return instant
