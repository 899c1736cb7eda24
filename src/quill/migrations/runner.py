"""Bringing a database up to date, and telling whether it is."""

import enum
import functools
from collections.abc import Callable
from importlib import resources

import sqlalchemy as sa
from alembic import command
from alembic.autogenerate import compare_metadata
from alembic.config import Config
from alembic.migration import MigrationContext
from alembic.script import ScriptDirectory
from sqlalchemy.engine import Connection

from quill.kit.database import Database
from quill.tables import is_compared, metadata

ADVISORY_LOCK = 0x5155494C4C
"""Number of the PostgreSQL lock that lets one migration run at a time."""


class SchemaState(enum.StrEnum):
    """How a database's tables stand to this program."""

    CURRENT = "current"
    EMPTY = "empty"
    BEHIND = "behind"
    AHEAD = "ahead"
    MIXED = "mixed"


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


class WrongSchema(RuntimeError):
    """The database's tables are not the ones this program was written for."""

    def __init__(self, state: SchemaState) -> None:
        super().__init__(sentence_about(state))
        self.state = state


def sentence_about(state: SchemaState) -> str:
    """Return what to do about tables that are not this program's."""
    if state is SchemaState.AHEAD:
        return "The database was migrated by a newer Quill; upgrade this program."
    if state is SchemaState.MIXED:
        return "The database's tables are of several versions at once; restore them from a backup."
    return f"The database's tables are {state.value}; run `quill migrate` first."


async def require_current(database: Database) -> None:
    """Return when a database's tables are the ones this program was written for; one statement when they are.

    Raises:
        WrongSchema: they are absent, half-migrated, behind or newer.
        SQLAlchemyError: the database does not answer.
        OSError: it cannot be reached.
    """
    async with database.reading() as session:
        try:
            found = list(await session.scalars(sa.text("SELECT version_num FROM alembic_version")))
        except (sa.exc.OperationalError, sa.exc.ProgrammingError):
            # Without migrations there is no such table; when it is something else, this says so.
            found = []
    if found != [_head()] and (state := await state_of(database)) is not SchemaState.CURRENT:
        raise WrongSchema(state)


async def state_of(database: Database) -> SchemaState:
    """Return how a database's tables stand to this program."""
    async with database.reading() as session:
        return await (await session.connection()).run_sync(_state)


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


def _state(connection: Connection) -> SchemaState:
    heads = MigrationContext.configure(connection).get_current_heads()
    if not heads:
        return SchemaState.EMPTY
    if len(heads) > 1:
        return SchemaState.MIXED
    if heads[0] == _head():
        return SchemaState.CURRENT
    known = {script.revision for script in ScriptDirectory.from_config(config()).walk_revisions()}
    return SchemaState.BEHIND if heads[0] in known else SchemaState.AHEAD


@functools.cache
def _head() -> str | None:
    return ScriptDirectory.from_config(config()).get_current_head()
