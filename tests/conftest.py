"""What every test may use: a migrated database of its own, the whole application, and people who are signed in."""

import asyncio
import shutil
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from quill.app import create_app
from quill.kit.database import Database
from quill.migrations import runner
from quill.settings import Settings
from tests.clinic import Clinic
from tests.published_api import Browser


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def migrated(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return an empty SQLite file that the migrations made; copied for each test."""
    path = tmp_path_factory.mktemp("migrated") / "quill.sqlite3"

    async def make() -> None:
        database = Database(f"sqlite+aiosqlite:///{path}")
        await runner.upgrade(database)
        await database.dispose()

    asyncio.run(make())
    return path


@pytest.fixture
def settings(tmp_path: Path, migrated: Path) -> Settings:
    """Return settings of a test's own clinic: a fresh migrated database, cheap password hashing."""
    shutil.copy(migrated, tmp_path / "quill.sqlite3")
    return cheap_settings(tmp_path)


def cheap_settings(data_dir: Path, **overrides: object) -> Settings:
    """Return settings for tests; Argon2 at its least, because its cost is not what they are about."""
    values: dict[str, object] = {
        "data_dir": data_dir,
        "argon2_time_cost": 1,
        "argon2_memory_kib": 8,
        "argon2_parallelism": 1,
        "public_url": "http://testserver",
        "log_level": "error",
    }
    return Settings.model_validate(values | overrides)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """Return the test's migrated database."""
    database = Database(settings.resolved_database_url)
    yield database
    await database.dispose()


@pytest.fixture(scope="session")
def application(tmp_path_factory: pytest.TempPathFactory) -> FastAPI:
    """Return the application, assembled once; each test starts it anew on a database of its own."""
    return create_app(cheap_settings(tmp_path_factory.mktemp("unused")))


@pytest.fixture
def client(application: FastAPI, settings: Settings) -> Iterator[TestClient]:
    """Return a browser without a login at a running application; it checks every answer."""
    application.state.settings = settings
    with Browser(application, raise_server_exceptions=False) as client:
        yield client


@pytest.fixture
def clinic(client: TestClient) -> Clinic:
    """Return a clinic to be filled: makes organisations, people and patients, and signs people in."""
    return Clinic(client)
