"""The lists of prescriptions against the FHIR store, which counts."""

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.intents.comparing import Comparison, every_resource
from quill.kit import ids
from quill.ports.fhir import StoredResource
from quill.prescriptions import queries
from quill.prescriptions.models import Prescription
from quill.prescriptions.projection import row_of
from quill.unit import RequestFacts, Services, open_unit


async def reconcile(services: Services, *, mends: bool) -> Comparison:
    """Compare every prescription Quill wrote with the lists; orders of other programs are no business of ours.

    Args:
        services: what the program runs on.
        mends: whether what the lists lack is projected.

    Raises:
        Unavailable: 503 or 502, the store does not answer; what was mended so far is.
    """
    found = Comparison("prescriptions")
    seen: set[str] = set()
    async for page in every_resource(services, "MedicationRequest"):
        ours = [(stored, row) for stored in page if (row := _row_or_none(stored)) is not None]
        found.in_store += len(ours)
        seen.update(stored.id for stored, _ in ours)
        async with services.database.reading() as session:
            known = await queries.known_versions(session, [stored.id for stored, _ in ours])
        for stored, row in ours:
            version = known.get(stored.id)
            if version is not None and version >= stored.version:
                continue
            (found.unlisted if version is None else found.outdated).append(stored.id)
            if mends:
                await _mend(services, row, found, is_new=version is None)
    async with services.database.reading() as session:
        found.lost = [
            prescription_id for prescription_id in await queries.all_ids(session) if prescription_id not in seen
        ]
    return found


def _row_or_none(stored: StoredResource) -> dict[str, object] | None:
    try:
        return row_of(stored)
    except (LookupError, TypeError, ValueError):
        return None


async def _mend(services: Services, row: dict[str, object], found: Comparison, *, is_new: bool) -> None:
    prescription_id = str(row["id"])
    statement = (
        sa.insert(Prescription).values(**row)
        if is_new
        else sa.update(Prescription).where(Prescription.id == prescription_id).values(**row)
    )
    try:
        async with open_unit(services, RequestFacts(f"reconcile-{ids.new_uuid()}", "reconcile")) as unit:
            await unit.session.execute(statement)
            subject = f"prescription:{prescription_id}"
            audit.record(unit, Actor.job("reconcile"), Act.STORES_RECONCILE, subject=subject)
    except IntegrityError:
        # Its patient is not listed, or its prescriber has no account here.
        found.unmendable.append(prescription_id)
    else:
        found.mended += 1
