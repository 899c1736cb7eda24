"""What every start passes: nothing is served on tables that are not this program's."""

import asyncio

import structlog
from sqlalchemy.exc import SQLAlchemyError

from quill.kit import clock
from quill.kit.database import Database
from quill.kit.logs import where
from quill.migrations import state

WAIT_SECONDS = 30.0
"""How long a start waits for a database that does not answer, before it is left to whoever started us."""
RETRY_SECONDS = 0.5

log = structlog.get_logger()


async def require_schema(database: Database) -> None:
    """Return once the tables are seen to be this program's; a database that is away for a moment is waited for.

    Raises:
        WrongSchema: they are not.
        SQLAlchemyError: the database has not answered for all that time.
        OSError: the same.
    """
    deadline = clock.monotonic_seconds() + WAIT_SECONDS
    while True:
        try:
            return await state.require_current(database)
        except state.WrongSchema as error:
            log.error("wrong_schema", state=error.state.value, remedy=str(error))
            await database.dispose()
            raise
        except (SQLAlchemyError, OSError) as error:
            log.warning("database_away", cause=where(error))
            if clock.monotonic_seconds() >= deadline:
                await database.dispose()
                raise
        await asyncio.sleep(RETRY_SECONDS)
