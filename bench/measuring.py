"""Measuring one database: Quill and the floor in short turns, so that what disturbs the machine hits both alike."""

import asyncio
import contextlib
import os
import statistics
import subprocess
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass

import sqlalchemy as sa

from bench.clinic import PASSWORD
from bench.driver import Failed, Measured, Round, Wrk, ask, median, round_of, run_client
from bench.results import Beside, Growth, Outcome, Streams, Workers
from bench.scenarios import Call, Facts, Scenario, floor_calls, quill_calls, sign_in_headers
from bench.servers import Cores, Place, Served, quill_server, running
from bench.statements import SPARE_LOGINS
from quill.kit.database import Database

STREAMS_PER_PERSON = 10
STREAM_PATIENCE_SECONDS = 20
BESIDE_PER_SECOND = 100
SIGN_INS_PER_SECOND = 4
WARM_UP_SECONDS = 5
WITH_FREE_CORES = 4
"""Processors with which two workers, the driver and the database are in nobody's way."""


@dataclass(frozen=True, slots=True)
class Side:
    """One clinic with its servers.

    Attributes:
        size: of the clinic.
        place: where it is.
        facts: what can be asked of it.
        quill: the server that is measured.
        floor: the bare one on the same tables.
    """

    size: str
    place: Place
    facts: Facts
    quill: Served
    floor: Served


class _Runner:
    """Runs rounds of one side's requests; what it does depends on the kind of scenario."""

    def __init__(self, scenario: Scenario, side: Side, cores: Cores, *, is_floor: bool, padding: int = 0) -> None:
        self._scenario = scenario
        self._side = side
        self._core = cores.driver
        self._is_floor = is_floor
        self.server = side.floor if is_floor else side.quill
        self._tokens: list[str] = []
        self._wrk: Wrk | None = None
        if scenario.kind == "refresh":
            self._tokens = list(side.facts["floor_logins" if is_floor else "refresh_tokens"][:-SPARE_LOGINS])
            return
        facts = side.facts
        calls = floor_calls(scenario, facts, padding=padding) if is_floor else quill_calls(scenario, facts)
        self._wrk = Wrk(self.server, calls, connections=scenario.connections, core=self._core)

    def run(self) -> Round:
        if self._wrk is not None:
            return self._wrk.run(self._scenario.round_seconds)
        task = {
            "host": self.server.host,
            "path": self._scenario.floor if self._is_floor else self._scenario.path,
            "tokens": self._tokens,
            "connections": self._scenario.connections,
            "seconds": self._scenario.round_seconds,
        }
        cpu = self.server.cpu_seconds
        result = run_client(["refresh"], task, self._core)
        if result["refused"]:
            raise Failed(f"{result['refused']} of {result['requests']} refreshes were refused")
        self._tokens = result["tokens"]
        return round_of(result, self.server.cpu_seconds - cpu)

    def begin_anew(self) -> None:
        if self._wrk is not None:
            self._wrk.begin_anew()


async def _unread(place: Place) -> None:
    """Take every marker away, so that marking read has something to do."""
    database = Database(place.database_url)
    try:
        async with database.writing() as session:
            await session.execute(
                sa.text(
                    "UPDATE conversation_participant SET last_read_message_id = NULL WHERE last_read_at IS NOT NULL"
                )
            )
    finally:
        await database.dispose()


