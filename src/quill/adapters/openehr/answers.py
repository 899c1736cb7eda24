"""What an openEHR server is told of a new EHR, and what its versions must say to be believed.

Source: openEHR Reference Model 1.0.4, ``EHR_STATUS``, ``ORIGINAL_VERSION``, ``REVISION_HISTORY``.
"""

from typing import Any

from quill.adapters.openehr.uids import Uid, parse_uid
from quill.adapters.openehr.wire import refused
from quill.kit.documents import Document, in_order
from quill.kit.ids import CompositionUid
from quill.ports.openehr import FIRST_MEMBERS, StoredComposition
from quill.ports.openehr_composition import parse_date_time, value_at

SUBJECT_NAMESPACE = "fhir"
_DELETED = "523"
"""Change type *deleted*. Source: openEHR Terminology 2.x, group *audit change type*."""

_ONLY_TYPE = {
    "archetype_details": "ARCHETYPED",
    "archetype_id": "ARCHETYPE_ID",
    "template_id": "TEMPLATE_ID",
    "terminology_id": "TERMINOLOGY_ID",
    "defining_code": "CODE_PHRASE",
    "language": "CODE_PHRASE",
    "territory": "CODE_PHRASE",
    "encoding": "CODE_PHRASE",
    "category": "DV_CODED_TEXT",
    "setting": "DV_CODED_TEXT",
    "context": "EVENT_CONTEXT",
    "start_time": "DV_DATE_TIME",
}
"""Attributes whose declared type is the only one they can have, so that ITS-JSON lets ``_type`` be left out."""


def ehr_status(subject_id: str) -> Document:
    """Return the EHR_STATUS of a new EHR: whose it is, and that it may be queried and written to."""
    identifier = {"_type": "GENERIC_ID", "value": subject_id, "scheme": SUBJECT_NAMESPACE}
    reference = {"_type": "PARTY_REF", "id": identifier, "namespace": SUBJECT_NAMESPACE, "type": "PERSON"}
    archetype_id = {"_type": "ARCHETYPE_ID", "value": "openEHR-EHR-EHR_STATUS.generic.v1"}
    return {
        "_type": "EHR_STATUS",
        "name": {"_type": "DV_TEXT", "value": "EHR Status"},
        "archetype_node_id": "openEHR-EHR-EHR_STATUS.generic.v1",
        "archetype_details": {"_type": "ARCHETYPED", "archetype_id": archetype_id, "rm_version": "1.0.4"},
        "subject": {"_type": "PARTY_SELF", "external_ref": reference},
        "is_queryable": True,
        "is_modifiable": True,
    }


def kept_versions(history: list[Any], object_id: str) -> list[Uid]:
    """Return the versions a revision history lists, without those that are deletions."""
    return [_listed(item, object_id) for item in history if not _is_deletion(item)]


def _listed(item: Any, object_id: str) -> Uid:
    return _parsed(value_at(item, ("version_id", "value")), object_id)


def _is_deletion(item: Any) -> bool:
    audits = value_at(item, ("audits",))
    return _deletes(audits[0] if isinstance(audits, list) and audits else None)


def _deletes(audit: object) -> bool:
    return value_at(audit, ("change_type", "defining_code", "code_string")) == _DELETED


def uid_of(version: Document, object_id: str) -> Uid:
    """Return the uid of an ORIGINAL_VERSION, which must be one of this object."""
    return _parsed(value_at(version, ("uid", "value")), object_id)


def _parsed(text: object, object_id: str) -> Uid:
    uid = parse_uid(text) if isinstance(text, str) else None
    if uid is None or uid.version is None or uid.object_id != object_id:
        raise refused("version_uid")
    return uid


def stored_version(ehr_id: str, version: Document) -> StoredComposition | None:
    """Return what an ORIGINAL_VERSION says, ``None`` when it is a deletion; it must be whole, and of a COMPOSITION."""
    document = version.get("data")
    if document is None and _deletes(version.get("commit_audit")):
        return None
    uid = value_at(version, ("uid", "value"))
    parts = parse_uid(str(uid))
    committed_at = parse_date_time(value_at(version, ("commit_audit", "time_committed", "value")))
    if parts is None or parts.version is None or committed_at is None or not isinstance(document, dict):
        raise refused("version")
    if document.get("_type") != "COMPOSITION" or value_at(document, ("uid", "value")) != uid:
        raise refused("version_data")
    whole = in_order(_with_types(document), FIRST_MEMBERS)
    return StoredComposition(CompositionUid(str(uid)), parts.version, ehr_id, committed_at, whole)


def _with_types(value: Any, name: str = "") -> Any:
    """Return a document with the types a server left out because the attribute can have no other."""
    if isinstance(value, list):
        return [_with_types(part, name) for part in value]
    if not isinstance(value, dict):
        return value
    given = {} if "_type" in value or name not in _ONLY_TYPE else {"_type": _ONLY_TYPE[name]}
    return given | {its_name: _with_types(part, its_name) for its_name, part in value.items()}
