"""Fixtures of the tests of connections."""

import asyncio
import threading
from collections.abc import AsyncIterator

import pytest


@pytest.fixture
async def connections_end() -> AsyncIterator[None]:
    """One whose caller was cancelled ends on its own time, and needs the test's loop for it."""
    others = threading.enumerate()
    yield
    for thread in [thread for thread in threading.enumerate() if thread not in others]:
        await asyncio.to_thread(thread.join, 5)
