"""Patients changed elsewhere: whoever edits them straight in the FHIR server is seen in our list within seconds.

One process at a time follows the server's changes from a position kept in the database. A position moves on only once
what came before it is projected, and projecting a version twice changes nothing, so a crash loses nothing.
"""

import asyncio
import datetime

import structlog

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import QuillError, Unavailable
from quill.kit import clock, ids
from quill.kit.ids import PatientId
from quill.kit.logs import where
from quill.kit.turns import finish_turn
from quill.patients import queries
from quill.patients.projection import project_patient
from quill.ports.fhir import ChangePage, StoredResource
from quill.unit import RequestFacts, Services, Unit, open_unit

FOLLOW_SECONDS = 2.0
"""How often the server is asked; a change shows after this and the time of one question."""
LEASE = datetime.timedelta(seconds=60)
"""Longer than a turn may take with its deadlines, so a live follower is not taken for dead."""
PAGE = 200

log = structlog.get_logger()


async def follow_for_ever(services: Services) -> None:
    """Follow until cancelled; a server or database that is away is waited out."""
    while True:
        try:
            await finish_turn(follow(services))
        except Unavailable as error:
            log.warning("patients_not_followed", reason=error.code)
        except Exception as error:  # noqa: BLE001 - the database may be away for a while; following outlives that
            log.warning("patients_not_followed", cause=where(error))
        await asyncio.sleep(FOLLOW_SECONDS)


async def follow(services: Services) -> int:
    """Bring the list up to date with what changed in the FHIR server since the last time.

    Returns:
        How many patients' rows were brought up to date; 0 too when another process is at it.

    Raises:
        Unavailable: 503 or 502, the server does not answer; the position stays where it was.
    """
    owner = ids.new_uuid()
    count = 0
    while (position := await _take(services, owner)) is not None:
        page = await _read(services, position.since)
        count += await _project(services, page)
        has_more = page.has_more and page.position != position.since
        await _keep(services, owner, page.position, is_done=not has_more)
        if not has_more:
            break
    return count


async def _take(services: Services, owner: str) -> queries.FollowPosition | None:
    """Take the position under a lease; ``None`` while another process has it."""
    now = clock.now()
    async with services.database.writing() as session:
        await queries.insert_follow_position(session)
        return await queries.take_follow_position(session, owner, now, now + LEASE)


async def _keep(services: Services, owner: str, position: str | None, *, is_done: bool) -> None:
    async with services.database.writing() as session:
        lease_until = clock.now() + LEASE if not is_done else None
        await session.execute(queries.keep_follow_position(owner, position, lease_until))


async def _read(services: Services, since: str | None) -> ChangePage:
    async with services.database.reading() as session:
        return await services.fhir_for(session).changes("Patient", since, limit=PAGE)


async def _project(services: Services, page: ChangePage) -> int:
    """Project the changes that the list does not have yet, each in a transaction of its own."""
    async with services.database.reading() as session:
        known = await queries.known_versions(session, [stored.id for stored in page.resources])
    newer = [stored for stored in page.resources if known.get(stored.id, 0) < stored.version]
    count = 0
    for stored in newer:
        try:
            async with open_unit(services, RequestFacts(f"follow-{ids.new_uuid()}", "follow")) as unit:
                count += await _project_one(unit, stored)
        except Unavailable:
            raise
        except (QuillError, LookupError, TypeError, ValueError) as error:
            # A record that nobody checked must not keep those after it out of the list; `quill reconcile` names it.
            log.warning("patient_not_followed", patient=stored.id, cause=where(error))
    return count


async def _project_one(unit: Unit, stored: StoredResource) -> bool:
    """Project a change made elsewhere, and note it; a deletion takes the patient out of the lists."""
    patient_id = PatientId(stored.id)
    if stored.is_deleted:
        if await unit.session.scalar(queries.mark_deleted(patient_id, stored.version)) is None:
            return False
    else:
        await project_patient(unit, stored)
    audit.record(unit, Actor.job("follow"), Act.PATIENT_FOLLOW, patient_id=patient_id)
    return True
