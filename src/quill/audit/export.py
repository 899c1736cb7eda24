"""The audit trail as FHIR AuditEvents, for those who gather such events from many systems.

Source: FHIR R4 (4.0.1), ``auditevent.html``, and the code systems its value sets name: DICOM's audit codes,
``audit-entity-type``, ``object-role``, ``security-source-type``. What kind of act it was, in Quill's own words, is the
``subtype``.
"""

import datetime
import ipaddress
from collections.abc import AsyncIterator
from dataclasses import dataclass

from quill.audit import queries
from quill.audit.queries import AnyRow
from quill.kit.clock import rfc3339
from quill.kit.database import Database
from quill.kit.documents import Document
from quill.kit.ids import is_fhir_id

ACT_SYSTEM = "urn:quill:audit-act"
USER_SYSTEM = "urn:quill:user"
PATIENT_SYSTEM = "urn:quill:patient"
SUBJECT_SYSTEM = "urn:quill:audit-subject"
REQUEST_SYSTEM = "urn:quill:request"

_DICOM = "http://dicom.nema.org/resources/ontology/DCM"
_TERMINOLOGY = "http://terminology.hl7.org/CodeSystem"

_AUTHENTICATION = {"system": _DICOM, "code": "110114", "display": "User Authentication"}
_SECURITY = {"system": _DICOM, "code": "110113", "display": "Security Alert"}
_PATIENT_RECORD = {"system": _DICOM, "code": "110110", "display": "Patient Record"}
_EXPORT = {"system": _DICOM, "code": "110106", "display": "Export"}
_ACTIVITY = {"system": _DICOM, "code": "110100", "display": "Application Activity"}

_TYPES = {
    **dict.fromkeys(
        ("sign-in", "sign-out", "login", "token", "password", "password-reset", "two-factor", "recovery-code"),
        _AUTHENTICATION,
    ),
    **dict.fromkeys(("user", "roles", "competencies", "registrations", "request", "secrets"), _SECURITY),
    **dict.fromkeys(
        ("patient", "letter", "prescription", "conversation", "message", "participant", "access"), _PATIENT_RECORD
    ),
    "export": _EXPORT,
}
"""By the noun of an act; the others are ``Application Activity``."""

_ACTIONS = {
    **dict.fromkeys(("create", "write", "send", "register", "import", "add", "subscribe"), "C"),
    **dict.fromkeys(("read", "list", "search", "verify", "check", "copy", "export"), "R"),
    **dict.fromkeys(("change", "amend", "activate", "deactivate", "enable", "disable", "mark-read", "join"), "U"),
    **dict.fromkeys(("link-patient", "unlink-patient", "approve", "decline", "accept"), "U"),
    **dict.fromkeys(("remove", "leave", "withdraw", "revoke", "unsubscribe", "end"), "D"),
}
"""By the verb of an act; the others are executed (``E``)."""

_OUTCOMES = {"allowed": "0", "refused": "4", "failed": "8"}
"""Success, minor failure (the caller's), serious failure (ours)."""


class UnreadableTrail(ValueError):
    """A row of the trail is not as Quill writes rows; ``quill audit verify`` says more."""


@dataclass(frozen=True, slots=True)
class Wanted:
    """Which events: from ``since`` on, before ``until``, about one patient; ``None`` asks nothing."""

    since: datetime.datetime | None = None
    until: datetime.datetime | None = None
    patient_id: str | None = None


async def stream(database: Database, wanted: Wanted, source: str) -> AsyncIterator[Document]:
    """Yield the events wanted as AuditEvents, oldest first, up to the newest at this moment; holds a batch at a time.

    Args:
        database: where the trail is.
        wanted: which events.
        source: URI of this Quill.

    Raises:
        UnreadableTrail: somebody has meddled with a row.
    """
    async with database.reading() as session:
        last_id = await queries.get_last_event_id(session)
        rows = queries.stream_events(
            session, last_id, since=wanted.since, until=wanted.until, patient_id=wanted.patient_id
        )
        async for row in rows:
            yield document_of(row, source)


def document_of(row: AnyRow, source: str) -> Document:
    """Return one row of the trail as an AuditEvent."""
    if not isinstance(row.occurred_at, datetime.datetime):
        raise UnreadableTrail(f"Event {row.id} holds no time.")
    noun, _, verb = row.act.partition(":")
    document: Document = {
        "resourceType": "AuditEvent",
        "id": f"audit-{row.id}",
        "meta": {"source": source},
        "type": _EXPORT if row.act == "audit:export" else _TYPES.get(noun, _ACTIVITY),
        "subtype": [{"system": ACT_SYSTEM, "code": row.act}],
        "action": _ACTIONS.get(verb, "E"),
        "recorded": rfc3339(row.occurred_at),
        "outcome": _OUTCOMES.get(row.outcome, "8"),
        "agent": [_agent(row)],
        "source": {
            "site": source,
            "observer": {"identifier": {"system": "urn:ietf:rfc:3986", "value": source}, "display": "Quill"},
            "type": [{"system": f"{_TERMINOLOGY}/security-source-type", "code": "4", "display": "Application Server"}],
        },
        "entity": _entities(row),
    }
    if row.reason:
        document["outcomeDesc"] = row.reason
    return document


def _agent(row: AnyRow) -> Document:
    who: Document = {"display": row.actor_name}
    if row.actor_user_id is not None:
        who["identifier"] = {"system": USER_SYSTEM, "value": str(row.actor_user_id)}
    agent: Document = {"who": who, "name": row.actor_name, "requestor": True}
    if row.source:
        agent["network"] = {"address": row.source, "type": "2" if _is_ip_address(row.source) else "1"}
    return agent


def _is_ip_address(text: str) -> bool:
    try:
        ipaddress.ip_address(text)
    except ValueError:
        return False
    return True


def _entities(row: AnyRow) -> list[Document]:
    entities: list[Document] = []
    if row.patient_id is not None:
        # Refusals keep what was asked for, which need not be an id.
        named = {"identifier": {"system": PATIENT_SYSTEM, "value": row.patient_id}}
        what = {"reference": f"Patient/{row.patient_id}"} if is_fhir_id(row.patient_id) else named
        entities.append(_entity(what, ("1", "Person"), ("1", "Patient")))
    if row.subject:
        what = {"identifier": {"system": SUBJECT_SYSTEM, "value": row.subject}}
        entities.append(_entity(what, ("2", "System Object"), ("4", "Domain Resource")))
    if row.request_id:
        what = {"identifier": {"system": REQUEST_SYSTEM, "value": row.request_id}}
        request = _entity(what, ("2", "System Object"), ("20", "Job"))
        if row.login_id:
            request["detail"] = [{"type": "login", "valueString": row.login_id}]
        entities.append(request)
    return entities


def _entity(what: Document, kind: tuple[str, str], role: tuple[str, str]) -> Document:
    return {
        "what": what,
        "type": {"system": f"{_TERMINOLOGY}/audit-entity-type", "code": kind[0], "display": kind[1]},
        "role": {"system": f"{_TERMINOLOGY}/object-role", "code": role[0], "display": role[1]},
    }
