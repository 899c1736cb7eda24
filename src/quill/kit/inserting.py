"""Rows of several tables added with one statement where the database takes that."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.sessions import Change, OneStatementSession


class Insertion(NamedTuple):
    """A row to be added.

    Attributes:
        statement: the insert, made once; it names no columns of its own where it is to go together with others.
        row: the values by column.
    """

    statement: sa.Insert
    row: Mapping[str, Any]


async def insert_together(session: AsyncSession, insertions: Sequence[Insertion]) -> None:
    """Add rows; one of each of several tables with one statement on PostgreSQL, several of a table in their order."""
    statements = tuple(insertion.statement for insertion in insertions)
    is_one_of_each = len(set(statements)) == len(statements) > 1
    if is_one_of_each and session.get_bind().dialect.name == "postgresql":
        names = tuple(tuple(insertion.row) for insertion in insertions)
        await session.execute(_as_one(statements, names), _values(insertions))
        return
    for statement, some in itertools.groupby(insertions, key=attrgetter("statement")):
        await session.execute(statement, [insertion.row for insertion in some])


@functools.lru_cache(maxsize=100)
def _as_one(statements: tuple[sa.Insert, ...], names: tuple[tuple[str, ...], ...]) -> sa.Select[int]:
    parts = [
        statement.values({column: sa.bindparam(_name(place, column)) for column in columns}).cte(f"row_{place}")
        for place, (statement, columns) in enumerate(zip(statements, names, strict=True))
    ]
    return sa.select(sa.literal_column("1", sa.Integer())).add_cte(*parts)


async def insert_if_changed(session: AsyncSession, change: Change, insertions: Sequence[Insertion]) -> bool:
    """Make a change and, if it meets any row, add rows of one table.

    Both are durable when this returns, without a transaction around them on PostgreSQL and in one step on SQLite.

    Args:
        session: for one statement (``Database.one_statement``).
        change: an update that returns no columns.
        insertions: at least one row, all by the same statement and with the same columns.

    Returns:
        Whether it met any; if not, nothing is written.
    """
    if isinstance(session, OneStatementSession):
        return await session.change_then(change, insertions[0].statement, [each.row for each in insertions])
    update, values = change
    statement = _as_one_if_changed(update, insertions[0].statement, tuple(insertions[0].row), len(insertions))
    return (await session.execute(statement, {**values, **_values(insertions)})).scalar_one() > 0


@functools.lru_cache(maxsize=100)
def _as_one_if_changed(update: sa.Update, insert: sa.Insert, columns: tuple[str, ...], rows: int) -> sa.Select[int]:
    changed = update.returning(sa.literal_column("1", sa.Integer()).label("one")).cte("changed")
    table = cast("sa.Table", insert.table)
    # One insert for all of them, since PostgreSQL promises no order among several.
    added = sa.union_all(
        *(
            sa.select(*(sa.bindparam(_name(place, column), type_=table.c[column].type) for column in columns)).where(
                sa.exists().select_from(changed)
            )
            for place in range(rows)
        )
    )
    return sa.select(sa.func.count()).select_from(changed).add_cte(insert.from_select(columns, added).cte("added"))


def _values(insertions: Sequence[Insertion]) -> dict[str, Any]:
    return {
        _name(place, column): value
        for place, insertion in enumerate(insertions)
        for column, value in insertion.row.items()
    }


def _name(place: int, column: str) -> str:
    return f"row_{place}_{column}"
