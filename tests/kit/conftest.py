"""Fixtures of the tests of connections."""

import asyncio
import threading
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from tests.databases import Databases


@pytest.fixture
def empty(databases: Databases, tmp_path: Path) -> Iterator[str]:
    """Return the address of a database without tables."""
    url = databases.empty(tmp_path)
    yield url
    databases.drop(url)


@pytest.fixture
async def connections_end() -> AsyncIterator[None]:
    """One whose caller was cancelled ends on its own time, and needs the test's loop for it."""
    others = threading.enumerate()
    yield
    for thread in [thread for thread in threading.enumerate() if thread not in others]:
        await asyncio.to_thread(thread.join, 5)
