"""Verification names the first thing amiss, whatever somebody with the database in hand has done."""

from pathlib import Path

import pytest

from quill.audit import queries
from quill.audit.chain import EVENT_COLUMNS, SealHash, leaf_hash
from quill.audit.verify import AuditReport, verify
from quill.kit.database import Database
from tests.audit.trail import meddle, rewrite, text_of, write, write_and_seal

pytestmark = pytest.mark.anyio

CHANGES = {
    "id": "99",
    "occurred_at": "'2020-01-01 00:00:00.000000'",
    "request_id": "'another'",
    "actor_user_id": "8",
    "actor_name": "'doctor'",
    "login_id": "NULL",
    "source": "'192.0.2.2'",
    "act": "'patient:list'",
    "outcome": "'refused'",
    "reason": "''",
    "patient_id": "'patient-9'",
    "subject": "NULL",
}


async def problem_of(database: Database, anchor_file: Path | None = None) -> str:
    report = await verify(database, text_of(anchor_file).splitlines() if anchor_file else ())
    assert not report.is_intact
    assert report.problem
    return report.problem


async def test_an_untouched_trail_is_intact(database: Database, tmp_path: Path) -> None:
    anchor_file = tmp_path / "anchors.log"
    await write_and_seal(database, 3, 1, 4, anchor_file=anchor_file)
    await write(database, 2)
    with anchor_file.open() as lines:
        report = await verify(database, lines)
    assert report == AuditReport(seal_count=3, event_count=8, unsealed_count=2, anchor_count=3, problem=None)
    assert report.is_intact


