"""Statements handed to the driver directly: the same rows, errors and transactions as by SQLAlchemy's own way.

A statement goes SQLAlchemy's way the first time it is executed, and directly from then on; a new one made alike goes
SQLAlchemy's way once more, which is what the direct one is held against.
"""

import asyncio
import datetime
from collections.abc import AsyncIterator, Callable
from decimal import Decimal
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from quill.kit.database import Database, UtcDateTime, is_outage
from quill.kit.direct import Direct

pytestmark = [pytest.mark.anyio, pytest.mark.usefixtures("connections_end")]

TABLES = sa.MetaData()
THING = sa.Table(
    "thing",
    TABLES,
    sa.Column("id", sa.Integer, primary_key=True),
    sa.Column("name", sa.String(40), nullable=False, unique=True),
    sa.Column("is_good", sa.Boolean),
    sa.Column("made_at", UtcDateTime),
    sa.Column("facts", sa.JSON),
    sa.Column("content", sa.LargeBinary),
)
NOON = datetime.datetime(2026, 3, 1, 12, 0, 0, 123456, datetime.UTC)
ROWS: list[dict[str, Any]] = [
    {"id": 1, "name": "a", "is_good": True, "made_at": NOON, "facts": {"n": [1, None]}, "content": b"\x00\xff"},
    {"id": 2, "name": "b%", "is_good": False, "made_at": None, "facts": None, "content": None},
    {"id": 3, "name": "ç:d", "is_good": None, "made_at": NOON, "facts": "text", "content": b""},
]


@pytest.fixture
async def things(empty: str) -> AsyncIterator[Database]:
    """Return a database with three rows, and one connection: a session that held two would wait in vain."""
    database = Database(empty, pool_size=1)
    database.engine.sync_engine.pool._max_overflow = -1  # type: ignore[attr-defined]
    async with database.engine.begin() as connection:
        await connection.run_sync(TABLES.create_all)
        await connection.execute(sa.insert(THING), ROWS)
    yield database
    await database.dispose()