def measure(
    scenario: Scenario,
    sides: Sequence[Side],
    statements: Mapping[str, Mapping[str, Mapping[str, int]]],
    cores: Cores,
    seconds: int,
) -> Outcome:
    """Measure one scenario: each clinic's Quill, then the floor of the largest, in turns.

    Args:
        scenario: what to do.
        sides: the clinics, the largest last.
        statements: by size and scenario, how many statements were counted.
        cores: which processors serve and drive.
        seconds: for how long each is driven in all.
    """
    largest = sides[-1]
    lengths = _lengths(scenario, largest)
    runners = [_Runner(scenario, side, cores, is_floor=False) for side in sides]
    runners.append(_Runner(scenario, largest, cores, is_floor=True, padding=max(0, lengths[0] - lengths[1])))
    rounds: list[list[Round]] = [[] for _ in runners]
    for _ in range(max(1, seconds // scenario.round_seconds)):
        for runner, kept in zip(runners, rounds, strict=True):
            kept.append(_turn(scenario, sides, runner))
    measured = [median(kept) for kept in rounds]
    growth = _growth(measured[0], measured[-2]) if len(sides) > 1 else None
    return Outcome(
        name=scenario.name,
        kind=scenario.kind,
        quill=measured[-2],
        floor=measured[-1],
        statements={side.size: statements[side.size][scenario.name] for side in sides},
        answer_bytes=lengths,
        growth=growth,
    )


def _turn(scenario: Scenario, sides: Sequence[Side], runner: _Runner) -> Round:
    if scenario.name == "mark-read":
        runner.begin_anew()
        for side in sides:
            asyncio.run(_unread(side.place))
    with contextlib.ExitStack() as others:
        if not scenario.writes:
            # A server that writes is not stopped: it might hold a lock the other waits for.
            for side in sides:
                for server in (side.quill, side.floor):
                    if server is not runner.server:
                        others.enter_context(server.held())
        return runner.run()


def _growth(small: Measured, large: Measured) -> Growth:
    return Growth(large.p50 / small.p50, large.p99 / small.p99)


def _lengths(scenario: Scenario, side: Side) -> tuple[int, int]:
    """Return how long the answers of Quill and of the floor are, before the floor's is made as long."""
    if scenario.kind == "refresh":
        return 0, 0
    quill = ask(side.quill, quill_calls(scenario, side.facts)[0])
    floor = ask(side.floor, floor_calls(scenario, side.facts)[0])
    return len(quill), len(floor)


def measure_streams(side: Side, cores: Cores, count: int, seconds: int) -> Streams:
    """Measure open streams with a message a second, at Quill and then at the floor."""
    facts = side.facts
    names = facts["listeners"][: -(-count // STREAMS_PER_PERSON)]
    listening = [asdict(Call("GET", "/api/events", sign_in_headers(facts, name))) for name in names for _ in range(10)][
        :count
    ]
    body = '{"body": "Please ring us at once if the pain comes back."}'
    talk = facts["stream_talk"]
    sending = Call("POST", f"/api/conversations/{talk}/messages", sign_in_headers(facts, "colleague"), body)
    task = {"seconds": seconds, "patience": STREAM_PATIENCE_SECONDS}
    told = task | {"host": side.quill.host, "streams": listening, "send": asdict(sending)}
    quill = run_client(["streams"], told, cores.driver)
    rss = side.quill.rss_bytes
    bare = asdict(Call("GET", "/events", {}))
    published = Call("POST", f"/publish/{talk}/{facts['colleague_id']}", {}, body)
    told = task | {"host": side.floor.host, "streams": [bare] * count, "send": asdict(published)}
    floor = run_client(["streams"], told, cores.driver)
    return Streams(
        count=count,
        told=1 - quill["refused"] / (count * seconds),
        p50=quill["p50"],
        p99=quill["p99"],
        floor_p50=floor["p50"],
        floor_p99=floor["p99"],
        opened_seconds=quill["opened_seconds"],
        rss_bytes=rss,
    )


def measure_beside(side: Side, seconds: int) -> Beside:
    """Measure ``me`` while four people a second sign in; every process may use every processor."""
    facts = side.facts
    if hasattr(os, "sched_setaffinity"):
        side.quill.spread()
    sign_ins = [
        asdict(Call("POST", "/api/auth/login", {}, f'{{"username": "{found["username"]}", "password": "{PASSWORD}"}}'))
        for found in facts["accounts"]
    ]
    task = {
        "host": side.quill.host,
        "call": asdict(Call("GET", "/api/auth/me", sign_in_headers(facts, "fifty"))),
        "per_second": BESIDE_PER_SECOND,
        "sign_ins": sign_ins,
        "sign_ins_per_second": SIGN_INS_PER_SECOND,
        "seconds": seconds,
    }
    result = run_client(["beside"], task, None)
    if result["refused"]:
        raise Failed(f"{result['refused']} requests were refused beside the sign-ins")
    return Beside(BESIDE_PER_SECOND, SIGN_INS_PER_SECOND, result["p50"], result["p99"])


def measure_workers(side: Side, scenarios: Sequence[Scenario], seconds: int) -> list[Workers]:
    """Measure some scenarios with one worker and with two, in turns; every process may use every processor."""
    are_free = len(os.sched_getaffinity(0) if hasattr(os, "sched_getaffinity") else ()) >= WITH_FREE_CORES
    servers = [quill_server(side.place, None, count) for count in (1, 2)]
    measured = []
    with side.quill.held(), side.floor.held(), running(*servers):
        for scenario in scenarios:
            calls = quill_calls(scenario, side.facts)
            drivers = [Wrk(server, calls, connections=2 * scenario.connections, core=None) for server in servers]
            rounds: list[list[Round]] = [[] for _ in drivers]
            for driver in drivers:
                # What a start brings with it, such as looking at the whole audit trail, is over after this.
                driver.run(WARM_UP_SECONDS)
            for _ in range(max(1, seconds // scenario.round_seconds)):
                for driver, kept in zip(drivers, rounds, strict=True):
                    kept.append(driver.run(scenario.round_seconds))
            one, two = map(median, rounds)
            measured.append(Workers(scenario.name, one, two, are_free))
    return measured


def time_to_run(act: Sequence[str], times: int = 3) -> float:
    """Return how long a command takes, the median of a few runs after one that warms the files."""
    taken = []
    for _ in range(times + 1):
        began = time.monotonic()
        subprocess.run(act, stdout=subprocess.DEVNULL, check=True)
        taken.append(time.monotonic() - began)
    return statistics.median(taken[1:])
