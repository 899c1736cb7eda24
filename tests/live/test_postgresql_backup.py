"""Dumping and restoring a PostgreSQL with the scripts operators are given."""

import asyncio
import os
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url

from quill.kit.database import Database
from tests.databases import POSTGRESQL_URL, Databases

SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "postgresql"

ADD = "INSERT INTO organisation (name, type, created_at, updated_at) VALUES ('Riverside', 'gp_practice', now(), now())"

Script = Callable[..., "subprocess.CompletedProcess[str]"]


@pytest.fixture
def script() -> Script:
    url = make_url(POSTGRESQL_URL or "")
    programs = sorted(Path("/usr/lib/postgresql").glob("*/bin"), key=lambda path: int(path.parent.name))
    surroundings = os.environ | {
        "PATH": f"{programs[-1] if programs else ''}:{os.environ['PATH']}",
        "PGHOST": url.host or "",
        "PGPORT": str(url.port or 5432),
        "PGUSER": url.username or "",
        "PGPASSWORD": str(url.password or ""),
    }

    def run(name: str, *words: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run([SCRIPTS / name, *words], env=surroundings, capture_output=True, text=True, check=False)

    return run


async def change(url: str, *statements: str) -> None:
    database = Database(url)
    async with database.writing() as session:
        for statement in statements:
            await session.execute(sa.text(statement))
    await database.dispose()


async def names_at(url: str) -> list[str]:
    database = Database(url)
    async with database.reading() as session:
        found = list(await session.scalars(sa.text("SELECT name FROM organisation")))
    await database.dispose()
    return found


@pytest.mark.live("postgresql")
def test_dump_is_restored_into_an_empty_database_only(script: Script, databases: Databases, tmp_path: Path) -> None:
    for name in ("here", "there"):
        (tmp_path / name).mkdir()
    urls = [databases.fresh(tmp_path / name) for name in ("here", "there")]
    here, there = (make_url(url).database or "" for url in urls)
    asyncio.run(change(urls[0], ADD))
    made = script("backup.sh", str(tmp_path / "dumps"), here)
    assert made.returncode == 0, made.stderr
    place = Path(made.stdout.strip())
    assert sorted(path.name for path in place.iterdir()) == ["SHA256SUMS", f"{here}.dump"]
    assert [path for path in place.rglob("*") if path.stat().st_mode & 0o077] == []

    (place / f"{here}.dump").rename(place / f"{there}.dump")
    sums = place / "SHA256SUMS"
    sums.write_text(sums.read_text().replace(here, there))
    onto = script("restore.sh", str(place))
    assert onto.returncode == 1
    assert "is not empty" in onto.stderr
    asyncio.run(change(urls[1], "DROP SCHEMA public CASCADE", "CREATE SCHEMA public"))
    restored = script("restore.sh", str(place))
    assert restored.returncode == 0, restored.stderr
    assert asyncio.run(names_at(urls[1])) == ["Riverside"]

    (place / f"{there}.dump").write_bytes(b"something else")
    damaged = script("restore.sh", str(place))
    assert damaged.returncode == 1
    assert "not what was written" in damaged.stderr
    for url in urls:
        databases.drop(url)
