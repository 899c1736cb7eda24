"""Alembic's entry: runs migrations on the connection it is given, or on the configured database."""

import asyncio
from typing import Any, Literal

import sqlalchemy as sa
from alembic import context
from sqlalchemy.engine import Connection

from quill.kit.database import Database, UtcDateTime
from quill.settings import Settings
from quill.tables import is_compared, metadata

LOCK_TIMEOUT_SECONDS = 10
STATEMENT_TIMEOUT_SECONDS = 300
"""A migration that cannot get its lock gives up instead of queueing every reader behind it."""


def _render(kind: str, item: Any, autogen_context: Any) -> str | Literal[False]:
    del autogen_context
    if kind == "type" and isinstance(item, UtcDateTime):
        return "sa.DateTime(timezone=True)"
    return False


def _run(connection: Connection) -> None:
    is_sqlite = connection.dialect.name == "sqlite"
    if is_sqlite and not connection.in_transaction():
        # SQLite has no advisory lock: its write lock, taken before the state is read and kept to the end, is one.
        connection.begin()
    if connection.dialect.name == "postgresql":
        connection.execute(sa.text(f"SET lock_timeout = '{LOCK_TIMEOUT_SECONDS}s'"))
        connection.execute(sa.text(f"SET statement_timeout = '{STATEMENT_TIMEOUT_SECONDS}s'"))
        # The settings belong to the session; what follows is the migration's own transaction.
        connection.commit()
    context.configure(
        connection=connection,
        target_metadata=metadata,
        render_as_batch=is_sqlite,
        render_item=_render,
        include_name=is_compared,
        compare_type=True,
        transaction_per_migration=not is_sqlite,
    )
    with context.begin_transaction():
        context.run_migrations()


async def _run_on_configured_database() -> None:
    settings = Settings()
    if settings.database_url is None:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
    database = Database(settings.resolved_database_url)
    try:
        async with database.engine.connect() as connection:
            await connection.run_sync(_run)
            await connection.commit()
    finally:
        await database.dispose()


given = context.config.attributes.get("connection")
if given is not None:
    _run(given)
else:
    asyncio.run(_run_on_configured_database())
