"""A demo clinic with people to sign in as: fills an empty database, once, through the services."""

import itertools
import json
import os
import secrets
import time
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import typer
from rich.progress import Progress

from quill.actor import Actor, Level
from quill.app import start_stores
from quill.auth.passwords import Passwords
from quill.cli import crowd, invented
from quill.cli.console import fail, open_job, open_services, read_settings, run
from quill.conversations import service as conversations
from quill.conversations.schemas import ConversationIn
from quill.identity import service as identity
from quill.identity.service import NewPerson
from quill.kit.documents import Document
from quill.kit.ids import ConversationId, OrganisationId, PatientId, UserId
from quill.letters import service as letters
from quill.letters.service import LetterDraft
from quill.organisations import service as organisations
from quill.patients import service as patients
from quill.ports.fhir_meta import with_source
from quill.settings import Settings
from quill.unit import RequestFacts, Services, Unit, open_unit

BATCH = 200
"""Records to a transaction: large enough to be quick, small enough that an interruption loses little."""

EVERYDAY = 500
"""Up to so many records of each kind a clinic is filled one by one; more are brought in at once."""

RIVERSIDE, NORTHFIELD = "Riverside Surgery", "Northfield Clinic"


Track = Callable[[str, int], Callable[[int], None]]
"""Begins a line of progress, of a label and a total, and returns what moves it on."""


@dataclass(frozen=True, slots=True)
class Account:
    """Somebody who can sign in to the demo clinic."""

    username: str
    password: str
    permission: str
    profession: str
    roles: tuple[str, ...]
    organisation: str | None


@dataclass(frozen=True, slots=True)
class Size:
    """How much a demo clinic holds."""

    patients: int = 12
    conversations: int = 4
    messages: int = 16

    @property
    def is_everyday(self) -> bool:
        """Tell whether the clinic is made one by one, as people would: unread messages, notices and all."""
        return max(self.patients, self.conversations, self.messages) <= EVERYDAY


PEOPLE = (
    ("dr.osei", "Ama Osei", Level.STAFF, "general_practitioner", ("Clinician",), RIVERSIDE),
    ("nurse.ali", "Yusuf Ali", Level.STAFF, "registered_nurse", ("Clinical Support Staff",), RIVERSIDE),
    ("pat.jones", "Pat Jones", Level.PATIENT, "patient", ("Patient",), None),
    ("manager.reed", "Sam Reed", Level.ADMIN, "clinic_manager", ("Clinical Administrator",), RIVERSIDE),
    ("root.admin", "Robin Root", Level.SUPERADMIN, "system_administrator", ("System Administrator",), None),
    ("dr.north", "Noor North", Level.STAFF, "consultant", ("Clinician",), NORTHFIELD),
)


def fill(size: Size, *, as_json: bool) -> None:
    """Fill an empty database and print who can sign in.

    Raises:
        Exit: 1, the database is not empty, or this is production.
    """
    settings = read_settings()
    if settings.is_production:
        raise fail("A demo clinic has known people in it; it is for development only.")
    began = time.monotonic()

    async def work() -> list[Account]:
        async with open_services(settings) as services:
            if not await _is_empty(services):
                raise fail("The database is not empty; a demo clinic goes into an empty one only.")
            return await _fill(services, size, is_quiet=as_json)

    accounts = run(work)
    seconds = round(time.monotonic() - began, 1)
    if as_json:
        typer.echo(json.dumps({"accounts": [asdict(a) for a in accounts], "size": asdict(size), "seconds": seconds}))
        return
    typer.echo(f"Filled in {seconds} s: {size.patients} patients, {size.conversations} conversations.")
    for line in describe(accounts):
        typer.echo(line)


def ensure_clinic(settings: Settings) -> list[Account]:
    """Fill the database if it is empty, and return who can sign in to its demo clinic."""

    async def work() -> list[Account]:
        async with open_services(settings) as services:
            if await _is_empty(services):
                return await _fill(services, Size(), is_quiet=True)
            return _kept(settings)

    return run(work)


