"""The serialisation under the hashes: no two different events look alike."""

import datetime

import pytest
from hypothesis import given
from hypothesis import strategies as st

from quill.audit.chain import EVENT_COLUMNS, GENESIS, SealHash, leaf_hash
from quill.audit.models import AuditEvent

instants = st.datetimes(timezones=st.just(datetime.UTC))
values = st.one_of(st.none(), st.integers(), st.text(), instants)
events = st.lists(values, min_size=len(EVENT_COLUMNS), max_size=len(EVENT_COLUMNS))
neighbours = st.integers(min_value=0, max_value=len(EVENT_COLUMNS) - 2)


def test_leaf_takes_every_column_of_an_event() -> None:
    assert set(EVENT_COLUMNS) == set(AuditEvent.__table__.columns.keys())
    assert len(EVENT_COLUMNS) == len(set(EVENT_COLUMNS))


@given(events, events)
def test_different_events_have_different_hashes(one: list[object], other: list[object]) -> None:
    assert (leaf_hash(one) == leaf_hash(other)) == (one == other)


@given(events, neighbours, st.text(min_size=1), st.text())
def test_text_moved_into_the_next_column_changes_the_hash(event: list[object], at: int, moved: str, stays: str) -> None:
    before, after = list(event), list(event)
    before[at : at + 2] = [moved, stays]
    after[at : at + 2] = ["", moved + stays]
    assert leaf_hash(before) != leaf_hash(after)


@given(events, neighbours, values)
def test_any_changed_column_changes_the_hash(event: list[object], at: int, value: object) -> None:
    changed = [*event[:at], value, *event[at + 1 :]]
    assert (leaf_hash(event) == leaf_hash(changed)) == (event[at] == value)


@pytest.mark.parametrize(
    ("one", "other"),
    [
        (None, ""),
        (1, "1"),
        (1, 1.0),
        (1, True),
        ("a", b"a"),
        ("2026-01-01T00:00:00.000000Z", datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)),
    ],
)
def test_values_of_different_kinds_have_different_hashes(one: object, other: object) -> None:
    rest = [None] * (len(EVENT_COLUMNS) - 1)
    assert leaf_hash([one, *rest]) != leaf_hash([other, *rest])


def test_the_same_instant_in_another_time_zone_has_the_same_hash() -> None:
    utc = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    rest = [None] * (len(EVENT_COLUMNS) - 1)
    assert leaf_hash([utc, *rest]) == leaf_hash([utc.astimezone(datetime.timezone(datetime.timedelta(hours=5))), *rest])


def test_the_serialisation_is_the_one_the_docstring_states() -> None:
    """Worked by hand with ``sha256sum``, so that a change which would orphan every old seal shows."""
    instant = datetime.datetime(2026, 1, 31, 12, tzinfo=datetime.UTC)
    event = [1, instant, "r", None, "nurse", None, "::1", "patient:read", "allowed", "", "p-1", None]
    assert leaf_hash(event) == "adfd4d1b011178ccb8d8a3cce9da0e11d118d9fc231f448c4a47d90f6e8f10b9"
    seal = SealHash(GENESIS, 1, instant, 1)
    seal.add(leaf_hash(event))
    assert seal.hexdigest() == "8c93f26d23194a3f598eedf06c979813b6f05a261bc50af97e859a33bf74c4a0"


def test_an_instant_without_time_zone_is_refused() -> None:
    with pytest.raises(ValueError, match="time zone"):
        leaf_hash([datetime.datetime(2026, 1, 1), *[None] * (len(EVENT_COLUMNS) - 1)])  # noqa: DTZ001


def test_an_event_with_a_column_missing_is_refused() -> None:
    with pytest.raises(ValueError, match="columns"):
        leaf_hash([None] * (len(EVENT_COLUMNS) - 1))
