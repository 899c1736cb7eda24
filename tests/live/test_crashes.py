"""Nothing acknowledged is lost when processes are killed; in few rounds here, in many by ``tests.live.crashes``."""

import asyncio

import pytest

from tests.live.crashes import verify
from tests.live.crashes.campaign import Plan, play
from tests.live.crashes.ledger import Kind, Ledger, Operation, Outcome
from tests.live.crashes.reading import Index, Shown, Tables
from tests.live.crashes.stores import Held

PLANS = [
    pytest.param(Plan(store, victim, rounds=2, rate=50), marks=pytest.mark.live(*parts), id=f"{store}-{victim}")
    for store, victim, parts in (
        ("embedded", "program", ()),
        ("postgresql", "program", ("postgresql",)),
        ("postgresql", "database", ("postgresql",)),
        ("remote", "program", ("postgresql", "fhir", "openehr")),
        ("remote", "database", ("postgresql", "fhir", "openehr")),
    )
]


@pytest.mark.timeout(400)
@pytest.mark.parametrize("plan", PLANS)
def test_nothing_acknowledged_is_lost(plan: Plan) -> None:
    report = asyncio.run(play(plan))
    assert report.violations == []
    assert len(report.rounds) == plan.rounds
    assert all(played.acknowledged > 0 and played.repeated > 0 for played in report.rounds)


MARK = "mark0123456789abcdef"
EMPTY = Tables([], [], [], [], [], [], [], [], [])


def judged(outcome: Outcome, *times: int, record: str = "1/2/id") -> list[str]:
    """Return what is said of one message that each way of reading (HTTP, projection, store) finds so many times."""
    ledger = Ledger()
    ledger.add(Operation(Kind.MESSAGE, 0, 1, "POST", "/", {}, MARK, MARK, outcome=outcome, record="1/2/id"))
    ways = Index("HTTP"), Index("projection"), Index("store")
    for way, count in zip(ways, times, strict=True):
        for _ in range(count):
            way.add(MARK, record, MARK)
    return list(verify.operations(ledger, ways, is_settled=True))


def test_a_record_that_is_there_once_by_every_way_is_well() -> None:
    assert judged(Outcome.ACKNOWLEDGED, 1, 1, 1) == []
    assert judged(Outcome.UNKNOWN, 1, 1, 1) == []
    assert judged(Outcome.UNKNOWN, 0, 0, 0) == []
    assert judged(Outcome.REFUSED, 0, 0, 0) == []


@pytest.mark.parametrize("outcome", Outcome)
@pytest.mark.parametrize("times", [(0, 1, 1), (1, 0, 1), (1, 1, 0), (2, 1, 1), (1, 2, 1), (1, 1, 2), (2, 2, 2)])
def test_a_record_that_one_way_shows_not_once_is_told_of(outcome: Outcome, times: tuple[int, int, int]) -> None:
    assert judged(outcome, *times) != []


def test_a_record_that_is_not_the_one_answered_is_told_of() -> None:
    assert judged(Outcome.ACKNOWLEDGED, 1, 1, 1, record="1/3/id") != []


def test_a_record_nobody_sent_is_told_of() -> None:
    stray = Index("store")
    stray.add("no mark at all", "1/2/id", "")
    stray.add("mark00000000000000ff", "1/3/id", "")
    assert len(list(verify.operations(Ledger(), [stray], is_settled=True))) == 2


def test_writes_left_under_way_and_missing_from_the_trail_are_told_of() -> None:
    held = Held(patients={"p": (2, "Family", "Given")}, letter_uids=["l::system::1"])
    shown = Shown(Index("HTTP"), patients={"p": (1, "Family", "First")})
    assert len(list(verify.trail(Ledger(), shown, EMPTY, held))) == 4
    assert len(list(verify.patients(Ledger(), shown, EMPTY, held))) == 1
