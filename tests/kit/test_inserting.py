"""Rows of several tables that go together: all of them or none, with as few statements as the database takes."""

import asyncio
import datetime
from collections.abc import AsyncIterator
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.database import Database, UtcDateTime
from quill.kit.inserting import Insertion, insert_if_changed, insert_together

pytestmark = pytest.mark.anyio

TABLES = sa.MetaData()
LETTER = sa.Table(
    "letter",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("word", sa.String(20), nullable=False),
    sa.Column("sent_at", UtcDateTime),
)
STAMP = sa.Table("stamp", TABLES, sa.Column("id", sa.Integer, primary_key=True), sa.Column("colour", sa.String(20)))
ADD_LETTER, ADD_STAMP = sa.insert(LETTER), sa.insert(STAMP)
NOON = datetime.datetime(2026, 3, 1, 12, 0, 0, 123456, datetime.UTC)


@pytest.fixture
async def office(empty: str) -> AsyncIterator[Database]:
    database = Database(empty)
    async with database.engine.begin() as connection:
        await connection.run_sync(TABLES.create_all)
    yield database
    await database.dispose()


def letter(word: str | None) -> Insertion:
    return Insertion(ADD_LETTER, {"word": word, "sent_at": NOON})


def stamp(colour: str | None) -> Insertion:
    return Insertion(ADD_STAMP, {"colour": colour})


PAINT = (
    sa.update(STAMP)
    .where(STAMP.c.id == sa.bindparam("which"), STAMP.c.colour == sa.bindparam("old"))
    .values(colour=sa.bindparam("new"))
)


async def paint(office: Database, old: str, new: str, *letters: Insertion) -> bool:
    async with office.one_statement() as session:
        return await insert_if_changed(session, (PAINT, {"which": 1, "old": old, "new": new}), letters)


async def rows_of(session: AsyncSession, table: sa.Table) -> list[tuple[Any, ...]]:
    return [tuple(row) for row in await session.execute(sa.select(table).order_by(table.c.id))]


async def test_one_of_each_goes_with_one_statement_where_the_database_takes_it(office: Database) -> None:
    sent: list[str] = []
    async with office.writing() as session:
        for colour in ("red", None):
            await insert_together(session, [letter("a"), stamp(colour)])
    sa.event.listen(office.engine.sync_engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
    async with office.writing() as session:
        await insert_together(session, [letter("b"), stamp("blue")])
    async with office.reading() as session:
        assert await rows_of(session, LETTER) == [(1, "a", NOON), (2, "a", NOON), (3, "b", NOON)]
        assert await rows_of(session, STAMP) == [(1, "red"), (2, None), (3, "blue")]
    assert sum("INSERT" in statement for statement in sent) == (2 if office.is_sqlite else 1)


async def test_several_of_a_table_keep_their_order(office: Database) -> None:
    words = ["one", "two", "three", "four"]
    async with office.writing() as session:
        await insert_together(session, [*map(letter, words), stamp("red"), letter("five")])
        await insert_together(session, [])
    async with office.reading() as session:
        assert [word for _, word, _ in await rows_of(session, LETTER)] == [*words, "five"]


async def test_all_or_none_are_added(office: Database) -> None:
    for _ in range(2):
        with pytest.raises(sa.exc.IntegrityError):
            async with office.writing() as session:
                await insert_together(session, [stamp("red"), letter(None)])
    async with office.reading() as session:
        assert await rows_of(session, STAMP) == []


async def test_change_and_rows_are_written_together_or_not_at_all(office: Database) -> None:
    async with office.writing() as session:
        await insert_together(session, [stamp("red")])
    for turn, (old, new) in enumerate([("red", "blue"), ("blue", "green"), ("green", "red")]):
        assert await paint(office, old, new, letter(f"a{turn}"), letter(f"b{turn}"))
        # It is not that colour any more.
        assert not await paint(office, old, "grey", letter("none"))
        with pytest.raises(sa.exc.IntegrityError):
            await paint(office, new, "grey", letter("half"), letter(None))
        async with office.reading() as session:
            assert await rows_of(session, STAMP) == [(1, new)]
            words = [word for _, word, _ in await rows_of(session, LETTER)]
        assert words == [f"{name}{number}" for number in range(turn + 1) for name in "ab"]


async def test_of_many_who_make_one_change_one_does(office: Database) -> None:
    async with office.writing() as session:
        await insert_together(session, [stamp("red")])
    for turn in range(4):
        old, new = ("red", "blue") if turn % 2 == 0 else ("blue", "red")
        painted = await asyncio.gather(*(paint(office, old, new, letter(f"{turn}")) for _ in range(10)))
        assert sum(painted) == 1
    async with office.reading() as session:
        assert [word for _, word, _ in await rows_of(session, LETTER)] == ["0", "1", "2", "3"]


async def test_change_costs_one_statement_where_the_database_takes_it(office: Database) -> None:
    async with office.writing() as session:
        await insert_together(session, [stamp("red")])
    sent: list[str] = []
    sa.event.listen(office.engine.sync_engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
    assert await paint(office, "red", "blue", letter("a"))
    assert len(sent) == (3 if office.is_sqlite else 1), sent
