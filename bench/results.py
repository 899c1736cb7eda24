"""What a run came to, as it is kept in ``results.json`` and shown in the README."""

import datetime
import json
import os
import platform
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any

from bench.driver import Measured
from quill.kit import clock


@dataclass(frozen=True, slots=True)
class Growth:
    """Times on the large clinic over those on the small one."""

    p50: float
    p99: float


@dataclass(frozen=True, slots=True)
class Outcome:
    """One scenario on one database.

    Attributes:
        name: of the scenario.
        kind: of the scenario.
        quill: what Quill came to, on the largest clinic of the run.
        floor: what the floor came to beside it.
        statements: how many statements of each kind a request of Quill costs, by the clinic's size.
        answer_bytes: the length of Quill's answer and of the floor's.
        growth: large over small, where both were measured.
    """

    name: str
    kind: str
    quill: Measured
    floor: Measured
    statements: Mapping[str, Mapping[str, int]]
    answer_bytes: tuple[int, int]
    growth: Growth | None = None

    @property
    def ratio(self) -> float:
        """Return Quill's requests a second as a share of the floor's."""
        return self.quill.per_second / self.floor.per_second


@dataclass(frozen=True, slots=True)
class Streams:
    """Open streams with a message a second, and the floor's beside them; times in seconds until a stream told it."""

    count: int
    told: float
    p50: float
    p99: float
    floor_p50: float
    floor_p99: float
    opened_seconds: float
    rss_bytes: int | None


@dataclass(frozen=True, slots=True)
class Beside:
    """``me`` on a clock while others sign in."""

    per_second: float
    sign_ins_per_second: float
    p50: float
    p99: float

    @property
    def ratio(self) -> float:
        """Return p99 over p50."""
        return self.p99 / self.p50


@dataclass(frozen=True, slots=True)
class Workers:
    """One scenario with one worker and with two.

    Attributes:
        name: of the scenario.
        one: with one worker.
        two: with two.
        are_free: whether each worker, the driver and the database could have a processor of their own.
    """

    name: str
    one: Measured
    two: Measured
    are_free: bool

    @property
    def gain(self) -> float:
        """Return what two do in a second over what one does."""
        return self.two.per_second / self.one.per_second

    @property
    def gain_to_come(self) -> float:
        """Return what two would do over one with processors of their own, going by the processor time of an answer."""
        return 2 * self.one.cpu / self.two.cpu


@dataclass(slots=True)
class StoreResults:
    """Everything measured on one kind of database.

    Attributes:
        store: ``embedded`` or ``postgresql``.
        title: for readers.
        outcomes: the scenarios.
        streams: the open streams, when they were asked for.
        beside: reading while others sign in, when it was asked for.
        workers: two workers beside one, when that was asked for.
        rss_bytes: what a worker holds after the scenarios, and what the floor holds.
        start_seconds: from starting Quill until its first answer, and the floor's.
        fill: for each size, how long ``quill demo`` took, how many records it made and how large the data are.
    """

    store: str
    title: str
    outcomes: list[Outcome] = field(default_factory=list)
    streams: Streams | None = None
    beside: Beside | None = None
    workers: list[Workers] = field(default_factory=list)
    rss_bytes: tuple[int | None, int | None] = (None, None)
    start_seconds: tuple[float, float] = (0.0, 0.0)
    fill: dict[str, tuple[float, int, int]] = field(default_factory=dict)


@dataclass(slots=True)
class Results:
    """One run.

    Attributes:
        scale: ``small`` or ``large``.
        machine: what it ran on.
        commit: of this repository.
        measured_on: the day.
        seconds: how long each side of a scenario was driven.
        help_seconds: how long ``quill --help`` took, warm.
        stores: what each database came to.
        skipped: what was left out, and why.
    """

    scale: str
    machine: Mapping[str, str]
    commit: str
    measured_on: datetime.date
    seconds: int
    help_seconds: float = 0.0
    stores: list[StoreResults] = field(default_factory=list)
    skipped: list[str] = field(default_factory=list)


def new_results(scale: str, seconds: int) -> Results:
    """Return the results of a run that begins now, on this machine and commit."""
    return Results(scale, machine(), commit(), clock.now().date(), seconds)


def save(results: Results, file: Path) -> None:
    """Keep the results for whoever wants to compare."""
    whole: dict[str, Any] = asdict(results) | {"measured_on": results.measured_on.isoformat()}
    file.write_text(json.dumps(_rounded(whole), indent=1) + "\n")


def machine() -> dict[str, str]:
    """Return what can be said of this machine without naming it."""
    return {
        "processor": _processor(),
        "cores": str(len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()),
        "memory": _memory(),
        "system": f"{platform.system()} {platform.release().split('-')[0]}",
        "python": platform.python_version(),
    }


def commit() -> str:
    """Return the commit measured; marked when the working tree differs from it."""
    root = Path(__file__).resolve().parents[1]
    try:
        short = _git(root, "rev-parse", "--short=12", "HEAD")
        is_changed = bool(_git(root, "status", "--porcelain", "--untracked-files=no"))
    except (OSError, subprocess.CalledProcessError):
        return "unknown"
    return f"{short} with changes" if is_changed else short


def _git(root: Path, *words: str) -> str:
    return subprocess.run(["git", *words], cwd=root, capture_output=True, text=True, check=True).stdout.strip()


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
    except OSError:
        return platform.processor() or platform.machine()
    names: Sequence[str] = [line.partition(":")[2].strip() for line in lines if line.startswith("model name")]
    return names[0] if names else platform.machine()


def _memory() -> str:
    try:
        return f"{os.sysconf('SC_PAGE_SIZE') * os.sysconf('SC_PHYS_PAGES') / 2**30:.0f} GiB"
    except (ValueError, OSError):
        return "unknown"


def _rounded(value: Any) -> Any:
    if isinstance(value, float):
        return float(f"{value:.4g}")
    if isinstance(value, dict):
        return {name: _rounded(inner) for name, inner in value.items()}
    return [_rounded(inner) for inner in value] if isinstance(value, list | tuple) else value
