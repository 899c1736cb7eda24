"""Writing, amending and reading letters."""

import re
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import LetterNotFound, PatientDeactivated, PreconditionRequired, QuillError, Unprocessable
from quill.intents import service as intents
from quill.intents.service import Wish
from quill.kit import clock, ids
from quill.kit.documents import Document
from quill.kit.ids import CompositionUid, PatientId
from quill.kit.paging import PageRequest
from quill.letters import composition
from quill.letters.composition import TEMPLATE_ID, LetterContent
from quill.letters.kind import LetterKind, is_letter, object_id_of
from quill.patients import service as patients
from quill.ports.openehr import CompositionPage, StoredComposition, Subject
from quill.unit import Reader, RequestFacts, Services, Unit, open_unit

KIND = LetterKind()

# An object id (a UUID), or a version uid of it; anything else no store is asked for.
_UID = re.compile(r"[0-9A-Fa-f]{8}(-[0-9A-Fa-f]{4}){3}-[0-9A-Fa-f]{12}(::[A-Za-z0-9.\-_]{1,128}::[1-9][0-9]{0,8})?")


@dataclass(frozen=True, slots=True)
class LetterDraft:
    """What a letter is to say; ``body`` is Markdown and kept byte for byte."""

    title: str
    body: str


@dataclass(frozen=True, slots=True)
class LetterPath:
    """Which letter of which patient; ``uid`` is an object id or a version uid, as the caller gave it."""

    patient_id: PatientId
    uid: str


@dataclass(frozen=True, slots=True)
class Letter:
    """One version of a letter: as it is stored, and what it says."""

    stored: StoredComposition
    content: LetterContent


def check_author(actor: Actor, *, name: str | None, email: str | None) -> None:
    """Refuse an author who is not the person signed in; saying nothing is right too.

    Raises:
        Unprocessable: 422, naming the field.
    """
    own_names = {actor.display_name.casefold(), actor.name.casefold()}
    if name is not None and name.casefold() not in own_names:
        raise Unprocessable.at("author_name", "The author is the person signed in", kind="not_the_author")
    if email is not None and email.casefold() != actor.email.casefold():
        raise Unprocessable.at("author_email", "The author is the person signed in", kind="not_the_author")


async def write_letter(
    unit: Unit, actor: Actor, patient_id: PatientId, draft: LetterDraft, idempotency_key: str | None = None
) -> Document:
    """Write a letter about a patient; its author is the actor.

    Returns:
        ``composition_uid``, ``version`` and ``created_at`` (RFC 3339).

    Raises:
        PatientNotFound: 404, there is no such patient.
        PatientDeactivated: 409, the record takes no new entries.
        OpenEhrUnavailable: 503, the store did not answer.
    """
    document_id = ids.new_uuid()
    payload = _payload(actor, patient_id, draft, document_id, replaces=0)
    digest = intents.fingerprint("write_letter", patient_id, draft.title, draft.body)
    return await _perform(unit, actor, Wish(KIND, payload, idempotency_key=idempotency_key, fingerprint=digest))


async def amend_letter(
    unit: Unit,
    actor: Actor,
    path: LetterPath,
    draft: LetterDraft,
    *,
    replaces: int | None,
    idempotency_key: str | None = None,
) -> Document:
    """Write the next version of a letter; the versions before it stay readable.

    The letter keeps the time it was first written at; the author of this version is the actor.

    Args:
        unit: the transaction.
        actor: who amends it.
        path: the letter, by object id or by the uid of any of its versions.
        draft: what it is to say.
        replaces: the number of the version the actor has read.
        idempotency_key: the caller's own key.

    Returns:
        ``composition_uid``, ``version`` and ``created_at`` (RFC 3339) of the new version.

    Raises:
        PreconditionRequired: 428, ``replaces`` is missing.
        StaleEdit: 412, it is not the newest version.
        LetterNotFound: 404, the patient has no such letter.
        PatientNotFound: 404, there is no such patient.
        PatientDeactivated: 409, the record takes no new entries.
        OpenEhrUnavailable: 503, the store did not answer.
    """
    if replaces is None:
        raise PreconditionRequired
    with _noting_refusals(unit, actor, Act.LETTER_AMEND, path.patient_id, path.uid):
        object_id = object_id_of(_checked_uid(path.uid))
    payload = _payload(actor, path.patient_id, draft, object_id, replaces=replaces)
    digest = intents.fingerprint("amend_letter", path.patient_id, object_id, replaces, draft.title, draft.body)
    return await _perform(unit, actor, Wish(KIND, payload, idempotency_key=idempotency_key, fingerprint=digest))


