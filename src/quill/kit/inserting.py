"""Rows of several tables added with one statement where the database takes that."""

import functools
import itertools
from collections.abc import Mapping, Sequence
from operator import attrgetter
from typing import Any, NamedTuple

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession


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
        values = {
            _name(place, column): value
            for place, insertion in enumerate(insertions)
            for column, value in insertion.row.items()
        }
        await session.execute(_as_one(statements, names), values)
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


def _name(place: int, column: str) -> str:
    return f"row_{place}_{column}"
