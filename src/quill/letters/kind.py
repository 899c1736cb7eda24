"""What an intent of kind ``letter`` does: commits a composition, once, and finds it again when the answer was lost.

Source: openEHR REST API 1.0.2, EHR, COMPOSITION; openEHR Reference Model 1.0.4, *change_control*.
"""

from typing import Any

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import InvalidRecord, LetterNotFound, OpenEhrRefused, StaleEdit
from quill.kit import clock
from quill.kit.documents import Document
from quill.kit.ids import CompositionUid, PatientId
from quill.letters.composition import TEMPLATE_ID, operational_template, read_letter
from quill.ports.openehr import OpenEhrStore, StoredComposition, Subject
from quill.unit import Unit


def object_id_of(uid: str) -> str:
    """Return the object id a version uid begins with; an object id is its own."""
    return uid.partition("::")[0].lower()


def is_letter(stored: StoredComposition) -> bool:
    """Tell whether a composition is a letter; a health record may hold other documents too."""
    details = stored.document.get("archetype_details")
    template = details.get("template_id") if isinstance(details, dict) else None
    return isinstance(template, dict) and template.get("value") == TEMPLATE_ID


class LetterKind:
    """What writing and projecting mean for a letter.

    The payload holds ``patient_id``; ``object_id`` of the letter, minted for a new one; ``replaces``, the number of the
    version that is amended, 0 for a new letter; the ``document``; and the ``act`` for the audit trail. Letters are read
    from their store, so there is nothing to project.
    """

    name = "letter"

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the openEHR store shares the unit's transaction."""
        return unit.openehr.joins_transaction

    async def write(self, unit: Unit, payload: Document) -> Document:
        """Commit the letter or the next version of it.

        Raises:
            LetterNotFound: 404, the patient has no such letter.
            StaleEdit: 412, the version that is amended is not the newest.
            OpenEhrRefused: 502, the store does not take what is valid.
        """
        store, document = unit.openehr, payload["document"]
        if payload["replaces"] == 0:
            ehr_id = await store.ensure_ehr(payload["patient_id"])
            return _facts(await _commit(store, ehr_id, document, None))
        newest = await _find_newest(store, payload)
        if newest is None or not is_letter(newest):
            raise LetterNotFound
        if newest.version != payload["replaces"]:
            raise StaleEdit
        # A letter is of the day it was written on, however often it is amended.
        context = document["context"] | {"start_time": newest.document["context"]["start_time"]}
        return _facts(await _commit(store, newest.ehr_id, document | {"context": context}, newest.uid))

    async def has_landed(self, unit: Unit, payload: Document) -> Document | bool:
        """Return what the store holds of this write, or ``False`` when it holds nothing of it."""
        version = payload["replaces"] + 1
        found = await _find_newest(unit.openehr, payload)
        if found is not None and found.version > version:
            system_id = found.uid.split("::")[1]
            uid = CompositionUid(f"{payload['object_id']}::{system_id}::{version}")
            found = await unit.openehr.find(found.ehr_id, uid)
        if found is None or found.version != version:
            return False
        return _facts(found) if _wording(found.document) == _wording(payload["document"]) else False

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Note who wrote or amended the letter; returns its version uid, version and time."""
        written: Document = payload["written"]
        subject = f"letter:{written['composition_uid']}"
        audit.record(unit, actor, Act(payload["act"]), patient_id=PatientId(payload["patient_id"]), subject=subject)
        return written


async def _find_newest(store: OpenEhrStore, payload: Document) -> StoredComposition | None:
    return await store.find(Subject(payload["patient_id"]), CompositionUid(payload["object_id"]))


async def _commit(
    store: OpenEhrStore, ehr_id: str, document: Document, replacing: CompositionUid | None
) -> StoredComposition:
    try:
        return await store.write(ehr_id, document, replacing=replacing)
    except InvalidRecord:
        # The document is ours and whole, so what is missing is the store's: it does not know our template (yet).
        await store.ensure_template(TEMPLATE_ID, operational_template())
    try:
        return await store.write(ehr_id, document, replacing=replacing)
    except InvalidRecord as error:
        raise OpenEhrRefused from error


def _facts(stored: StoredComposition) -> Document:
    created_at = read_letter(stored.document).created_at
    return {"composition_uid": stored.uid, "version": stored.version, "created_at": clock.rfc3339(created_at)}


def _wording(document: Document) -> tuple[Any, ...]:
    content = read_letter(document)
    return content.title, content.body, content.author_id
