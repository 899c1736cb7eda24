"""Fresh migrated databases for tests, in milliseconds: a copied SQLite file, or a PostgreSQL template."""

import asyncio
import atexit
import os
import shutil
import tempfile
from pathlib import Path
from typing import Protocol

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import create_async_engine
from sqlalchemy.pool import NullPool

from quill.adapters.openehr.embedded import EmbeddedOpenEhrStore
from quill.kit.database import Database
from quill.letters.composition import TEMPLATE_ID, operational_template
from quill.migrations import runner

POSTGRESQL_URL = os.environ.get("QUILL_TEST_DATABASE_URL")
"""A PostgreSQL whose user may create databases; SQLite when unset."""


class Databases(Protocol):
    """Makes databases that hold every table and no row, one at a time and always under the same URL.

    The URL stays the same so that the application's engine can: compiling every statement anew for each test would
    cost more than most tests do.
    """

    @property
    def url(self) -> str:
        """Return where the database is."""
        ...

    def renew(self) -> None:
        """Replace the database by a new one; nobody may be connected."""
        ...

    def fresh(self, directory: Path) -> str:
        """Return the URL of another one, for tests that share a database among them."""
        ...

    def drop(self, url: str) -> None:
        """Remove such a one."""
        ...


class SqliteDatabases:
    """Copies a file that the migrations made."""

    def __init__(self, directory: Path) -> None:
        self._template = directory / "template.sqlite3"
        asyncio.run(_migrate(f"sqlite+aiosqlite:///{self._template}"))

        self._path = directory / "quill.sqlite3"

    @property
    def url(self) -> str:
        """Return where the database is."""
        return f"sqlite+aiosqlite:///{self._path}"

    def renew(self) -> None:
        """Replace the file by a copy of the template; whoever still has the old one open keeps the old one."""
        for suffix in ("", "-wal", "-shm"):
            self._path.with_name(self._path.name + suffix).unlink(missing_ok=True)
        shutil.copy(self._template, self._path)

    def fresh(self, directory: Path) -> str:
        """Return the URL of a copy in a directory."""
        shutil.copy(self._template, directory / "shared.sqlite3")
        return f"sqlite+aiosqlite:///{directory / 'shared.sqlite3'}"

    def drop(self, url: str) -> None:
        """Leave it to the directory's own end."""
        del url


class PostgresqlDatabases:
    """Makes databases from a template that the migrations made."""

    def __init__(self, url: str) -> None:
        self._admin = make_url(url)
        self._prefix = f"quill_test_{os.environ.get('PYTEST_XDIST_WORKER', 'main')}_{os.getpid()}"
        self._execute(f'CREATE DATABASE "{self._prefix}"')
        asyncio.run(_migrate(self._url(self._prefix)))

    @property
    def url(self) -> str:
        """Return where the database is."""
        return self._url(f"{self._prefix}_test")

    def renew(self) -> None:
        """Replace the database by a copy of the template, whoever is still connected."""
        self._execute(f'DROP DATABASE IF EXISTS "{self._prefix}_test" WITH (FORCE)')
        self._execute(f'CREATE DATABASE "{self._prefix}_test" TEMPLATE "{self._prefix}"')

    def fresh(self, directory: Path) -> str:
        """Return the URL of a copy of the template."""
        name = f"{self._prefix}_{directory.name}"[:63]
        self._execute(f'CREATE DATABASE "{name}" TEMPLATE "{self._prefix}"')
        return self._url(name)

    def drop(self, url: str) -> None:
        """Remove a database, whoever is still connected."""
        self._execute(f'DROP DATABASE IF EXISTS "{make_url(url).database}" WITH (FORCE)')

    def _url(self, name: str) -> str:
        return self._admin.set(database=name).render_as_string(hide_password=False)

    def _execute(self, statement: str) -> None:
        async def work() -> None:
            engine = create_async_engine(self._admin, poolclass=NullPool, isolation_level="AUTOCOMMIT")
            async with engine.connect() as connection:
                await connection.execute(sa.text(statement))
            await engine.dispose()

        asyncio.run(work())


async def _migrate(url: str) -> None:
    database = Database(url)
    await runner.upgrade(database)
    async with database.writing() as session:
        # Every start makes sure of the letter's template; the first has nothing to compare with and takes longest.
        await EmbeddedOpenEhrStore(session).ensure_template(TEMPLATE_ID, operational_template())
    await database.dispose()


def directory_for_files(factory: pytest.TempPathFactory, name: str) -> Path:
    """Return a directory for tests' files: in memory where the system has such a place, so that commits cost little.

    What a commit survives is not what these tests can show; ``tests/cli`` uses a real disk.
    """
    memory = Path("/dev/shm")  # noqa: S108 - what is made there is unique, and removed in the end
    if not (memory.is_dir() and os.access(memory, os.W_OK)):
        return factory.mktemp(name)
    directory = Path(tempfile.mkdtemp(prefix="quill-test-", dir=memory))
    atexit.register(shutil.rmtree, directory, ignore_errors=True)
    return directory


def make_databases(directory: Path) -> Databases:
    """Return the kind of databases this run of the suite is about."""
    return PostgresqlDatabases(POSTGRESQL_URL) if POSTGRESQL_URL else SqliteDatabases(directory)