def directly(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """Return a list that grows with the text of each statement that goes directly."""
    texts: list[str] = []
    for name in ("execute", "execute_many"):
        original = getattr(Direct, name)

        async def heard(self: Direct, *args: Any, _original: Any = original) -> Any:
            texts.append(str(args[-1]))
            return await _original(self, *args)

        monkeypatch.setattr(Direct, name, heard)
    return texts


def _alike() -> dict[str, tuple[Callable[[], Any], list[dict[str, Any]]]]:
    named = sa.bindparam("name", type_=sa.String(40))
    names = sa.bindparam("names", type_=sa.String(40), expanding=True)
    return {
        "every type": (lambda: sa.select(THING).order_by(THING.c.id), [{}, {}]),
        "a value": (lambda: sa.select(THING.c.id).where(THING.c.name == named), [{"name": "b%"}, {"name": "x"}]),
        "an instant": (
            lambda: sa.select(THING.c.id).where(THING.c.made_at == sa.bindparam("at", type_=UtcDateTime)),
            [{"at": NOON}, {"at": NOON.astimezone(datetime.timezone(datetime.timedelta(hours=5)))}],
        ),
        "lists of every length": (
            lambda: sa.select(THING.c.id, THING.c.name).where(THING.c.name.in_(names)).order_by(THING.c.id),
            [{"names": []}, {"names": ["a"]}, {"names": ["a", "ç:d", "x"]}, {"names": ["b%"]}, {"names": []}],
        ),
        "a value twice": (
            lambda: (
                sa.select(THING.c.id).where(sa.or_(THING.c.name == named, THING.c.name > named)).order_by(THING.c.id)
            ),
            [{"name": "b%"}, {"name": "zz"}],
        ),
        "a value of its own": (lambda: sa.select(THING.c.id).where(THING.c.name == "a").limit(5), [{}, {}]),
        "labels and functions": (
            lambda: sa.select(sa.func.count().label("number"), sa.func.max(THING.c.made_at).label("newest")),
            [{}, {}],
        ),
        "strings put together": (
            lambda: sa.select(sa.func.aggregate_strings(THING.c.name, "\n").label("all")).where(THING.c.id < 2),
            [{}, {}],
        ),
        "a list by its numbers": (
            lambda: (
                sa.select(THING.c.name).where(THING.c.id.in_(sa.bindparam("ids", expanding=True))).order_by(THING.c.id)
            ),
            [{"ids": [3, 1]}, {"ids": (2,)}],
        ),
        "two selects": (
            lambda: sa.union_all(sa.select(THING.c.name), sa.select(sa.literal("%s").label("name"))).order_by("name"),
            [{}, {}],
        ),
    }


@pytest.mark.parametrize("kind", _alike())
async def test_rows_are_those_of_sqlalchemy(things: Database, monkeypatch: pytest.MonkeyPatch, kind: str) -> None:
    make, sets = _alike()[kind]
    statement, direct = make(), directly(monkeypatch)
    async with things.reading() as session:
        await session.execute(statement, sets[0])
    for number, values in enumerate(sets, start=1):
        async with things.reading() as session:
            found = await session.execute(statement, values)
            assert len(direct) == number
            expected = await session.execute(make(), values)
            assert found.keys() == expected.keys()
            rows, expected_rows = found.all(), expected.all()
            assert rows == expected_rows
            assert [row._asdict() for row in rows] == [row._asdict() for row in expected_rows]
    assert len(direct) == len(sets)


async def test_types_that_go_by_what_the_database_says_go_the_usual_way(things: Database) -> None:
    number = sa.literal_column("1.5", sa.Float()).label("number")
    exact = sa.cast(sa.literal_column("2.50"), sa.Numeric(4, 2)).label("exact")
    statement = sa.select(number, exact)
    async with things.reading() as session:
        for _ in range(3):
            row = (await session.execute(statement)).one()
            assert (type(row.number), row.number) == (float, 1.5)
            assert (type(row.exact), row.exact) == (Decimal, Decimal("2.50"))


async def test_statement_made_from_another_is_another(things: Database) -> None:
    everything = sa.select(THING.c.id).order_by(THING.c.id)
    async with things.reading() as session:
        for _ in range(3):
            assert list(await session.scalars(everything)) == [1, 2, 3]
            assert list(await session.scalars(everything.where(THING.c.id > 1))) == [2, 3]
            assert await session.scalar(everything.where(THING.c.id > 3)) is None


async def test_missing_value_is_refused_and_the_next_statement_is_answered(things: Database) -> None:
    statement = sa.select(THING.c.id).where(THING.c.name == sa.bindparam("name"))
    async with things.reading() as session:
        for _ in range(2):
            assert (await session.execute(statement, {"name": "a"})).scalar_one() == 1
        with pytest.raises(sa.exc.StatementError):
            await session.execute(statement, {"other": "a"})
        assert (await session.execute(statement, {"name": "a"})).scalar_one() == 1


async def test_directly_and_not_in_turns_with_one_connection(things: Database, monkeypatch: pytest.MonkeyPatch) -> None:
    statement, direct = sa.select(sa.func.count()).select_from(THING), directly(monkeypatch)
    async with things.reading() as session:
        for _ in range(3):
            assert await session.scalar(statement) == 3
            assert await session.scalar(sa.text("SELECT max(id) FROM thing")) == 3
            await things.let_go(session)
    assert len(direct) == 2


async def test_whoever_listens_hears_every_statement(things: Database) -> None:
    statement, heard = sa.select(THING.c.id), []

    def hear(_connection: object, _cursor: object, text: str, *_: object) -> None:
        heard.append(text)

    async with things.reading() as session:
        for _ in range(2):
            await session.execute(statement)
        sa.event.listen(things.engine.sync_engine, "before_cursor_execute", hear)
        await things.let_go(session)
        try:
            await session.execute(statement)
        finally:
            sa.event.remove(things.engine.sync_engine, "before_cursor_execute", hear)
    assert len(heard) == 1


INSERT, INSERT_ID = sa.insert(THING), sa.insert(THING).returning(THING.c.id)
RENAME = sa.update(THING).where(THING.c.id == sa.bindparam("which")).values(name=sa.bindparam("to"))
DELETE = sa.delete(THING).where(THING.c.id == sa.bindparam("which"))
COUNT = sa.select(sa.func.count()).select_from(THING)


async def _changed(session: AsyncSession, statement: Any, values: dict[str, Any]) -> int:
    result = await session.execute(statement, values)
    count: int = cast("Any", result).rowcount
    return count


async def _write(session: AsyncSession, base: int) -> None:
    """Add four rows, of which one is renamed and one deleted."""
    await session.execute(INSERT, {"id": base, "name": f"n{base}", "made_at": NOON})
    await session.execute(INSERT, tuple({"id": base + n, "name": f"n{base + n}", "facts": {"n": n}} for n in (1, 2)))
    assert (await session.execute(INSERT_ID, {"id": base + 3, "name": f"n{base + 3}"})).scalar_one() == base + 3
    assert await _changed(session, RENAME, {"which": base + 1, "to": f"m{base}"}) == 1
    assert await _changed(session, DELETE, {"which": base + 2}) == 1
    assert await _changed(session, DELETE, {"which": base + 2}) == 0


async def test_writes_are_kept_at_the_commit_and_undone_without_it(
    things: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    direct = directly(monkeypatch)
    for base in (10, 20, 30):
        async with things.writing() as session:
            await _write(session, base)
    assert len(direct) >= 14
    async with things.session() as session:
        await _write(session, 40)
        assert await session.scalar(COUNT) == 3 + 4 * 3
        await session.rollback()
        assert await session.scalar(COUNT) == 3 + 3 * 3
    async with things.reading() as session:
        kept = sa.select(THING.c.name, THING.c.made_at, THING.c.facts).where(THING.c.id >= 30).order_by(THING.c.id)
        assert (await session.execute(kept)).all() == [
            ("n30", NOON, None),
            ("m30", None, {"n": 1}),
            ("n33", None, None),
        ]


async def test_refused_write_leaves_the_transaction_to_its_savepoint(things: Database) -> None:
    async with things.writing() as session:
        await session.execute(INSERT, {"id": 50, "name": "first"})
        for _ in range(3):
            with pytest.raises(sa.exc.IntegrityError):
                async with session.begin_nested():
                    await session.execute(INSERT, {"id": 51, "name": "first"})
        for number in (53, 54, 55):
            async with session.begin_nested() as savepoint:
                await session.execute(INSERT, {"id": number, "name": str(number)})
                if number != 54:
                    await savepoint.rollback()
        await session.execute(INSERT, {"id": 52, "name": "second"})
    async with things.reading() as session:
        assert list(await session.scalars(sa.select(THING.c.id).where(THING.c.id > 10).order_by(THING.c.id))) == [
            50,
            52,
            54,
        ]


async def test_unless_there(things: Database) -> None:
    insert = (sqlite if things.is_sqlite else postgresql).insert(THING).on_conflict_do_nothing()
    for expected in (1, 0, 0):
        async with things.one_statement() as session:
            assert await _changed(session, insert, {"id": 60, "name": "once"}) == expected


async def test_one_statement_is_kept_whole_or_not_at_all(things: Database) -> None:
    insert = sa.insert(THING)
    for base in (100, 110, 120):
        async with things.one_statement() as session:
            await session.execute(insert, [{"id": base + n, "name": f"o{base + n}"} for n in range(3)])
        with pytest.raises(sa.exc.IntegrityError):
            async with things.one_statement() as session:
                await session.execute(insert, [{"id": base + 3, "name": f"o{base + 3}"}, {"id": base + 4, "name": "a"}])
    async with things.reading() as session:
        assert await session.scalar(COUNT) == 3 + 3 * 3


async def test_one_statement_may_return_what_it_wrote(things: Database) -> None:
    insert = sa.insert(THING).returning(THING.c.id)
    for number in (200, 201, 202):
        async with things.one_statement() as session:
            assert await session.scalar(insert, {"id": number, "name": f"r{number}"}) == number
    async with things.reading() as session:
        assert await session.scalar(COUNT) == 3 + 3


async def test_statement_that_is_wrong_is_told_as_by_sqlalchemy(things: Database) -> None:
    wrong: sa.Select[Any] = sa.select(sa.column("nothing")).select_from(sa.table("nowhere"))
    async with things.reading() as session:
        raised = []
        for _ in range(3):
            with pytest.raises(sa.exc.DBAPIError) as error:
                await session.execute(wrong)
            raised.append((type(error.value), error.value.connection_invalidated, type(error.value.orig)))
            await things.let_go(session)
        assert raised[0] == raised[1] == raised[2]
        assert await session.scalar(COUNT) == 3


async def test_database_that_lets_nobody_in_is_told_as_by_sqlalchemy(empty: str) -> None:
    elsewhere = make_url(empty).set(database=f"{make_url(empty).database}-nowhere/at-all")
    database = Database(elsewhere.render_as_string(hide_password=False))
    raised = []
    for _ in range(3):
        async with database.reading() as session:
            with pytest.raises(sa.exc.DBAPIError) as error:
                await session.execute(COUNT)
        assert is_outage(error.value)
        raised.append((type(error.value), error.value.connection_invalidated, type(error.value.orig)))
    assert raised[0] == raised[1] == raised[2]
    await database.dispose()


async def test_after_a_connection_broke_readers_go_on_and_writers_hear_of_it(things: Database) -> None:
    taken: list[Any] = []

    def note(_connection: object, _record: object, proxied: object) -> None:
        taken.append(proxied)

    async def fails(session: AsyncSession, statement: Any, values: dict[str, Any]) -> None:
        await taken[-1].driver_connection.close()
        with pytest.raises(sa.exc.DBAPIError) as error:
            await session.execute(statement, values)
        assert error.value.connection_invalidated
        assert is_outage(error.value)

    sa.event.listen(things.engine.sync_engine.pool, "checkout", note)
    try:
        async with things.reading() as session:
            await session.execute(COUNT)
        async with things.writing() as session:
            await session.execute(INSERT, {"id": 70, "name": "kept"})
        async with things.reading() as session:
            assert await session.scalar(COUNT) == 4
            await fails(session, COUNT, {})
            assert await session.scalar(COUNT) == 4
        async with things.session() as session:
            await session.execute(INSERT, {"id": 71, "name": "lost"})
            assert await session.scalar(COUNT) == 5
            await fails(session, INSERT, {"id": 72, "name": "not there"})
            for statement in (COUNT, sa.text("SELECT 1"), COUNT):
                with pytest.raises(sa.exc.PendingRollbackError):
                    await session.execute(statement)
            await session.rollback()
            assert await session.scalar(COUNT) == 4
    finally:
        sa.event.remove(things.engine.sync_engine.pool, "checkout", note)


async def test_abandoned_statement_leaves_nobody_its_rows(things: Database) -> None:
    """Whoever takes the one connection next gets their own rows, and not those of somebody who went away."""
    if things.is_sqlite:
        numbers = sa.select(sa.literal(1).label("n")).cte(recursive=True)
        numbers = numbers.union_all(sa.select(numbers.c.n + 1).where(numbers.c.n < sa.bindparam("long")))
        slow: sa.Select[Any] = sa.select(sa.func.count()).select_from(numbers)
        short, long = 5.0, 400_000.0
    else:
        slow = sa.select(sa.func.pg_sleep(sa.bindparam("long", type_=sa.Float)))
        short, long = 0.0, 0.5

    async def ask(size: float) -> None:
        async with things.reading() as session:
            await session.execute(slow, {"long": size})

    for _ in range(2):
        await ask(short)
    for _ in range(3):
        asking = asyncio.create_task(ask(long))
        await asyncio.sleep(0.02)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        async with things.reading() as session:
            assert await session.scalar(COUNT) == 3
