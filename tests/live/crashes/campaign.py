"""A campaign: one clinic, and round after round of load, death, recovery and counting."""

import asyncio
import os
import random
import shutil
import tempfile
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Protocol

from quill.intents.steps import LEASE_SECONDS
from quill.kit.database import Database
from tests.live.control import server
from tests.live.crashes import load, verify
from tests.live.crashes.client import Client
from tests.live.crashes.ledger import Kind, Ledger, Operation, Outcome
from tests.live.crashes.load import Desk, Signals
from tests.live.crashes.processes import READY_SECONDS, Postgresql, Quill
from tests.live.crashes.reading import Reader, Shown, Tables, read_tables
from tests.live.crashes.remote_stores import RemoteStores
from tests.live.crashes.stores import EmbeddedStores, Store
from tests.live.processes import NotReady

PASSWORD = "correct horse battery staple"
PEOPLE = ("ada", "grace")
ORGANISATION = "Riverside Surgery"
ALIVE_SECONDS = (0.5, 3.0)
"""When the victim is killed, after the first answer of the round."""
AFTERMATH_SECONDS = 0.3
"""How long the load goes on when the victim is dead, as clients do."""
FORESEEN_STATUSES = {0, 200, 409, 412, 502, 503}
"""First answers there may be: 503 and 502 say plainly that something does not answer; a 500 says nothing."""
REPEATED_AT_MOST = 40
REPEATING_AT_ONCE = 8


class Victim(Protocol):
    """What is killed and started again."""

    def kill(self) -> None:
        """End it at once."""
        ...

    def start(self) -> None:
        """Start it again."""
        ...


@dataclass(frozen=True, slots=True)
class Plan:
    """What is to be done: ``store`` is embedded, postgresql or remote; ``victim`` is program, database or store."""

    store: str
    victim: str
    rounds: int
    rate: float


@dataclass(slots=True)
class Round:
    """What happened in a round; times in seconds."""

    number: int
    alive: float
    ready: float
    counting: float
    sent: int
    acknowledged: int
    refused: int
    unheard: int
    unknown: int
    repeated: int


@dataclass(slots=True)
class Report:
    """What a campaign found; ``violations`` is empty when everything held."""

    rounds: list[Round] = field(default_factory=list)
    violations: list[str] = field(default_factory=list)
    statuses: dict[int, int] = field(default_factory=dict)
    kinds: dict[str, int] = field(default_factory=dict)
    came_about: int = 0
    """Operations that were kept though their answer never came: a repeat of these must find the first result."""
    log: Path | None = None
    """What the program printed; kept when something was violated."""


@dataclass(slots=True)
class Site:
    """Everything a campaign works with."""

    plan: Plan
    quill: Quill
    victim: Victim
    clients: Sequence[Client]
    store: Store
    desk: Desk
    reader: Reader

    @property
    def ledger(self) -> Ledger:
        """Return what the clients know."""
        return self.desk.ledger


async def play(plan: Plan, *, tell: "Tell | None" = None) -> Report:
    """Play every round of a plan and count everything after each.

    Args:
        plan: what to do.
        tell: called with each round as it ends.
    """
    report = Report()
    async with _site(plan, report) as site:
        for number in range(1, plan.rounds + 1):
            played = await _play_round(site, number, report.violations)
            report.rounds.append(played)
            began = time.monotonic()
            await _count(site, report, is_last=False)
            played.counting = time.monotonic() - began
            if tell is not None:
                tell(played)
            if report.violations:
                break
        await _finish(site, report)
        for operation in site.ledger:
            report.kinds[operation.kind.name.lower()] = report.kinds.get(operation.kind.name.lower(), 0) + 1
            for status in operation.statuses[:1]:
                report.statuses[status] = report.statuses.get(status, 0) + 1
        if unforeseen := set(report.statuses) - FORESEEN_STATUSES:
            report.violations.append(f"answers nobody foresaw: {sorted(unforeseen)}")
    return report


class Tell(Protocol):
    """Takes news of a round."""

    def __call__(self, played: Round, /) -> None:
        """Take it."""
        ...


