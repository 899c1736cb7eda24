from collections.abc import AsyncIterator
from pathlib import Path

import pytest

import quill.adapters.fhir.models  # noqa: F401 - declares its tables
from quill.kit.database import Base, Database


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'quill.sqlite3'}")
    async with database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    yield database
    await database.dispose()
