"""Sealing: every event once, whoever seals, whatever fails in between."""

import asyncio
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy import event
from sqlalchemy.ext.asyncio import AsyncSession

from quill.audit import queries, seals
from quill.audit.anchors import AnchorsUnreadable
from quill.audit.recorder import GroupRecorder
from quill.audit.seals import AnchorsAhead, Sealer, run_sealer, seal_pending
from quill.audit.verify import verify
from quill.kit.database import Database
from tests.audit.trail import meddle, number_of, rewrite, row, text_of, write, write_and_seal

pytestmark = pytest.mark.anyio


@pytest.fixture
def anchor_file(tmp_path: Path) -> Path:
    return tmp_path / "anchors.log"


def anchored_numbers(anchor_file: Path) -> list[int]:
    return [int(line.split()[0]) for line in text_of(anchor_file).splitlines()]


async def test_events_are_sealed_once(database: Database) -> None:
    await write(database, 5)
    assert await seal_pending(database) == 5
    assert await seal_pending(database) == 0
    await write(database, 2)
    assert await seal_pending(database) == 2
    report = await verify(database)
    assert (report.is_intact, report.seal_count, report.event_count, report.unsealed_count) == (True, 2, 7, 0)


async def test_many_events_are_sealed_in_several_seals(database: Database) -> None:
    await write(database, 2 * seals.SEAL_EVENTS + 1)
    assert await seal_pending(database) == 2 * seals.SEAL_EVENTS + 1
    assert await number_of(database, "audit_seal") == 3
    assert (await verify(database)).is_intact


async def test_an_empty_trail_has_no_seal(database: Database, anchor_file: Path) -> None:
    assert await seal_pending(database, anchor_file) == 0
    assert await number_of(database, "audit_seal") == 0
    assert (await verify(database)).is_intact


async def test_sealing_only_ever_reads_and_inserts(database: Database, anchor_file: Path) -> None:
    verbs: set[str] = set()

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        verbs.add(statement.split(maxsplit=1)[0])

    await write(database, 5)
    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    await seal_pending(database, anchor_file)
    assert verbs == {"SELECT", "INSERT", "BEGIN"}


async def test_two_sealers_at_once_seal_every_event_once(database: Database, tmp_path: Path) -> None:
    other = Database(str(database.engine.url))
    await write(database, 3000)
    sealers = [Sealer(database, tmp_path / "one.log"), Sealer(other, tmp_path / "two.log")]
    sealed = 0
    while sealed < 3000:
        sealed += sum(await asyncio.gather(*(sealer.seal_pending() for sealer in sealers)))
    await asyncio.gather(*(sealer.seal_pending() for sealer in sealers))
    await other.dispose()
    assert sealed == await number_of(database, "audit_seal_entry") == 3000
    for name in ("one.log", "two.log"):
        with (tmp_path / name).open() as lines:
            report = await verify(database, lines)
        assert (report.problem, report.event_count, report.unsealed_count) == (None, 3000, 0)
        assert report.anchor_count == report.seal_count == await number_of(database, "audit_seal")


