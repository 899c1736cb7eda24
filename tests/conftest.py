"""What every test may use: a migrated database of its own, the whole application, and people who are signed in."""

import gc
import logging
import secrets
import tempfile
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest
import structlog
from anyio.from_thread import BlockingPortal, start_blocking_portal
from fastapi import FastAPI
from starlette.testclient import TestClient

from quill.adapters.push.vapid import new_private_key
from quill.app import build_services, create_app
from quill.kit.database import Database
from quill.kit.logs import configure
from quill.settings import Settings
from tests.clinic import Clinic
from tests.databases import Databases, SqliteDatabases, directory_for_files, make_databases
from tests.published_api import Browser
from tests.running import running

# An application of a hundred routes is much to look through for every few hundred new objects.
gc.freeze()
gc.set_threshold(100_000, 50, 100)

SECRET_KEY = secrets.token_urlsafe(48)
VAPID_PRIVATE_KEY = new_private_key()


@pytest.fixture
def production_logs(request: pytest.FixtureRequest) -> Iterator[None]:
    """Log as in production, lines of JSON, until the test has ended; from a level that a parameter may give."""
    handlers, level = logging.root.handlers[:], logging.root.level
    configure(getattr(request, "param", "info"), as_json=True)
    yield
    structlog.reset_defaults()
    logging.root.handlers[:], logging.root.level = handlers, level


@pytest.fixture
def anyio_backend() -> str:
    """Run asynchronous tests on asyncio, as the server does."""
    return "asyncio"


@pytest.fixture(scope="session")
def memory(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a directory whose files are in memory where the system can do that."""
    return directory_for_files(tmp_path_factory, "files")


@pytest.fixture(scope="session")
def databases(memory: Path) -> Databases:
    """Return what makes migrated databases, on SQLite or on the PostgreSQL this run is given."""
    return make_databases(memory)


@pytest.fixture(scope="session")
def sqlite_databases(memory: Path) -> SqliteDatabases:
    """Return what makes migrated SQLite files, for tests about SQLite itself."""
    directory = memory / "sqlite"
    directory.mkdir()
    return SqliteDatabases(directory)


@pytest.fixture
async def sqlite_database(sqlite_databases: SqliteDatabases) -> AsyncIterator[Database]:
    """Return a migrated SQLite database, whatever the rest of the suite runs on."""
    sqlite_databases.renew()
    database = Database(sqlite_databases.url)
    yield database
    await database.dispose()


@pytest.fixture(scope="session")
def usual_settings(memory: Path, databases: Databases) -> Settings:
    """Return what the settings of all tests have in common, read and checked once."""
    return cheap_settings(memory / "unused", database_url=databases.url)


@pytest.fixture
def settings(memory: Path, databases: Databases, usual_settings: Settings) -> Settings:
    """Return settings of a test's own clinic: a fresh migrated database, an empty directory, cheap password hashing."""
    databases.renew()
    return usual_settings.model_copy(update={"data_dir": Path(tempfile.mkdtemp(dir=memory))})


def cheap_settings(data_dir: Path, **overrides: object) -> Settings:
    """Return settings for tests; Argon2 at its least, because its cost is not what they are about."""
    values: dict[str, object] = {
        "data_dir": data_dir,
        "argon2_time_cost": 1,
        "argon2_memory_kib": 8,
        "argon2_parallelism": 1,
        "public_url": "http://testserver",
        "log_level": "error",
        # Made once: writing secrets to disk for each test is not what tests are about either.
        "secret_key": SECRET_KEY,
        "vapid_private_key": VAPID_PRIVATE_KEY,
    }
    return Settings.model_validate(values | overrides)


@pytest.fixture
async def database(settings: Settings) -> AsyncIterator[Database]:
    """Return the test's migrated database."""
    database = Database(settings.resolved_database_url)
    yield database
    await database.dispose()


@pytest.fixture(scope="session")
def application(usual_settings: Settings) -> FastAPI:
    """Return the application, assembled once; each test starts it anew on a database of its own."""
    reused = Database(usual_settings.resolved_database_url)
    return create_app(usual_settings, open_services=lambda settings: build_services(settings, reused))


@pytest.fixture(scope="session")
def portal() -> Iterator[BlockingPortal]:
    """Return the way into the event loop that applications run in."""
    with start_blocking_portal("asyncio") as portal:
        yield portal


@pytest.fixture
def client(application: FastAPI, settings: Settings, portal: BlockingPortal) -> Iterator[TestClient]:
    """Return a browser without a login at a running application; it checks every answer."""
    application.state.settings = settings
    with running(application, portal):
        browser = Browser(application, raise_server_exceptions=False)
        browser.portal = portal
        yield browser


@pytest.fixture
def clinic(client: TestClient) -> Clinic:
    """Return a clinic to be filled: makes organisations, people and patients, and signs people in."""
    return Clinic(client)