async def _play_round(site: Site, number: int, violations: list[str]) -> Round:
    alive, signals = random.uniform(*ALIVE_SECONDS), Signals()
    async with asyncio.TaskGroup() as group:
        group.create_task(load.run(site.desk, site.clients, number=number, rate=site.plan.rate, signals=signals))
        async with asyncio.timeout(READY_SECONDS):
            await signals.is_under_way.wait()
        await asyncio.sleep(alive)
        site.victim.kill()
        await asyncio.sleep(AFTERMATH_SECONDS)
        signals.stop.set()
        began = time.monotonic()
        await asyncio.to_thread(site.victim.start)
        await site.quill.wait_until_ready()
        ready = time.monotonic() - began
    sent = site.ledger.of_round(number)
    outcomes = [operation.outcome for operation in sent]
    repeated = await _repeat_some(site, sent, violations)
    return Round(
        number,
        alive,
        ready,
        counting=0.0,
        sent=len(sent),
        acknowledged=outcomes.count(Outcome.ACKNOWLEDGED),
        refused=outcomes.count(Outcome.REFUSED),
        unheard=outcomes.count(Outcome.UNHEARD),
        unknown=outcomes.count(Outcome.UNKNOWN),
        repeated=repeated,
    )


async def _repeat_some(site: Site, sent: Sequence[Operation], violations: list[str]) -> int:
    """Repeat half of what was not answered and some of what was; returns how many."""
    unknown = [operation for operation in sent if operation.outcome is Outcome.UNKNOWN]
    known = [operation for operation in sent if operation.outcome is Outcome.ACKNOWLEDGED]
    chosen = random.sample(unknown, (len(unknown) + 1) // 2)
    chosen += random.sample(known, min(REPEATED_AT_MOST, len(known)))
    await _repeat(site, chosen, violations)
    return len(chosen)


async def _repeat(site: Site, chosen: Sequence[Operation], violations: list[str]) -> None:
    turn = asyncio.Semaphore(REPEATING_AT_ONCE)

    async def do(operation: Operation) -> None:
        was_unknown = operation.outcome is Outcome.UNKNOWN
        async with turn:
            wrong = await site.clients[operation.sender].repeat(operation)
        if wrong is not None:
            violations.append(wrong)
        elif was_unknown:
            site.desk.learn(operation)

    async with asyncio.TaskGroup() as group:
        for operation in chosen:
            group.create_task(do(operation))


async def _finish(site: Site, report: Report) -> None:
    """Give the sweep its time, repeat what is still open once more, and count everything anew."""
    if site.plan.store == "remote":
        await _wait_for_sweep(site)
        open_still = [operation for operation in site.ledger if operation.outcome is Outcome.UNKNOWN]
        await _repeat(site, random.sample(open_still, (len(open_still) + 1) // 2), report.violations)
    site.reader.forget()
    await _count(site, report, is_last=True)
    for words in (("audit", "verify"), ("doctor",)):
        done = await asyncio.to_thread(site.quill.command, *words)
        if done.returncode != 0:
            report.violations.append(f"quill {' '.join(words)}: {done.stdout.strip()} {done.stderr.strip()}")


async def _wait_for_sweep(site: Site) -> None:
    """Return when nothing is under way, or when a sweep must have found whatever is."""
    deadline = time.monotonic() + 2 * LEASE_SECONDS
    database = Database(_database_url(site.quill))
    try:
        while time.monotonic() < deadline:
            tables = await read_tables(database)
            if all(intent.state != "pending" for intent in tables.intents):
                return
            await asyncio.sleep(1)
    finally:
        await database.dispose()


async def _count(site: Site, report: Report, *, is_last: bool) -> None:
    """Read everything back and compare; between rounds a remote store may still owe what a crash cut off."""
    is_settled = is_last or site.plan.store != "remote"
    shown, tables = await _shown_and_kept(site)
    held = await site.store.read(site.ledger)
    found = list(verify.operations(site.ledger, [shown.index, tables.index(), held.index], is_settled=is_settled))
    found += held.wrong
    found += verify.counters(shown, tables)
    if is_settled:
        found += verify.patients(site.ledger, shown, tables, held)
        found += verify.intents(site.ledger, tables)
        found += verify.trail(site.ledger, shown, tables, held)
    report.violations += found
    report.came_about = sum(1 for _ in verify.kept_without_answer(site.ledger, tables))


async def _shown_and_kept(site: Site) -> tuple[Shown, Tables]:
    """Read everything through HTTP and from the tables, as of one moment.

    With remote stores a sweep may finish at any moment what a crash of an earlier round cut off.
    """
    written = [operation.path for operation in site.ledger if operation.kind is Kind.LETTER]
    database = Database(_database_url(site.quill))
    try:
        tables = await read_tables(database)
        while True:
            before = tables
            shown = await site.reader.read({path.split("/")[3] for path in written})
            tables = await read_tables(database)
            if (before.messages, before.intents) == (tables.messages, tables.intents):
                return shown, tables
            site.reader.forget()
    finally:
        await database.dispose()


@asynccontextmanager
async def _site(plan: Plan, report: Report) -> AsyncIterator[Site]:
    """Set up the processes, the clinic's people and its first records; everything is ended and deleted afterwards.

    Should something be violated, the directory with data and log is kept.
    """
    directory = Path(tempfile.mkdtemp(prefix="quill-crashes-"))
    postgresql = _postgresql_for(plan)
    settings = dict(_settings_of(plan, postgresql))
    quill = Quill(directory, settings)
    clients: list[Client] = []
    try:
        if postgresql is not None:
            await asyncio.to_thread(postgresql.start)
        await asyncio.to_thread(_people, quill)
        quill.start()
        await quill.wait_until_ready()
        for number, username in enumerate(PEOPLE):
            clients.append(Client(number, quill.url, username, is_remote=plan.store == "remote"))
            await clients[number].sign_in(PASSWORD)
        desk = Desk(Ledger(), [client.user_id for client in clients])
        store = RemoteStores(_remote_settings()) if plan.store == "remote" else EmbeddedStores(_database_url(quill))
        await load.fill(desk, clients)
        yield Site(plan, quill, _victim(plan, quill, postgresql), clients, store, desk, Reader(clients))
    finally:
        for client in clients:
            await client.close()
        quill.kill()
        if postgresql is not None:
            postgresql.remove()
    if report.violations:
        report.log = quill.log
    else:
        shutil.rmtree(directory)


def _postgresql_for(plan: Plan) -> Postgresql | None:
    if plan.store == "embedded":
        return None
    return Postgresql()


def _victim(plan: Plan, quill: Quill, postgresql: Postgresql | None) -> Victim:
    if plan.victim == "store":
        return RecordServers()
    return postgresql if plan.victim == "database" and postgresql is not None else quill


class RecordServers:
    """HAPI FHIR and EHRbase, which the launcher of this command runs (``tests.live.servers``)."""

    def __init__(self) -> None:
        self._servers = [server("fhir"), server("openehr")]

    def kill(self) -> None:
        """End both at once."""
        for each in self._servers:
            each.kill()

    def start(self) -> None:
        """Start both, and return when they answer."""
        for each in self._servers:
            each.start()


def _settings_of(plan: Plan, postgresql: Postgresql | None) -> Iterator[tuple[str, str]]:
    if postgresql is not None:
        yield "QUILL_DATABASE_URL", postgresql.url
    if plan.store == "remote":
        yield from ((f"QUILL_{name}", value) for name, value in _remote_settings().items())


def _remote_settings() -> dict[str, str]:
    """Return where the servers of a remote campaign are, by the names of their settings without the prefix.

    Raises:
        NotReady: nobody said.
    """
    names = ("FHIR_URL", "OPENEHR_URL", "OPENEHR_USER", "OPENEHR_PASSWORD")
    found = {name: os.environ.get(f"QUILL_TEST_{name}", "") for name in names}
    if not (found["FHIR_URL"] and found["OPENEHR_URL"]):
        raise NotReady("QUILL_TEST_FHIR_URL and QUILL_TEST_OPENEHR_URL must name the servers")
    return {name: value for name, value in found.items() if value}


def _people(quill: Quill) -> None:
    """Make the tables, an organisation and the clinicians who are the clients."""
    commands = [
        (("migrate",), ""),
        (("create-organisation", "--name", ORGANISATION, "--type", "gp_practice"), ""),
    ]
    commands += [
        (
            (
                *("create-user", "--username", name, "--email", f"{name}@example.org", "--permission", "staff"),
                *("--profession", "general_practitioner", "--role", "Clinician", "--organisation", ORGANISATION),
                "--password-stdin",
            ),
            f"{PASSWORD}\n",
        )
        for name in PEOPLE
    ]
    for words, stdin in commands:
        done = quill.command(*words, stdin=stdin)
        if done.returncode != 0:
            raise NotReady(f"quill {words[0]} failed: {done.stdout.strip()} {done.stderr.strip()}")


def _database_url(quill: Quill) -> str:
    return quill.settings.get("QUILL_DATABASE_URL", f"sqlite+aiosqlite:///{quill.data_dir}/quill.sqlite3")