def describe(accounts: Sequence[Account]) -> list[str]:
    """Return who can sign in, a line each."""
    if not accounts:
        return ["Whoever has an account here can sign in; this is not a demo clinic."]
    lines = ["Who can sign in:"]
    for account in accounts:
        place = f" at {account.organisation}" if account.organisation else ""
        lines.append(f"  {account.username:<13} {account.password}  {account.permission}, {account.profession}{place}")
    return lines


def accounts_file(settings: Settings) -> Path:
    """Return where the demo's accounts are kept, readable by their owner alone."""
    return settings.data_dir / "demo-accounts.json"


async def _is_empty(services: Services) -> bool:
    async with services.database.reading() as session:
        return not await identity.is_anybody_there(session)


async def _fill(services: Services, size: Size, *, is_quiet: bool) -> list[Account]:
    await start_stores(services)
    password = secrets.token_urlsafe(9)
    people = await _make_people(services, password)
    with Progress(disable=is_quiet) as progress:

        def track(label: str, total: int) -> Callable[[int], None]:
            task = progress.add_task(label, total=total)
            return lambda count: progress.advance(task, count)

        if not size.is_everyday and await _is_embedded(services):
            await _crowd(services, people, size, track)
            return _accounts(services, password)
        patient_ids = await _make_patients(services, people, size.patients, track("Patients", size.patients))
        await _write_letters(services, people, patient_ids[:3])
        talks = await _begin(services, people, patient_ids, size, track("Conversations", size.conversations))
        rest = max(0, size.messages - len(talks))
        await _talk(services, people, talks, rest, track("Messages", rest))
    return _accounts(services, password)


def _accounts(services: Services, password: str) -> list[Account]:
    """Return who can sign in, and keep it for the next start."""
    accounts = [
        Account(username, password, level.value, profession, roles, place)
        for username, _, level, profession, roles, place in PEOPLE
    ]
    _keep(services.settings, accounts)
    return accounts


async def _make_people(services: Services, password: str) -> dict[str, int]:
    password_hash = await Passwords(services.settings).hash(password)
    made: dict[str, int] = {}
    async with open_job(services, "demo") as (unit, actor):
        places = {
            name: (await organisations.create(unit, actor, name=name, type=kind, location=town)).id
            for name, kind, town in ((RIVERSIDE, "gp_practice", "Cardiff"), (NORTHFIELD, "private_clinic", "Leeds"))
        }
        made |= places
        for username, full_name, level, profession, roles, place in PEOPLE:
            person = NewPerson(
                username=username,
                email=f"{username}@example.org",
                password_hash=password_hash,
                full_name=full_name,
                level=level,
                profession=profession,
                roles=roles,
            )
            made[username] = await identity.create_person(unit, actor, person)
            if place is not None:
                await identity.add_staff_membership(unit, OrganisationId(places[place]), UserId(made[username]))
    return made


async def _make_patients(
    services: Services, people: dict[str, int], count: int, advance: Callable[[int], None]
) -> list[PatientId]:
    made: list[PatientId] = []
    documents = _documents(count)
    while batch := list(itertools.islice(documents, BATCH)):
        async with open_job(services, "demo") as (unit, actor):
            for document in batch:
                made.append(
                    await patients.create(
                        unit,
                        actor,
                        with_source(document, services.settings.source_uri),
                        organisation_id=_place_of(people, len(made)),
                    )
                )
        advance(len(batch))
    await _link_pat(services, people, made)
    return made


def _documents(count: int) -> Iterator[Document]:
    """Yield the clinic's patients; the first of them has an account."""
    for index, document in enumerate(invented.patients(count)):
        pat = {"name": [{"use": "official", "family": "Jones", "given": ["Pat"], "prefix": ["Mx"]}]}
        yield document | pat if index == 0 else document


def _place_of(people: dict[str, int], index: int) -> OrganisationId:
    # One in six is cared for elsewhere, so that there is somebody the other practice's staff cannot see.
    return OrganisationId(people[NORTHFIELD if index % 6 == 5 else RIVERSIDE])


async def _link_pat(services: Services, people: dict[str, int], made: Sequence[PatientId]) -> None:
    if made:
        async with open_job(services, "demo") as (unit, actor):
            await identity.link_patient(unit, actor, UserId(people["pat.jones"]), made[0])


