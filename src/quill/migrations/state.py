"""How a database's tables stand to this program: asked at every start, and so without Alembic, which is large.

Alembic keeps the revision of the last step in a table; each step's file is named for its day, its revision and what it
does.
"""

import enum
import functools
from importlib import resources

import sqlalchemy as sa

from quill.kit.database import Database


class SchemaState(enum.StrEnum):
    """How a database's tables stand to this program."""

    CURRENT = "current"
    EMPTY = "empty"
    BEHIND = "behind"
    AHEAD = "ahead"
    MIXED = "mixed"


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
    """Return when a database's tables are the ones this program was written for; one statement.

    Raises:
        WrongSchema: they are absent, half-migrated, behind or newer.
        SQLAlchemyError: the database does not answer.
        OSError: it cannot be reached.
    """
    state = await state_of(database)
    if state is not SchemaState.CURRENT:
        raise WrongSchema(state)


async def state_of(database: Database) -> SchemaState:
    """Return how a database's tables stand to this program; one statement when there are any.

    Raises:
        SQLAlchemyError: the database does not answer.
        OSError: it cannot be reached.
    """
    found = await _found(database)
    if not found:
        return SchemaState.EMPTY
    if len(found) > 1:
        return SchemaState.MIXED
    if found[0] == revisions()[-1]:
        return SchemaState.CURRENT
    return SchemaState.BEHIND if found[0] in revisions() else SchemaState.AHEAD


async def _found(database: Database) -> list[str]:
    async with database.reading() as session:
        try:
            return list(await session.scalars(sa.text("SELECT version_num FROM alembic_version")))
        except (sa.exc.OperationalError, sa.exc.ProgrammingError):
            connection = await session.connection()
            # When it is something else than that there is no such table, this says so.
            if await connection.run_sync(lambda sync: sa.inspect(sync).has_table("alembic_version")):
                raise
            return []


@functools.cache
def revisions() -> tuple[str, ...]:
    """Return the revisions of every step that came with this program, the first one first."""
    files = (resources.files("quill.migrations") / "versions").iterdir()
    return tuple(sorted(file.name.split("_")[1] for file in files if file.name.endswith(".py")))
