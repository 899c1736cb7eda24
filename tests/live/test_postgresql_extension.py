"""What searching by name needs of PostgreSQL: an extension that the database's owner may create, and others may not."""

import os
import secrets
from collections.abc import AsyncIterator

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import URL, make_url

from quill.kit.database import Database
from quill.migrations import CannotMigrate, runner, state
from quill.migrations.state import SchemaState

pytestmark = [pytest.mark.live("postgresql"), pytest.mark.anyio]


async def execute(url: URL, *statements: str) -> None:
    database = Database(url.render_as_string(hide_password=False))
    async with database.reading() as session:
        for statement in statements:
            await session.execute(sa.text(statement))
    await database.dispose()


@pytest.fixture
async def elsewhere() -> AsyncIterator[tuple[URL, URL]]:
    """Return an empty database as its administrator and as a role that may make tables in it."""
    server, name, password = (
        make_url(os.environ["QUILL_TEST_DATABASE_URL"]),
        f"quill_{os.getpid()}",
        secrets.token_hex(8),
    )
    await execute(server, f"CREATE ROLE {name} LOGIN PASSWORD '{password}'", f"CREATE DATABASE {name}")
    admin = server.set(database=name)
    await execute(admin, f"GRANT USAGE, CREATE ON SCHEMA public TO {name}")
    yield admin, admin.set(username=name, password=password)
    await execute(server, f"DROP DATABASE {name} WITH (FORCE)", f"DROP ROLE {name}")


async def test_role_that_may_not_create_the_extension_is_told_what_to_do(elsewhere: tuple[URL, URL]) -> None:
    admin, role = elsewhere
    database = Database(role.render_as_string(hide_password=False))
    with pytest.raises(CannotMigrate, match="CREATE EXTENSION pg_trgm"):
        await runner.upgrade(database)
    assert await state.state_of(database) is SchemaState.BEHIND
    await execute(admin, "CREATE SCHEMA tools", f"GRANT USAGE ON SCHEMA tools TO {role.username}")
    await execute(admin, "CREATE EXTENSION pg_trgm SCHEMA tools")
    await runner.upgrade(database)
    assert await runner.differences(database) == []
    await state.require_current(database)
    await database.dispose()


async def test_owner_of_the_database_needs_nobody(elsewhere: tuple[URL, URL]) -> None:
    admin, role = elsewhere
    await execute(admin, f"ALTER DATABASE {admin.database} OWNER TO {role.username}")
    database = Database(role.render_as_string(hide_password=False))
    await runner.upgrade(database)
    await state.require_current(database)
    await database.dispose()
