"""Bringing a database up to date, and back."""

from collections.abc import Callable
from importlib import resources

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from sqlalchemy.engine import Connection

from quill.kit.database import Database
from quill.tables import is_compared, metadata

ADVISORY_LOCK = 0x5155494C4C
"""Number of the PostgreSQL lock that lets one migration run at a time."""


def config() -> Config:
    """Return Alembic's configuration for the migrations that came with this program."""
    configuration = Config()
    configuration.set_main_option("script_location", str(resources.files("quill.migrations")))
    return configuration


async def upgrade(database: Database, revision: str = "head") -> None:
    """Bring a database up to a revision; a second process doing the same waits and then finds nothing to do."""
    async with database.engine.connect() as connection:
        await connection.run_sync(_upgrade, revision)


async def downgrade(database: Database, revision: str) -> None:
    """Take a database back to a revision; ``base`` removes every table."""
    async with database.engine.connect() as connection:
        await connection.run_sync(lambda sync: _with(sync, lambda c: command.downgrade(c, revision)))


async def differences(database: Database) -> list[str]:
    """Return what the migrations leave different from the models, a line each; empty when they agree."""

    def compare(connection: Connection) -> list[str]:
        context = MigrationContext.configure(connection, opts={"include_name": is_compared})
        return [str(item) for item in compare_metadata(context, metadata)]

    async with database.engine.connect() as connection:
        return await connection.run_sync(compare)


def _upgrade(connection: Connection, revision: str) -> None:
    is_postgresql = connection.dialect.name == "postgresql"
    if is_postgresql:
        connection.execute(sa.text(f"SELECT pg_advisory_lock({ADVISORY_LOCK})"))
        connection.commit()
    try:
        _with(connection, lambda c: command.upgrade(c, revision))
    finally:
        if is_postgresql:
            connection.rollback()
            connection.execute(sa.text(f"SELECT pg_advisory_unlock({ADVISORY_LOCK})"))
            connection.commit()


def _with(connection: Connection, act: Callable[[Config], None]) -> None:
    configuration = config()
    configuration.attributes["connection"] = connection
    act(configuration)
    connection.commit()
