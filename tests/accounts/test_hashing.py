"""Hashing passwords leaves processors to everybody else."""

import asyncio
import os
from pathlib import Path

import pytest

from quill.auth.passwords import Passwords
from quill.settings import Settings

pytestmark = pytest.mark.anyio

THREADS = Path("/proc/self/task")


def threads() -> set[int]:
    return {int(thread.name) for thread in THREADS.iterdir()}


def look_at(thread: int) -> tuple[frozenset[int], int] | None:
    """Return the processors a thread may use and its niceness; ``None`` when it has ended."""
    try:
        return frozenset(os.sched_getaffinity(thread)), os.getpriority(os.PRIO_PROCESS, thread)
    except ProcessLookupError:
        return None


@pytest.mark.skipif(not THREADS.exists(), reason="only Linux tells which processors a thread may use")
async def test_a_hash_and_its_lanes_use_half_of_the_processors_and_go_behind_others() -> None:
    passwords = Passwords(Settings(argon2_time_cost=8, argon2_memory_kib=65536, argon2_parallelism=4))
    usable, before = os.sched_getaffinity(os.getpid()), threads()
    hashing = asyncio.ensure_future(passwords.hash("a password"))
    seen: dict[int, frozenset[int]] = {}
    niceness = set()
    while not hashing.done():
        for thread in threads() - before:
            if found := look_at(thread):
                seen[thread] = found[0]
                niceness.add(found[1])
        await asyncio.sleep(0.005)
    assert await passwords.matches("a password", await hashing)
    # The thread itself and those of the lanes.
    assert len(seen) >= 2
    assert {len(processors) for processors in seen.values()} <= {max(1, len(usable) // 2)}
    assert all(processors <= usable for processors in seen.values())
    assert max(niceness) == 10
    assert os.sched_getaffinity(os.getpid()) == usable
