"""What a run came to, as tables in ``README.md`` and on the terminal."""

from collections.abc import Iterator, Sequence
from pathlib import Path

from bench.budgets import Budgets
from bench.results import Outcome, Results, StoreResults
from bench.scenarios import HERE, Scenario

README = HERE / "README.md"
PLOT = "results-{scale}.svg"
BEGIN, END = "<!-- results {scale}: begin -->", "<!-- results {scale}: end -->"

START_SECONDS, HELP_SECONDS, RSS_MEGABYTES = 2.0, 0.3, 150
"""What start, ``--help`` and memory should stay below; said beside the figures, held by nobody: they are absolute."""


def text(results: Results, scenarios: Sequence[Scenario], budgets: Budgets) -> str:
    """Return the whole report in Markdown."""
    return "\n".join(_lines(results, {found.name: found.title for found in scenarios}, budgets))


def update_readme(results: Results, report: str) -> None:
    """Put a report in the place of the one before."""
    begin, end = BEGIN.format(scale=results.scale), END.format(scale=results.scale)
    before, _, rest = README.read_text().partition(begin)
    _, _, after = rest.partition(end)
    README.write_text(f"{before}{begin}\n\n{report}\n{end}{after}")


def _lines(results: Results, titles: dict[str, str], budgets: Budgets) -> Iterator[str]:
    machine = ", ".join(f"{name} {value}" for name, value in results.machine.items())
    yield f"Measured on {results.measured_on} at commit {results.commit}: {machine}."
    yield f"Each side of a scenario was driven for {results.seconds} s, in turns of a second or two."
    yield ""
    yield f"![requests a second as a share of the floor's]({PLOT.format(scale=results.scale)})"
    for store in results.stores:
        yield ""
        yield f"### {store.title}, {results.scale} clinic"
        yield ""
        yield from _table(store, titles, budgets)
        yield ""
        yield from _rest(store)
    yield ""
    yield f"`quill --help` takes {results.help_seconds:.2f} s (wanted: below {HELP_SECONDS} s)."
    for reason in results.skipped:
        yield f"Left out: {reason}."


def _table(store: StoreResults, titles: dict[str, str], budgets: Budgets) -> Iterator[str]:
    grows = any(outcome.growth is not None for outcome in store.outcomes)
    names = [
        "scenario",
        "req/s",
        "p50 ms",
        "p99 ms",
        "CPU ms",
        "statements",
        "answer bytes",
        "floor req/s",
        "floor CPU ms",
        "ratio",
        "at least",
    ]
    names += ["large/small p50", "large/small p99"] if grows else []
    yield _row(names)
    yield _row(["---", *["--:"] * (len(names) - 1)])
    for outcome in store.outcomes:
        yield _row(_cells(outcome, titles[outcome.name], budgets.scenarios[outcome.name].floor))


def _cells(outcome: Outcome, title: str, at_least: float) -> list[str]:
    quill, floor = outcome.quill, outcome.floor
    counted = max(sum(kinds.values()) for kinds in outcome.statements.values())
    ratio = f"{outcome.ratio:.2f}" if outcome.ratio >= at_least else f"**{outcome.ratio:.2f}**"
    cells = [title, f"{quill.per_second:,.0f}", f"{quill.p50 * 1000:.1f}", f"{quill.p99 * 1000:.1f}"]
    cells += [f"{quill.cpu * 1000:.2f}", str(counted)]
    cells += [
        f"{outcome.answer_bytes[0]:,}",
        f"{floor.per_second:,.0f}",
        f"{floor.cpu * 1000:.2f}",
        ratio,
        str(at_least),
    ]
    if outcome.growth is not None:
        cells += [f"{outcome.growth.p50:.2f}", f"{outcome.growth.p99:.2f}"]
    return cells


