"""No process serves on tables that are not this program's, however it is started."""

import os
import re
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import pytest
import sqlalchemy as sa
from structlog.testing import capture_logs

from quill.app import create_app
from quill.kit.database import Database
from quill.migrations import guard, state
from quill.migrations.state import SchemaState, WrongSchema
from quill.settings import Settings
from tests.accounts.browsers import like
from tests.published_api import Browser

pytestmark = pytest.mark.anyio


async def write_versions(database: Database, versions: Sequence[str]) -> None:
    async with database.writing() as session:
        await session.execute(sa.text("DELETE FROM alembic_version"))
        for version in versions:
            await session.execute(sa.text("INSERT INTO alembic_version VALUES (:version)"), {"version": version})


@pytest.mark.parametrize(
    ("versions", "expected"),
    [
        (["0001"], SchemaState.BEHIND),
        (["9999"], SchemaState.AHEAD),
        (["0001", "0002"], SchemaState.MIXED),
        ([], SchemaState.EMPTY),
    ],
)
async def test_application_does_not_start_on_other_tables(
    settings: Settings, database: Database, versions: list[str], expected: SchemaState
) -> None:
    await write_versions(database, versions)
    with capture_logs() as lines, pytest.raises(WrongSchema) as caught, Browser(create_app(settings)):
        pass
    assert caught.value.state is expected
    assert [(line["event"], line["state"]) for line in lines] == [("wrong_schema", expected.value)]
    assert re.search("quill migrate|upgrade this program|backup", lines[0]["remedy"])


async def test_start_asks_the_database_once(database: Database) -> None:
    sent: list[str] = []
    sa.event.listen(database.engine.sync_engine, "before_cursor_execute", lambda *call: sent.append(call[2]))
    await guard.require_schema(database)
    assert [statement for statement in sent if statement.startswith("SELECT")] == [
        "SELECT version_num FROM alembic_version"
    ]


async def test_start_waits_for_a_database_that_is_away_for_a_moment(
    settings: Settings, monkeypatch: pytest.MonkeyPatch
) -> None:
    troubles: list[Exception] = [OSError("refused"), sa.exc.InterfaceError("SELECT", {}, Exception("gone"))]
    real = state.require_current

    async def require_current(database: Database) -> None:
        if troubles:
            raise troubles.pop()
        await real(database)

    monkeypatch.setattr(guard, "RETRY_SECONDS", 0.01)
    monkeypatch.setattr(state, "require_current", require_current)
    with Browser(create_app(settings)) as client:
        assert client.get("/api/health/ready").status_code == 200
    assert troubles == []


async def test_start_does_not_wait_for_ever(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(guard, "WAIT_SECONDS", 0.05)
    monkeypatch.setattr(guard, "RETRY_SECONDS", 0.01)
    # A directory, and not a database in it.
    nowhere = f"sqlite+aiosqlite:///{settings.data_dir}"
    with (
        pytest.raises(sa.exc.OperationalError),
        Browser(create_app(like(settings).model_copy(update={"database_url": nowhere}))),
    ):
        pass


def test_bare_server_ends_with_an_error(tmp_path: Path) -> None:
    command = (sys.executable, "-m", "uvicorn", "--factory", "quill.app:from_environment", "--port", "0")
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUILL_")}
    ended = subprocess.run(  # noqa: S603 - the program under test
        command, env=kept | {"QUILL_DATA_DIR": str(tmp_path)}, capture_output=True, text=True, timeout=50, check=False
    )
    assert ended.returncode == 3
    assert "wrong_schema" in ended.stderr
    assert "quill migrate" in ended.stderr