async def test_a_trail_longer_than_a_batch_is_walked_whole(
    database: Database, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    monkeypatch.setattr(queries, "BATCH_ROWS", 3)
    anchor_file = tmp_path / "anchors.log"
    await write_and_seal(database, 7, 3, 1, 1, 6, 2, 1, anchor_file=anchor_file)
    report = await verify(database, text_of(anchor_file).splitlines())
    assert report == AuditReport(seal_count=7, event_count=21, anchor_count=7)
    await meddle(database, "UPDATE audit_event SET act = 'x' WHERE id = 21")
    assert "Event 21," in await problem_of(database)


@pytest.mark.parametrize("column", EVENT_COLUMNS)
async def test_an_edit_of_any_column_is_named(database: Database, column: str) -> None:
    await write_and_seal(database, 3, 3)
    await meddle(database, f"UPDATE audit_event SET {column} = {CHANGES[column]} WHERE id = 5")
    assert "Event 5, under seal 2 at position 1, was " in await problem_of(database)


@pytest.mark.parametrize("text", ["yesterday", "", "2026-01-01T00:00:00", "2026-01-01 00:00:00.000000+05:00"])
async def test_a_time_that_is_none_is_named_as_an_edit(database: Database, text: str) -> None:
    await write_and_seal(database, 3)
    await meddle(database, "UPDATE audit_event SET occurred_at = :text WHERE id = 2", values={"text": text})
    assert "Event 2," in await problem_of(database)


async def test_the_first_of_several_is_named(database: Database) -> None:
    await write_and_seal(database, 3, 3)
    await meddle(
        database, "UPDATE audit_event SET act = 'x' WHERE id IN (3, 4, 6)", "DELETE FROM audit_event WHERE id = 5"
    )
    report = await verify(database)
    assert report.problem is not None
    assert "Event 3," in report.problem
    assert (report.seal_count, report.event_count) == (0, 2)


async def test_a_deleted_event_is_named(database: Database) -> None:
    await write_and_seal(database, 3, 3)
    await meddle(database, "DELETE FROM audit_event WHERE id = 4")
    assert "Event 4, under seal 2 at position 0, was deleted" in await problem_of(database)


@pytest.mark.parametrize(
    ("event_id", "named"),
    [
        (4, "The entry under seal 2 at position 0 is missing"),
        (5, "The entry under seal 2 at position 1 is missing"),
        (6, "Seal 2 was made over 3 events, but 2"),
    ],
)
async def test_an_event_deleted_with_its_entry_is_named(database: Database, event_id: int, named: str) -> None:
    await write_and_seal(database, 3, 3)
    await meddle(
        database,
        f"DELETE FROM audit_seal_entry WHERE event_id = {event_id}",
        f"DELETE FROM audit_event WHERE id = {event_id}",
    )
    assert named in await problem_of(database)


async def test_a_hidden_deletion_with_count_and_positions_mended_breaks_the_seal(database: Database) -> None:
    await write_and_seal(database, 3)
    await meddle(
        database,
        "DELETE FROM audit_seal_entry WHERE event_id = 3",
        "DELETE FROM audit_event WHERE id = 3",
        "UPDATE audit_seal SET event_count = 2",
    )
    assert "Seal 1 does not match" in await problem_of(database)


async def test_reordered_entries_are_named(database: Database) -> None:
    await write_and_seal(database, 4)
    await meddle(
        database,
        "UPDATE audit_seal_entry SET position = 77 WHERE event_id = 2",
        "UPDATE audit_seal_entry SET position = 1 WHERE event_id = 3",
        "UPDATE audit_seal_entry SET position = 2 WHERE event_id = 2",
    )
    assert "Event 2, under seal 1 at position 2, is out of order: it follows event 3" in await problem_of(database)


async def test_events_that_changed_places_are_named(database: Database) -> None:
    await write_and_seal(database, 4)
    await meddle(
        database,
        "UPDATE audit_event SET id = 77 WHERE id = 2",
        "UPDATE audit_event SET id = 2 WHERE id = 3",
        "UPDATE audit_event SET id = 3 WHERE id = 77",
    )
    assert "Event 2, under seal 1 at position 1, was changed" in await problem_of(database)


async def test_an_entry_moved_to_another_seal_is_named(database: Database) -> None:
    await write_and_seal(database, 2, 2)
    await meddle(database, "UPDATE audit_seal_entry SET seal_number = 2, position = 2 WHERE event_id = 2")
    assert "Seal 1 was made over 2 events, but 1" in await problem_of(database)


@pytest.mark.parametrize("number", [1, 2])
async def test_a_deleted_seal_is_named(database: Database, number: int) -> None:
    await write_and_seal(database, 2, 2, 2)
    await meddle(database, f"DELETE FROM audit_seal WHERE number = {number}")
    assert f"Seal {number} is missing" in await problem_of(database)


async def test_a_deleted_last_seal_is_named_by_its_entries(database: Database) -> None:
    await write_and_seal(database, 2, 2)
    await meddle(database, "DELETE FROM audit_seal WHERE number = 2")
    assert "Event 3 is entered under seal 2, which is not there" in await problem_of(database)


@pytest.mark.parametrize("number", [0, -5])
async def test_an_entry_below_the_first_seal_is_named(database: Database, number: int) -> None:
    await write_and_seal(database, 2)
    await meddle(database, f"INSERT INTO audit_seal_entry VALUES (50, {number}, 0, 'x')")
    assert f"Event 50 is entered under seal {number}, which is not there" in await problem_of(database)


@pytest.mark.parametrize(
    ("change", "named"),
    [
        ("hash = replace(hash, substr(hash, 1, 4), 'beef')", "Seal 2 does not match"),
        ("sealed_at = '2020-01-01 00:00:00.000000'", "Seal 2 does not match"),
        ("sealed_at = 'never'", "Seal 2 does not match"),
        ("previous_hash = substr(hash, 1, 64)", "Seal 2 does not follow"),
        ("event_count = 3", "Seal 2 was made over 3 events, but 2"),
        ("number = 9", "Seal 2 is missing; the next one there is seal 3"),
    ],
)
async def test_an_edited_seal_is_named(database: Database, change: str, named: str) -> None:
    await write_and_seal(database, 2, 2, 2)
    await meddle(database, f"UPDATE audit_seal SET {change} WHERE number = 2")
    assert named in await problem_of(database)


# ruff: noqa: S608 - the pieces are constants and numbers
FORGED = "INSERT INTO audit_event SELECT {id}, " + ", ".join(EVENT_COLUMNS[1:]) + " FROM audit_event WHERE id = 1"


async def test_a_forged_event_in_a_sealed_range_is_named(database: Database) -> None:
    await write_and_seal(database, 2, 2)
    await meddle(
        database,
        FORGED.format(id=50),
        "INSERT INTO audit_seal_entry SELECT 50, 1, 2, leaf_hash FROM audit_seal_entry WHERE event_id = 1",
    )
    assert "Event 50, under seal 1 at position 2, was changed" in await problem_of(database)


async def test_a_forged_event_with_a_fitting_leaf_is_named_by_the_count(database: Database) -> None:
    await write_and_seal(database, 2, 2)
    await meddle(database, FORGED.format(id=50))
    leaf = await leaf_of(database, 50)
    await meddle(database, "INSERT INTO audit_seal_entry VALUES (50, 1, 2, :leaf)", values={"leaf": leaf})
    assert "Seal 1 was made over 2 events, but 3" in await problem_of(database)


async def test_an_edit_with_a_fitting_leaf_breaks_the_seal(database: Database) -> None:
    await write_and_seal(database, 2, 2)
    await meddle(database, "UPDATE audit_event SET act = 'x' WHERE id = 3")
    leaf = await leaf_of(database, 3)
    await meddle(database, "UPDATE audit_seal_entry SET leaf_hash = :leaf WHERE event_id = 3", values={"leaf": leaf})
    assert "Seal 2 does not match" in await problem_of(database)


async def test_an_edit_with_a_fitting_seal_breaks_the_chain(database: Database) -> None:
    await write_and_seal(database, 1, 1)
    await rewrite_first_seal(database)
    assert "Seal 2 does not follow" in await problem_of(database)


async def test_a_chain_written_anew_shows_against_the_anchors(database: Database, tmp_path: Path) -> None:
    anchor_file = tmp_path / "anchors.log"
    await write_and_seal(database, 1, anchor_file=anchor_file)
    await rewrite_first_seal(database)
    assert (await verify(database)).is_intact
    assert "Seal 1 is not the one that was anchored" in await problem_of(database, anchor_file)


async def test_a_cut_tail_shows_against_the_anchors(database: Database, tmp_path: Path) -> None:
    anchor_file = tmp_path / "anchors.log"
    await write_and_seal(database, 2, 2, 2, anchor_file=anchor_file)
    await meddle(
        database,
        "DELETE FROM audit_event WHERE id > 2",
        "DELETE FROM audit_seal_entry WHERE seal_number > 1",
        "DELETE FROM audit_seal WHERE number > 1",
    )
    assert (await verify(database)).is_intact
    assert "Seal 2 was anchored but is not there; the seals end at 1" in await problem_of(database, anchor_file)


async def test_an_unreadable_anchor_line_is_named(database: Database, tmp_path: Path) -> None:
    anchor_file = tmp_path / "anchors.log"
    await write_and_seal(database, 1, 1, 1, anchor_file=anchor_file)
    lines = text_of(anchor_file).splitlines()
    rewrite(anchor_file, "\n".join([lines[0], "something else", lines[2]]))
    assert await problem_of(database, anchor_file) == "Line 2 of the anchors cannot be read."


async def leaf_of(database: Database, event_id: int) -> str:
    """Compute a leaf as a forger would, with the very code of the trail."""
    async with database.reading() as session:
        for event in await queries.list_unsealed_events(session, event_id - 1, 1):
            return leaf_hash(event)
        entries = [entry async for entry in queries.stream_entries(session, 9) if entry.event_id == event_id]
        return leaf_hash(entries[0][4:])


async def rewrite_first_seal(database: Database) -> None:
    """Change event 1 and mend its leaf and seal 1, whose only event it must be."""
    await meddle(database, "UPDATE audit_event SET act = 'x' WHERE id = 1")
    leaf = await leaf_of(database, 1)
    async with database.reading() as session:
        seal = await anext(queries.stream_seals(session, None, 1))
    forged = SealHash(seal.previous_hash, seal.number, seal.sealed_at, seal.event_count)
    forged.add(leaf)
    await meddle(database, "UPDATE audit_seal_entry SET leaf_hash = :leaf WHERE event_id = 1", values={"leaf": leaf})
    await meddle(database, "UPDATE audit_seal SET hash = :hash WHERE number = 1", values={"hash": forged.hexdigest()})
