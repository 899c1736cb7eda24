"""Rows for the trail and ways to meddle with it, as somebody with access to the database could."""

from collections.abc import Mapping
from pathlib import Path

import sqlalchemy as sa

from quill.audit.recorder import GroupRecorder
from quill.audit.seals import seal_pending
from quill.kit import clock
from quill.kit.database import Database
from quill.unit import AuditRow


def row(number: int = 0, **changes: object) -> AuditRow:
    made: dict[str, object] = {
        "occurred_at": clock.now(),
        "request_id": f"request-{number}",
        "actor_user_id": 7,
        "actor_name": "nurse",
        "login_id": "login-1",
        "source": "192.0.2.1",
        "act": "patient:read",
        "outcome": "allowed",
        "reason": "shared-organisation",
        "patient_id": f"patient-{number}",
        "subject": f"letter:{number}",
    }
    return made | changes


async def write(database: Database, count: int) -> None:
    async with GroupRecorder(database) as recorder:
        await recorder.record([row(number) for number in range(count)])


async def write_and_seal(database: Database, *counts: int, anchor_file: Path | None = None) -> None:
    """Make one seal of each count; event ids run from 1."""
    for count in counts:
        await write(database, count)
        assert await seal_pending(database, anchor_file) == count


async def meddle(database: Database, *statements: str, values: Mapping[str, object] | None = None) -> None:
    """Run statements with foreign keys off, as with the database file in hand."""
    async with database.engine.connect() as connection:
        raw = await connection.get_raw_connection()
        assert raw.driver_connection is not None
        await raw.driver_connection.execute("PRAGMA foreign_keys=OFF")
        for statement in statements:
            await raw.driver_connection.execute(statement, values or {})
        await raw.driver_connection.execute("PRAGMA foreign_keys=ON")


async def number_of(database: Database, table: str) -> int:
    async with database.reading() as session:
        return await session.scalar(sa.select(sa.func.count()).select_from(sa.table(table))) or 0


def text_of(file: Path) -> str:
    return file.read_text()


def rewrite(file: Path, text: str) -> None:
    file.write_text(text)
