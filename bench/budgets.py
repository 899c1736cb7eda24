"""What ``budgets.toml`` allows, and what of a run is past it."""

import tomllib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from bench.results import Outcome, StoreResults
from bench.scenarios import HERE

BUDGETS_FILE = HERE / "budgets.toml"


@dataclass(frozen=True, slots=True)
class Budget:
    """What one scenario may cost: a share of the floor's requests a second at least, and so many statements at most."""

    floor: float
    statements: int


@dataclass(frozen=True, slots=True)
class Budgets:
    """Every limit; ratios throughout."""

    scenarios: Mapping[str, Budget]
    growth_p50: float
    growth_p99: float
    told: float
    beside: float
    workers: float


def read_budgets(file: Path = BUDGETS_FILE) -> Budgets:
    """Return the limits; raises ``KeyError`` or ``TypeError`` when the file lacks one or has one too many."""
    entries = tomllib.loads(file.read_text())
    return Budgets(
        scenarios={name: Budget(**entry) for name, entry in entries["scenario"].items()},
        growth_p50=entries["growth"]["p50"],
        growth_p99=entries["growth"]["p99"],
        told=entries["streams"]["told"],
        beside=entries["beside"]["p99_over_p50"],
        workers=entries["workers"]["gain"],
    )


def broken(results: StoreResults, budgets: Budgets) -> Iterator[str]:
    """Yield a sentence for everything of a run that is past its budget."""
    for outcome in results.outcomes:
        budget = budgets.scenarios[outcome.name]
        yield from (f"{results.title}: {outcome.name}: {sentence}" for sentence in _broken(outcome, budget, budgets))
    if results.streams is not None and results.streams.told < budgets.told:
        yield f"{results.title}: streams: {results.streams.told:.3f} of the events arrived, not {budgets.told}"
    if results.beside is not None and results.beside.ratio > budgets.beside:
        yield f"{results.title}: beside: p99 is {results.beside.ratio:.1f} times p50, more than {budgets.beside}"
    for found in results.workers:
        gain = found.gain if found.are_free else found.gain_to_come
        if gain < budgets.workers:
            yield f"{results.title}: workers: {found.name}: two give {gain:.2f} times one, less than {budgets.workers}"


def _broken(outcome: Outcome, budget: Budget, budgets: Budgets) -> Iterator[str]:
    if outcome.ratio < budget.floor:
        yield f"{outcome.ratio:.2f} of the floor, less than {budget.floor}"
    statements = max(sum(counted.values()) for counted in outcome.statements.values())
    if statements > budget.statements:
        yield f"{statements} statements, more than {budget.statements}"
    if outcome.growth is None or outcome.kind not in {"read", "audited"}:
        return
    if sum(outcome.statements["large"].values()) > sum(outcome.statements["small"].values()):
        yield f"the number of statements grows with the clinic: {outcome.statements}"
    for name, ratio, limit in (
        ("p50", outcome.growth.p50, budgets.growth_p50),
        ("p99", outcome.growth.p99, budgets.growth_p99),
    ):
        if ratio > limit:
            yield f"{name} on the large clinic is {ratio:.2f} times that on the small one, more than {limit}"
