"""The patient list against the FHIR store, which counts: what is missing from the list, and what the store has lost."""

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import QuillError, Unavailable
from quill.intents.comparing import Comparison, every_resource
from quill.kit import ids
from quill.kit.ids import PatientId
from quill.patients import queries
from quill.patients.projection import project_patient
from quill.ports.fhir import StoredResource
from quill.unit import RequestFacts, Services, open_unit


async def reconcile(services: Services, *, mends: bool) -> Comparison:
    """Compare every patient of the store with the list.

    Args:
        services: what the program runs on.
        mends: whether what the list lacks is projected.

    Raises:
        Unavailable: 503 or 502, the store does not answer; what was mended so far is.
    """
    found = Comparison("patients")
    seen: set[str] = set()
    async for page in every_resource(services, "Patient"):
        found.in_store += len(page)
        seen.update(stored.id for stored in page)
        async with services.database.reading() as session:
            known = await queries.known_versions(session, [stored.id for stored in page])
        for stored in page:
            version = known.get(stored.id)
            if version is not None and version >= stored.version:
                continue
            (found.unlisted if version is None else found.outdated).append(stored.id)
            if mends:
                await _mend(services, stored, found)
    async with services.database.reading() as session:
        found.lost = [patient_id for patient_id in await queries.active_ids(session) if patient_id not in seen]
    return found


async def _mend(services: Services, stored: StoredResource, found: Comparison) -> None:
    try:
        async with open_unit(services, RequestFacts(f"reconcile-{ids.new_uuid()}", "reconcile")) as unit:
            await project_patient(unit, stored)
            actor = Actor.job("reconcile")
            audit.record(unit, actor, Act.STORES_RECONCILE, patient_id=PatientId(stored.id), subject="patient")
    except Unavailable:
        raise
    except (QuillError, LookupError, TypeError, ValueError):
        found.unmendable.append(stored.id)
    else:
        found.mended += 1