async def _is_embedded(services: Services) -> bool:
    """Tell whether clinical records share our transactions; to a server elsewhere they go one by one."""
    async with services.database.reading() as session:
        return services.fhir_for(session).joins_transaction


async def _crowd(services: Services, people: dict[str, int], size: Size, track: Track) -> None:
    """Bring in a large clinic."""
    made = await crowd.add_patients(
        services, _documents(size.patients), lambda index: _place_of(people, index), track("Patients", size.patients)
    )
    await _link_pat(services, people, made)
    await _write_letters(services, people, made[:3])
    ours = [patient_id for index, patient_id in enumerate(made) if index % 6 != 5]
    if ours and size.conversations:
        lengths = crowd.shares(size.messages, size.conversations)
        talkers = crowd.Talkers(
            OrganisationId(people[RIVERSIDE]), UserId(people["dr.osei"]), UserId(people["nurse.ali"]), ours
        )
        await crowd.add_conversations(services, talkers, lengths, track("Messages", sum(lengths)))


async def _write_letters(services: Services, people: dict[str, int], patient_ids: Sequence[PatientId]) -> None:
    for index, patient_id in enumerate(patient_ids):
        async with _open_as(services, people["dr.osei"]) as (unit, actor):
            body = f"Dear colleague,\n\n{invented.message(index + 1)}\n\nYours sincerely\n\nDr Ama Osei"
            await letters.write_letter(unit, actor, patient_id, LetterDraft(title=invented.subject(index), body=body))


async def _begin(
    services: Services,
    people: dict[str, int],
    patient_ids: Sequence[PatientId],
    size: Size,
    advance: Callable[[int], None],
) -> list[ConversationId]:
    begun: list[ConversationId] = []
    ours = [patient_id for index, patient_id in enumerate(patient_ids) if index % 6 != 5]
    while ours and len(begun) < size.conversations:
        async with _open_as(services, people["dr.osei"]) as (unit, actor):
            batch = range(len(begun), min(len(begun) + BATCH, size.conversations))
            for index in batch:
                wanted = ConversationIn(
                    patient_id=ours[index % len(ours)],
                    subject=invented.subject(index),
                    participant_ids=[people["nurse.ali"]],
                    initial_message=invented.message(index),
                    include_patient_as_participant=index % len(ours) == 0,
                )
                begun.append(ConversationId((await conversations.create(unit, actor, wanted))["id"]))
        advance(len(batch))
    return begun


async def _talk(
    services: Services,
    people: dict[str, int],
    talks: Sequence[ConversationId],
    count: int,
    advance: Callable[[int], None],
) -> None:
    for start in range(0, count if talks else 0, BATCH):
        batch = range(start, min(start + BATCH, count))
        # Each takes a turn: a batch of one's, then a batch of the other's, as shifts do.
        username = ("nurse.ali", "dr.osei")[start // BATCH % 2]
        async with _open_as(services, people[username]) as (unit, actor):
            for index in batch:
                await conversations.send(unit, actor, talks[index % len(talks)], invented.message(index))
        advance(len(batch))


@asynccontextmanager
async def _open_as(services: Services, user_id: int) -> AsyncIterator[tuple[Unit, Actor]]:
    """Open a unit in the name of a person of the clinic, with the rights that person holds."""
    async with open_unit(services, RequestFacts(request_id="cli-demo", source="command-line")) as unit:
        actor = await identity.find_actor(unit.session, unit.settings, UserId(user_id))
        if actor is None:
            raise fail("Somebody disabled the demo's people while it was being filled.")
        yield unit, actor


def _keep(settings: Settings, accounts: Sequence[Account]) -> None:
    settings.data_dir.mkdir(parents=True, exist_ok=True)
    path = accounts_file(settings)
    path.unlink(missing_ok=True)
    with os.fdopen(os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w") as file:
        json.dump({"accounts": [asdict(account) for account in accounts]}, file, indent=1)


def _kept(settings: Settings) -> list[Account]:
    path = accounts_file(settings)
    if not path.exists():
        return []
    return [Account(**{**entry, "roles": tuple(entry["roles"])}) for entry in json.loads(path.read_text())["accounts"]]
