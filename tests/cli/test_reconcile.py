"""``quill reconcile``: what the tables lack is mended from the stores, what a store has lost is told."""

import asyncio
from pathlib import Path
from typing import Any

import sqlalchemy as sa

from quill.kit.database import Database
from tests.cli.conftest import Run


def changed(tmp_path: Path, *statements: str) -> None:
    """Change the installation's tables behind its back."""

    async def work() -> None:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/data/quill.sqlite3")
        async with database.writing() as session:
            for statement in statements:
                await session.execute(sa.text(statement))
        await database.dispose()

    asyncio.run(work())


def found(tmp_path: Path, statement: str) -> list[tuple[Any, ...]]:
    async def work() -> list[tuple[Any, ...]]:
        database = Database(f"sqlite+aiosqlite:///{tmp_path}/data/quill.sqlite3")
        async with database.reading() as session:
            rows = [tuple(row) for row in await session.execute(sa.text(statement))]
        await database.dispose()
        return rows

    return asyncio.run(work())


def filled(quill: Run) -> None:
    assert quill("migrate").returncode == 0
    done = quill("demo", "--patients", "5", "--conversations", "3", "--messages", "9")
    assert done.returncode == 0, done.stderr


def test_tables_and_stores_agree_after_everyday_work(quill: Run) -> None:
    filled(quill)
    done = quill("reconcile")
    assert done.returncode == 0, done.stderr
    assert "Tables and stores agree." in done.stdout


def test_what_the_tables_lack_is_mended(quill: Run, tmp_path: Path) -> None:
    filled(quill)
    before = found(tmp_path, "SELECT patient_id, display_name FROM patient_index ORDER BY 1")
    messages = found(tmp_path, "SELECT id, body FROM message ORDER BY 1")
    changed(
        tmp_path,
        "DELETE FROM patient_identifier",
        "DELETE FROM patient_document WHERE patient_id IN (SELECT min(patient_id) FROM patient_index)",
        "DELETE FROM patient_index WHERE patient_id IN (SELECT min(patient_id) FROM patient_index)",
        "UPDATE patient_index SET version = 0, display_name = 'Old' WHERE patient_id = "
        "(SELECT max(patient_id) FROM patient_index)",
        "DELETE FROM message WHERE id = (SELECT max(id) FROM message)",
    )
    told = quill("reconcile", "--dry-run")
    assert told.returncode == 1
    assert "1 not in the tables" in told.stdout
    assert "1 older in the tables" in told.stdout
    assert found(tmp_path, "SELECT count(*) FROM patient_index") == [(len(before) - 1,)]
    done = quill("reconcile")
    assert done.returncode == 0, done.stdout + done.stderr
    assert found(tmp_path, "SELECT patient_id, display_name FROM patient_index ORDER BY 1") == before
    assert found(tmp_path, "SELECT id, body FROM message ORDER BY 1") == messages
    assert quill("reconcile", "--dry-run").returncode == 0


def test_what_a_store_has_lost_is_told_and_never_thrown_away(quill: Run, tmp_path: Path) -> None:
    filled(quill)
    lost = found(tmp_path, "SELECT fhir_communication_id FROM message WHERE id = (SELECT max(id) FROM message)")[0][0]
    changed(
        tmp_path,
        "DELETE FROM fhir_search_key WHERE id = "
        "(SELECT fhir_communication_id FROM message WHERE id = (SELECT max(id) FROM message))",
        "DELETE FROM fhir_resource WHERE id = "
        "(SELECT fhir_communication_id FROM message WHERE id = (SELECT max(id) FROM message))",
    )
    count = found(tmp_path, "SELECT count(*) FROM message")
    done = quill("reconcile")
    assert done.returncode == 1
    assert f"1 in the tables and not in the store: {lost}" in done.stdout
    assert "restore the store from its backup" in done.stderr
    assert found(tmp_path, "SELECT count(*) FROM message") == count
