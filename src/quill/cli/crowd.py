"""A demo clinic of any size: what ``demo`` makes one by one, brought in at once.

Nobody is notified, and everything was said in the past. Numbers of records are exact; the same size gives the same
clinic but for ids and the day it is made.
"""

import datetime
import itertools
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass

from quill.cli import invented
from quill.cli.console import open_job
from quill.conversations import service as conversations
from quill.conversations.service import PastConversation, PastMessage
from quill.kit import clock
from quill.kit.documents import Document
from quill.kit.ids import OrganisationId, PatientId, UserId
from quill.patients import filling
from quill.ports.fhir_meta import with_source
from quill.unit import Services

PATIENTS_AT_ONCE = 1000
MESSAGES_AT_ONCE = 2000
"""Records to a transaction: large enough to be quick, small enough that an interruption loses little."""

ADVANCE = datetime.timedelta(minutes=7)
"""From one invented message of a conversation to the next."""
DAYS = 365
"""Over how many days the conversations are spread."""

Advance = Callable[[int], None]


@dataclass(frozen=True, slots=True)
class Talkers:
    """Who talks about whom: two people in turn, in one organisation's conversations about its patients.

    ``listeners`` take part and say nothing.
    """

    organisation_id: OrganisationId
    first: UserId
    second: UserId
    patient_ids: Sequence[PatientId]
    listeners: Sequence[UserId] = ()


async def add_patients(
    services: Services, documents: Iterator[Document], place_of: Callable[[int], OrganisationId], advance: Advance
) -> list[PatientId]:
    """Add patients, each cared for by the organisation `place_of` gives for its position; returns their ids."""
    made: list[PatientId] = []
    source = services.settings.source_uri
    while batch := list(itertools.islice(documents, PATIENTS_AT_ONCE)):
        by_place: dict[OrganisationId, list[Document]] = {}
        for position, document in enumerate(batch, start=len(made)):
            by_place.setdefault(place_of(position), []).append(with_source(document, source))
        async with open_job(services, "demo") as (unit, actor):
            for organisation_id, members in by_place.items():
                await filling.add_many(unit, actor, members, organisation_id=organisation_id)
        made += [PatientId(document["id"]) for document in batch]
        advance(len(batch))
    return made


async def add_conversations(
    services: Services, talkers: Talkers, lengths: Sequence[int], advance: Advance
) -> list[int]:
    """Add conversations of so many messages each; returns their numbers. ``advance`` is told of messages."""
    made: list[int] = []
    now = clock.now()
    for batch in _batches(lengths):
        async with open_job(services, "demo") as (unit, actor):
            past = [
                _past(talkers, position, length, _begun(now, position, len(lengths), length))
                for position, length in enumerate(batch, start=len(made))
            ]
            made += await conversations.import_conversations(unit, actor, past)
        advance(sum(batch))
    return made


def shares(whole: int, parts: int) -> list[int]:
    """Return a number parted as evenly as can be, each part one at least."""
    return [max(1, whole // parts + (position < whole % parts)) for position in range(parts)]


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    batch: list[int] = []
    for length in lengths:
        batch.append(length)
        if sum(batch) >= MESSAGES_AT_ONCE:
            yield batch
            batch = []
    if batch:
        yield batch


def _begun(now: datetime.datetime, position: int, count: int, length: int) -> datetime.datetime:
    """Return when a conversation began: the later ones more lately, all of them over by now."""
    return now - datetime.timedelta(days=DAYS) * ((count - position) / count) - length * ADVANCE


def _past(talkers: Talkers, position: int, length: int, begun: datetime.datetime) -> PastConversation:
    senders = (talkers.first, talkers.second)
    return PastConversation(
        patient_id=talkers.patient_ids[position % len(talkers.patient_ids)],
        subject=invented.subject(position),
        organisation_ids=[talkers.organisation_id],
        participant_ids=(*senders, *talkers.listeners),
        messages=[
            PastMessage(senders[number % 2], begun + number * ADVANCE, invented.message(position + number))
            for number in range(length)
        ],
    )