async def test_the_sealer_that_comes_second_leaves_the_events_to_the_first(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Both have looked before either writes: the one order of things that a lucky schedule may not give."""
    await write(database, 10)
    both_looked = asyncio.Barrier(2)
    look = queries.list_unsealed_events

    async def look_and_wait(session: AsyncSession, after_id: int, limit: int) -> Sequence[queries.AnyRow]:
        events = await look(session, after_id, limit)
        await both_looked.wait()
        return events

    monkeypatch.setattr(queries, "list_unsealed_events", look_and_wait)
    assert sorted(await asyncio.gather(seal_pending(database), seal_pending(database))) == [0, 10]
    monkeypatch.undo()
    assert (await verify(database)).is_intact


async def test_a_row_committed_late_is_sealed_by_the_running_sealer(
    database: Database, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(seals, "OVERLAP_EVENTS", 10)
    sealer = Sealer(database)
    await write(database, 30)
    assert await sealer.seal_pending() == 30
    async with GroupRecorder(database) as recorder:
        await recorder.record([row(1, id=40)])
        assert await sealer.seal_pending() == 1
        await recorder.record([row(2, id=35)])
        assert await sealer.seal_pending() == 1
        await recorder.record([row(3, id=60)])
        assert await sealer.seal_pending() == 1
        await recorder.record([row(4, id=37)])
    assert await sealer.seal_pending() == 0, "further back than the overlap: the running sealer does not look there"
    assert (await verify(database)).unsealed_count == 1
    assert await seal_pending(database) == 1, "a sealer that starts looks at everything"
    assert (await verify(database)).is_intact


async def test_every_seal_is_anchored(database: Database, anchor_file: Path) -> None:
    await write_and_seal(database, 3, 4, anchor_file=anchor_file)
    async with database.reading() as session:
        kept = (await session.execute(sa.text("SELECT number, hash FROM audit_seal ORDER BY number"))).all()
    lines = [line.split() for line in text_of(anchor_file).splitlines()]
    assert [(int(number), seal_hash) for number, seal_hash, _ in lines] == [tuple(seal) for seal in kept]
    assert all(sealed_at.endswith("Z") for _, _, sealed_at in lines)


async def test_seals_left_without_anchor_by_a_crash_are_anchored_later(database: Database, anchor_file: Path) -> None:
    await write_and_seal(database, 1, anchor_file=anchor_file)
    await write_and_seal(database, 2, 2)
    assert await seal_pending(database, anchor_file) == 0
    assert anchored_numbers(anchor_file) == [1, 2, 3]


async def test_an_append_cut_short_by_a_crash_is_made_again(database: Database, anchor_file: Path) -> None:
    await write_and_seal(database, 1, 1, anchor_file=anchor_file)
    rewrite(anchor_file, text_of(anchor_file)[:-70])
    report = await verify(database, text_of(anchor_file).splitlines())
    assert (report.problem, report.anchor_count) == (None, 1)

    await write_and_seal(database, 1, anchor_file=anchor_file)
    report = await verify(database, text_of(anchor_file).splitlines())
    assert (report.problem, report.anchor_count) == (None, 3)


async def test_a_file_of_something_else_is_not_taken_for_anchors(database: Database, anchor_file: Path) -> None:
    rewrite(anchor_file, "first\nsecond\n")
    await write(database, 1)
    with pytest.raises(AnchorsUnreadable):
        await seal_pending(database, anchor_file)
    assert text_of(anchor_file) == "first\nsecond\n"
    assert (await verify(database)).event_count == 1


async def test_anchors_ahead_of_the_database_are_an_alarm(database: Database, anchor_file: Path) -> None:
    await write_and_seal(database, 2, 2, anchor_file=anchor_file)
    await meddle(
        database, "DELETE FROM audit_seal_entry WHERE seal_number = 2", "DELETE FROM audit_seal WHERE number = 2"
    )
    await meddle(database, "DELETE FROM audit_event WHERE id > 2")
    with pytest.raises(AnchorsAhead):
        await seal_pending(database, anchor_file)


async def wait_until_sealed(database: Database, count: int) -> None:
    while await number_of(database, "audit_seal_entry") < count:  # noqa: ASYNC110 - the database rings no bell
        await asyncio.sleep(0.01)


async def test_the_sealer_survives_trouble_and_seals_once_more_at_the_end(
    database: Database, anchor_file: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    await meddle(database, "ALTER TABLE audit_seal RENAME TO hidden")
    await write(database, 3)
    task = asyncio.create_task(run_sealer(database, anchor_file, interval_seconds=0.01))
    await asyncio.sleep(0.1)
    assert not task.done()
    assert "audit_sealing_failed" in "".join(capsys.readouterr())
    await meddle(database, "ALTER TABLE hidden RENAME TO audit_seal")
    await asyncio.wait_for(wait_until_sealed(database, 3), timeout=10)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    assert task.cancelled()

    task = asyncio.create_task(run_sealer(database, anchor_file, interval_seconds=600))
    await asyncio.sleep(0.05)
    await write(database, 2)
    task.cancel()
    await asyncio.gather(task, return_exceptions=True)
    with anchor_file.open() as lines:
        report = await verify(database, lines)
    assert (report.problem, report.event_count, report.unsealed_count) == (None, 5, 0)
    assert report.anchor_count == report.seal_count