async def list_letters(reader: Reader, actor: Actor, patient_id: PatientId, page: PageRequest) -> CompositionPage:
    """Return a patient's letters, newest first; empty when there are none, and only then.

    Raises:
        PatientNotFound: 404, there is no such patient.
        InvalidCursor: 422, the cursor is not this list's.
        OpenEhrUnavailable: 503, the store did not answer.
    """
    with _noting_refusals(reader, actor, Act.LETTER_LIST, patient_id):
        found = await reader.openehr.list_compositions(
            Subject(patient_id), TEMPLATE_ID, limit=page.limit, cursor=page.cursor
        )
        if not found.summaries:
            # Only now does it matter whether there is such a patient: who has letters is one.
            await _check_known(reader, patient_id)
    audit.record(reader, actor, Act.LETTER_LIST, patient_id=patient_id)
    return found


async def read_letter(reader: Reader, actor: Actor, path: LetterPath) -> Letter:
    """Return one version of a letter by version uid, or the newest one by object id.

    Raises:
        LetterNotFound: 404, the patient has no such letter.
        OpenEhrUnavailable: 503, the store did not answer.
        OpenEhrRefused: 502, what it answered is no letter.
    """
    with _noting_refusals(reader, actor, Act.LETTER_READ, path.patient_id, path.uid):
        stored = await reader.openehr.find(Subject(path.patient_id), _checked_uid(path.uid))
        if stored is None or not is_letter(stored):
            raise LetterNotFound
        letter = _letter(stored)
    audit.record(reader, actor, Act.LETTER_READ, patient_id=path.patient_id, subject=f"letter:{stored.uid}")
    return letter


async def list_letter_versions(reader: Reader, actor: Actor, path: LetterPath) -> list[Letter]:
    """Return every version of a letter, newest first.

    Raises:
        LetterNotFound: 404, the patient has no such letter.
        OpenEhrUnavailable: 503, the store did not answer.
        OpenEhrRefused: 502, what it answered is no letter.
    """
    with _noting_refusals(reader, actor, Act.LETTER_READ, path.patient_id, path.uid):
        wanted = _checked_uid(path.uid)
        versions = await reader.openehr.versions(Subject(path.patient_id), wanted)
        letters = [_letter(stored) for stored in versions if is_letter(stored)]
        if not letters:
            raise LetterNotFound
    audit.record(reader, actor, Act.LETTER_READ, patient_id=path.patient_id, subject=f"letter:{object_id_of(wanted)}")
    return letters


async def ensure_template(services: Services) -> None:
    """Make sure the openEHR store knows the template of letters; harmless when it does.

    Raises:
        OpenEhrUnavailable: 503, the store did not answer; try again later.
        OpenEhrRefused: 502, it answered wrongly.
    """
    async with open_unit(services, RequestFacts(request_id="start-up", source="start-up")) as unit:
        await unit.openehr.ensure_template(TEMPLATE_ID, composition.operational_template())


async def _perform(unit: Unit, actor: Actor, wish: Wish) -> Document:
    payload = wish.payload
    patient_id = PatientId(payload["patient_id"])
    subject = payload["object_id"] if payload["replaces"] else None
    with _noting_refusals(unit, actor, Act(payload["act"]), patient_id, subject):
        result = await intents.find_result(unit, actor, wish.idempotency_key, wish.fingerprint)
        if result is not None:
            return result
        await patients.check_takes_entries(unit, patient_id)
        return await intents.perform(unit, actor, wish)


def _payload(actor: Actor, patient_id: PatientId, draft: LetterDraft, object_id: str, *, replaces: int) -> Document:
    document = composition.compose_letter(
        object_id=None if replaces else object_id,
        title=draft.title,
        body=draft.body,
        author_id=actor.person_id,
        author_name=actor.display_name,
        started_at=clock.now(),
    )
    act = Act.LETTER_AMEND if replaces else Act.LETTER_WRITE
    return {
        "patient_id": patient_id,
        "object_id": object_id,
        "replaces": replaces,
        "document": document,
        "act": act.value,
    }


def _letter(stored: StoredComposition) -> Letter:
    return Letter(stored, composition.read_letter(stored.document))


def _checked_uid(uid: str) -> CompositionUid:
    if _UID.fullmatch(uid) is None:
        raise LetterNotFound
    return CompositionUid(uid)


async def _check_known(reader: Reader, patient_id: PatientId) -> None:
    # A deactivated record takes no new letters; those that are there stay readable.
    with suppress(PatientDeactivated):
        await patients.check_takes_entries(reader, patient_id)


@contextmanager
def _noting_refusals(
    reader: Reader, actor: Actor, act: Act, patient_id: PatientId, uid: str | None = None
) -> Iterator[None]:
    """Leave in the audit trail what was refused, and what did not come about because the store did not answer."""
    try:
        yield
    except QuillError as error:
        note = audit.record_failure if error.status >= 500 else audit.record_refusal
        subject = f"letter:{uid}" if uid is not None and _UID.fullmatch(uid) else None
        note(reader, actor, act, reason=error.code, patient_id=patient_id, subject=subject)
        raise
