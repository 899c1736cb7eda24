"""The command line: fill clinics, start servers, measure every scenario, judge, and write it all down."""

import argparse
import contextlib
import signal
import sys
import tempfile
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import FrameType

from tests.live.postgresql import PostgreSQL
from tests.live.processes import NotReady, Unavailable

from bench import clinic, report
from bench.budgets import Budgets, broken, read_budgets
from bench.clinic import SIZES
from bench.driver import Failed, has_wrk
from bench.measuring import Side, measure, measure_beside, measure_streams, measure_workers, time_to_run
from bench.results import Results, StoreResults, new_results, save
from bench.scenarios import HERE, Scenario, chosen, read_scenarios
from bench.servers import Cores, floor_server, make_database, new_place, postgresql, quill_server, running
from bench.statements import count_statements

STORES = {"embedded": "SQLite", "postgresql": "PostgreSQL"}
EXTRAS = ("streams", "beside", "workers")
"""Measured without a floor."""
WITH_TWO_WORKERS = ("health", "me")
STREAMS = 1000


def main(words: Sequence[str] | None = None) -> int:
    """Measure; return 1 when something is past its budget, 2 when what was asked for cannot be had here."""
    asked = _parser().parse_args(words)
    for which in (signal.SIGTERM, signal.SIGHUP):
        signal.signal(which, _end)
    try:
        wanted = [name for name in asked.scenario if name not in EXTRAS]
        scenarios = chosen(read_scenarios(), wanted) if wanted or not asked.scenario else []
    except ValueError as error:
        print(error, file=sys.stderr)
        return 2
    budgets = read_budgets()
    run = _Run(asked, scenarios, budgets)
    try:
        run.measure()
    except (Failed, NotReady) as error:
        print(error, file=sys.stderr)
        return 1
    return run.judge()