def _rest(store: StoreResults) -> Iterator[str]:
    worker, floor = store.rss_bytes
    if worker is not None and floor is not None:
        held, bare = f"{worker / 1e6:.0f} MB", f"{floor / 1e6:.0f} MB"
        yield f"- A worker holds {held} after this (wanted: below {RSS_MEGABYTES} MB), the floor {bare}."
    quill, other = store.start_seconds
    yield f"- From start to the first answer: {quill:.2f} s (wanted: below {START_SECONDS} s), the floor {other:.2f} s."
    if (streams := store.streams) is not None:
        quills, floors = (
            f"p50 {p50 * 1000:.0f} ms, p99 {p99 * 1000:.0f} ms"
            for p50, p99 in ((streams.p50, streams.p99), (streams.floor_p50, streams.floor_p99))
        )
        yield (
            f"- {streams.count:,} open streams, one message a second: {streams.told:.1%} told, {quills};"
            f" the floor, which asks nobody's rights, {floors}. Opening them took {streams.opened_seconds:.1f} s;"
            f" the worker then holds {(streams.rss_bytes or 0) / 1e6:.0f} MB."
        )
    if (beside := store.beside) is not None:
        yield (
            f"- `me` {beside.per_second:.0f} times a second while {beside.sign_ins_per_second:.0f} people a second sign"
            f" in: p50 {beside.p50 * 1000:.1f} ms, p99 {beside.p99 * 1000:.1f} ms, {beside.ratio:.1f} times p50."
        )
    for found in store.workers:
        yield (
            f"- Two workers against one, {found.name}: {found.one.per_second:,.0f} and {found.two.per_second:,.0f}"
            f" a second, {found.gain:.2f} times; {found.one.cpu * 1000:.2f} and {found.two.cpu * 1000:.2f} ms of"
            f" processor time an answer, so {found.gain_to_come:.2f} times with processors of their own."
        )
    for size, (seconds, records, size_bytes) in store.fill.items():
        yield (
            f"- The {size} clinic: `quill demo` made {records:,} records in {seconds:.0f} s,"
            f" {records / seconds:,.0f} a second; {size_bytes / 1e6:,.0f} MB with all that is measured."
        )


def _row(cells: Sequence[str]) -> str:
    return f"| {' | '.join(cells)} |"


def write_plot(results: Results, scenarios: Sequence[Scenario], budgets: Budgets, directory: Path = HERE) -> None:
    """Draw the ratios as bars, with a mark at what each must reach (SVG 1.1)."""
    (directory / PLOT.format(scale=results.scale)).write_text(_plot(results, scenarios, budgets))


_WIDTH, _LEFT, _BAR, _GAP, _TOP = 860, 330, 11, 9, 44
_COLOURS = ("#2f6f9f", "#c9772c")


def _plot(results: Results, scenarios: Sequence[Scenario], budgets: Budgets) -> str:
    stores = results.stores
    measured = {outcome.name for store in stores for outcome in store.outcomes}
    shown = [scenario for scenario in scenarios if scenario.name in measured]
    step = _BAR * max(1, len(stores)) + _GAP
    height = _TOP + step * len(shown) + 30
    scale = (_WIDTH - _LEFT - 60) / 1.1
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH}" height="{height}"',
        'font-family="sans-serif" font-size="11">',
        f'<rect width="{_WIDTH}" height="{height}" fill="white"/>',
    ]
    for number, store in enumerate(stores):
        at = _LEFT + number * 150
        parts.append(f'<rect x="{at}" y="12" width="11" height="11" fill="{_COLOURS[number % 2]}"/>')
        parts.append(f'<text x="{at + 16}" y="22">{store.title}</text>')
    parts.append(f'<text x="{_LEFT + 310}" y="22">| at least</text>')
    for tenth in range(0, 11, 2):
        x = _LEFT + tenth / 10 * scale
        parts.append(f'<line x1="{x:.0f}" y1="{_TOP - 8}" x2="{x:.0f}" y2="{height - 24}" stroke="#dddddd"/>')
        parts.append(f'<text x="{x:.0f}" y="{height - 10}" text-anchor="middle">{tenth / 10:.1f}</text>')
    for line, scenario in enumerate(shown):
        y = _TOP + line * step
        parts.append(f'<text x="{_LEFT - 8}" y="{y + step / 2:.0f}" text-anchor="end">{_short(scenario.title)}</text>')
        for number, store in enumerate(stores):
            for outcome in store.outcomes:
                if outcome.name == scenario.name:
                    width, top = min(1.1, outcome.ratio) * scale, y + number * _BAR
                    colour = _COLOURS[number % 2]
                    parts.append(
                        f'<rect x="{_LEFT}" y="{top}" width="{width:.0f}" height="{_BAR - 1}" fill="{colour}"/>'
                    )
                    parts.append(f'<text x="{_LEFT + width + 4:.0f}" y="{top + 9}">{outcome.ratio:.2f}</text>')
        x = _LEFT + budgets.scenarios[scenario.name].floor * scale
        parts.append(f'<line x1="{x:.0f}" y1="{y - 3}" x2="{x:.0f}" y2="{y + step - _GAP + 3}" stroke="black"/>')
    return "\n".join([*parts, "</svg>", ""])


def _short(title: str) -> str:
    return title if len(title) <= 52 else f"{title[:51]}…"
