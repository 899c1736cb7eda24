"""Counters of throttles in this process."""

import pytest
import time_machine

from quill.kit.counters import InProcessCounters

pytestmark = pytest.mark.anyio


async def test_counter_begins_with_the_first_and_ends_after_its_time() -> None:
    with time_machine.travel(1000.0, tick=False) as later:
        counters = InProcessCounters()
        assert [await counters.incr("a", 60) for _ in range(3)] == [1, 2, 3]
        later.shift(20)
        assert (await counters.incr("b", 60), await counters.incr("a", 60), await counters.get("a")) == (1, 4, 4)
        assert (await counters.get_expiry("a"), await counters.get_expiry("b")) == (1060, 1080)
        later.shift(40)
        assert (await counters.get("a"), await counters.get("b"), await counters.get("none")) == (0, 1, 0)
        assert await counters.incr("a", 60) == 1
        assert await counters.get_expiry("a") == 1120
        assert await counters.get_expiry("none") == 1060


async def test_what_is_taken_back_is_gone_and_never_leaves_room_for_more() -> None:
    with time_machine.travel(1000.0, tick=False) as later:
        counters = InProcessCounters()
        assert [await counters.incr("a", 60, amount) for amount in (1, 1, -1, -1, -1, 1)] == [1, 2, 1, 0, 0, 1]
        later.shift(60)
        # Given back after its window: the next one is not made larger by it.
        assert await counters.incr("a", 60, -1) == 0
        assert await counters.incr("a", 60) == 1


async def test_counter_that_was_cleared_begins_anew() -> None:
    with time_machine.travel(1000.0, tick=False) as later:
        counters = InProcessCounters()
        await counters.incr("a", 60)
        await counters.clear("a")
        await counters.clear("none")
        later.shift(30)
        assert await counters.incr("a", 60) == 1
        later.shift(30)
        # The end it would have had does not end it.
        assert await counters.get("a") == 1
        assert await counters.reset() == 1
        assert await counters.get("a") == 0
        assert await counters.check()


async def test_nothing_is_kept_of_what_has_ended() -> None:
    with time_machine.travel(1000.0, tick=False) as later:
        counters = InProcessCounters()
        for number in range(5000):
            await counters.incr(f"flood-{number}", 60)
        later.shift(61)
        await counters.incr("one", 60)
        assert await counters.reset() == 1
