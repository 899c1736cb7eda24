"""Decisions and writes about prescriptions."""

import datetime
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, cast

from quill.access import service as access
from quill.access.service import Requirement
from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import FhirRefused, PatientNotFound
from quill.intents import service as intents
from quill.intents.service import Wish
from quill.kit import clock, ids
from quill.kit.ids import PatientId
from quill.kit.paging import BadCursor, Page, PageRequest, cursor_of
from quill.patients import service as patients
from quill.ports.fhir_meta import with_source
from quill.prescriptions import queries
from quill.prescriptions.projection import Order, PrescriptionKind, document_of
from quill.unit import Reader, Unit

KIND = PrescriptionKind()


@dataclass(frozen=True, slots=True)
class Prescribed:
    """A prescription that is stored.

    Attributes:
        prescription_id: the FHIR id of its MedicationRequest.
        prescriber: username of whoever prescribed.
        order: what was prescribed, for whom.
    """

    prescription_id: str
    prescriber: str
    order: Order


async def prescribe(
    unit: Unit, actor: Actor, order: Order, *, idempotency_key: str | None, fingerprint: str
) -> Prescribed:
    """Prescribe a medicine for a patient; the prescriber is whoever is signed in.

    Args:
        unit: the transaction.
        actor: who prescribes; has the competency already.
        order: what, for whom, for how long.
        idempotency_key: the caller's own key; repeated, it answers the first prescription.
        fingerprint: digest of what the caller sent.

    Returns:
        The prescription as stored.

    Raises:
        PatientNotFound: 404, the patient is unknown or none of the actor's.
        PatientDeactivated: 409, the record takes no entries.
        Unavailable: 503 or 502, the store did not take it; nothing was prescribed.
    """
    if not ids.is_fhir_id(order.patient_id):
        raise PatientNotFound
    async with unit.reading() as session:
        await access.check_patient(unit, session, actor, order.patient_id, Requirement())
    earlier = await intents.find_result(unit, actor, idempotency_key, fingerprint)
    if earlier is not None:
        return await _stored(unit, earlier["prescription_id"])
    await patients.check_takes_entries(unit, order.patient_id)
    prescription_id = ids.new_uuid()
    document = with_source(document_of(prescription_id, actor, order, clock.now()), unit.settings.source_uri)
    claims = [f"prescription:{prescription_id}"]
    wish = Wish(KIND, {"document": document}, claims, idempotency_key=idempotency_key, fingerprint=fingerprint)
    result = await intents.perform(unit, actor, wish)
    return await _stored(unit, result["prescription_id"])


async def list_of_patient(reader: Reader, actor: Actor, patient_id: PatientId, page: PageRequest) -> Page[Any]:
    """Return a page of a patient's prescriptions, newest first.

    Raises:
        PatientNotFound: 404, Quill knows no such patient.
        BadCursor: 422, the cursor is not this list's.
    """
    await patients.check_known(reader, patient_id)
    after = _after(page)
    rows = await queries.page_of_patient(reader.session, patient_id, after, page.limit)
    audit.record(reader, actor, Act.PRESCRIPTION_LIST, patient_id=patient_id)
    shown: Sequence[Any] = rows[: page.limit]
    has_more = len(rows) > page.limit
    return Page(shown, cursor_of(clock.rfc3339(shown[-1].prescribed_at), shown[-1].id) if has_more else None)


def _after(page: PageRequest) -> tuple[datetime.datetime, str] | None:
    key = cast("tuple[str, str] | None", page.after(str, str))
    if key is None:
        return None
    try:
        instant = datetime.datetime.fromisoformat(key[0])
    except ValueError as error:
        raise BadCursor("The cursor belongs to another list.") from error
    if instant.tzinfo is None:
        raise BadCursor("The cursor belongs to another list.")
    return instant, key[1]


async def _stored(unit: Unit, prescription_id: str) -> Prescribed:
    row = await queries.find(unit.session, prescription_id)
    if row is None:
        raise FhirRefused("The prescription was stored and is not in the list")
    order = Order(PatientId(row.patient_id), row.medication, row.dose, row.duration_days)
    return Prescribed(prescription_id, row.prescriber, order)