class _Run:
    def __init__(self, asked: argparse.Namespace, scenarios: Sequence[Scenario], budgets: Budgets) -> None:
        self._asked = asked
        self._scenarios = list(scenarios)
        self._extras = [name for name in EXTRAS if not asked.scenario or name in asked.scenario]
        self._budgets = budgets
        self._results: Results = new_results(asked.scale, asked.seconds)
        self._cores = Cores.found()
        self._is_short = False

    def measure(self) -> None:
        """Measure on every database asked for that can be had."""
        self._leave_out_wrk()
        program = [sys.executable, "-c", "from quill.cli import main; main()", "--help"]
        self._results.help_seconds = time_to_run(program)
        with tempfile.TemporaryDirectory(prefix="quill-bench-") as scratch:
            directory = Path(scratch)
            # PostgreSQL runs as another user and must be able to pass through.
            directory.chmod(0o711)
            for store in self._asked.store or STORES:
                try:
                    with _database(store, directory / store) as server:
                        self._results.stores.append(self._measure_store(store, directory / store, server))
                except Unavailable as reason:
                    self._leave_out(f"{STORES[store]} ({reason})", is_wanted=store in (self._asked.store or ()))

    def judge(self) -> int:
        """Write the results down and return the exit status."""
        shown = report.text(self._results, self._scenarios, self._budgets)
        print(f"\n{shown}\n")
        if self._asked.json is not None:
            save(self._results, self._asked.json)
        if self._asked.update_readme:
            report.update_readme(self._results, shown)
            report.write_plot(self._results, self._scenarios, self._budgets)
            save(self._results, HERE / f"results-{self._results.scale}.json")
        past = [sentence for results in self._results.stores for sentence in broken(results, self._budgets)]
        for sentence in past:
            print(f"past its budget: {sentence}")
        if past:
            return 1
        return 2 if self._is_short else 0

    def _leave_out_wrk(self) -> None:
        if has_wrk():
            return
        named = self._asked.scenario
        self._leave_out(
            "every scenario but refresh, streams and beside (wrk is not installed; Debian has it as `wrk`)",
            is_wanted=any(scenario.name in named and scenario.kind != "refresh" for scenario in self._scenarios),
        )
        self._scenarios = [scenario for scenario in self._scenarios if scenario.kind == "refresh"]

    def _leave_out(self, reason: str, *, is_wanted: bool) -> None:
        print(f"left out: {reason}", flush=True)
        self._results.skipped.append(reason)
        self._is_short = self._is_short or is_wanted

    def _measure_store(self, store: str, directory: Path, server: PostgreSQL | None) -> StoreResults:
        results = StoreResults(store, STORES[store] + (f" {server.version}" if server is not None else ""))
        sizes = ["small", "large"] if self._asked.scale == "large" else ["small"]
        with contextlib.ExitStack() as stack:
            sides, statements = [], {}
            for size in sizes:
                _say(f"{results.title}: filling the {size} clinic")
                url = make_database(server, size) if server is not None else None
                place = new_place(directory / size, url)
                filled = clinic.fill(SIZES[size], place.settings, place.environment)
                held = _bytes_held(place.directory, server, size)
                results.fill[size] = (filled.seconds, filled.records, held)
                statements[size] = count_statements(place.settings, self._scenarios, filled.facts)
                quill = quill_server(place, self._cores.server)
                floor = floor_server(place, self._cores.server)
                stack.enter_context(running(quill, floor))
                sides.append(Side(size, place, filled.facts, quill, floor))
            results.start_seconds = (sides[-1].quill.seconds_to_first_answer, sides[-1].floor.seconds_to_first_answer)
            for scenario in self._scenarios:
                outcome = measure(scenario, sides, statements, self._cores, self._asked.seconds)
                results.outcomes.append(outcome)
                rate, ratio = outcome.quill.per_second, outcome.ratio
                _say(f"{results.title}: {scenario.name}: {rate:,.0f} a second, {ratio:.2f} of the floor")
            results.rss_bytes = (sides[-1].quill.rss_bytes, sides[-1].floor.rss_bytes)
            self._measure_extras(results, sides[-1])
        return results

    def _measure_extras(self, results: StoreResults, side: Side) -> None:
        if "streams" in self._extras:
            results.streams = measure_streams(side, self._cores, self._asked.streams, self._asked.seconds)
            _say(f"{results.title}: streams: told after {results.streams.p50 * 1000:.0f} ms")
        if "beside" in self._extras:
            results.beside = measure_beside(side, max(3, self._asked.seconds))
            _say(f"{results.title}: beside: p99 is {results.beside.ratio:.1f} times p50")
        if "workers" in self._extras and has_wrk():
            asked = chosen(read_scenarios(), WITH_TWO_WORKERS)
            results.workers = measure_workers(side, asked, self._asked.seconds)
            for found in results.workers:
                _say(f"{results.title}: workers: {found.name}: two do {found.gain:.2f} times what one does")


@contextlib.contextmanager
def _database(store: str, directory: Path) -> Iterator[PostgreSQL | None]:
    directory.mkdir()
    directory.chmod(0o711)
    if store == "embedded":
        yield None
        return
    with postgresql(directory / "server") as server:
        yield server


def _bytes_held(directory: Path, server: PostgreSQL | None, name: str) -> int:
    if server is not None:
        return int(server.sql(f"SELECT pg_database_size('{name}')"))
    return sum(file.stat().st_size for file in directory.glob("quill.sqlite3*"))


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="bench/run.py", description=__doc__)
    parser.add_argument("--scenario", action="append", default=[], help="only this one; may be repeated")
    parser.add_argument("--store", action="append", choices=list(STORES), help="only this database; may be repeated")
    parser.add_argument("--scale", choices=list(SIZES), default="small", help="large: both clinics, and their ratio")
    parser.add_argument("--seconds", type=int, default=5, help="for how long each side of a scenario is driven")
    parser.add_argument("--streams", type=int, default=STREAMS, help="how many streams are open at once")
    parser.add_argument("--json", type=Path, help="a file to write the results to")
    parser.add_argument("--update-readme", action="store_true", help="put tables, plot and results into bench/")
    return parser


def _say(sentence: str) -> None:
    print(sentence, flush=True)


def _end(number: int, _frame: FrameType | None) -> None:
    sys.exit(128 + number)
