"""Numbers of conversations and messages, given out before the rows that will carry them are written.

They stand in the FHIR record, so that a projection rebuilt from FHIR keeps every number clients know. PostgreSQL's own
sequences give them out without anybody waiting; SQLite has one writer at a time, so a row that counts will do.
"""

from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects import sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from quill.conversations import queries
from quill.conversations.models import NumberSeries

Series = Literal["conversation", "message"]
"""Also the name of the table whose sequence it is on PostgreSQL."""


async def take(session: AsyncSession, series: Series, count: int = 1) -> list[int]:
    """Return numbers nobody else gets, in ascending order; one statement, however many."""
    if _is_sqlite(session):
        statement = (
            sqlite.insert(NumberSeries)
            .values(name=series, last=count)
            .on_conflict_do_update(index_elements=["name"], set_={"last": NumberSeries.last + count})
            .returning(NumberSeries.last)
        )
        last = (await session.execute(statement)).scalar_one()
        return list(range(last - count + 1, last + 1))
    return await queries.next_values(session, series, count)


async def skip_to(session: AsyncSession, series: Series, last: int) -> None:
    """Give out only numbers above one that is in use already."""
    if last < 1:
        return
    if _is_sqlite(session):
        await session.execute(
            sqlite.insert(NumberSeries)
            .values(name=series, last=last)
            .on_conflict_do_update(
                index_elements=["name"], set_={"last": sa.func.max(NumberSeries.last, last, type_=sa.BigInteger())}
            )
        )
        return
    # A sequence knows no "at least": take one, and go on from there or from what is in use.
    reached = (await take(session, series))[0]
    await queries.set_value(session, series, max(reached, last))


def _is_sqlite(session: AsyncSession) -> bool:
    return session.get_bind().dialect.name == "sqlite"
