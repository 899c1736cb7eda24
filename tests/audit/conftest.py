"""A database of its own for every test, with the tables of the trail."""

from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import quill.audit.models  # noqa: F401 - registers the tables
from quill.kit.database import Base, Database


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    made = Database(f"sqlite+aiosqlite:///{tmp_path}/audit.sqlite3")
    async with made.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield made
    await made.dispose()
