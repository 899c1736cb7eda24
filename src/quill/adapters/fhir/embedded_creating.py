"""Writing a resource that was not there: row, version and keys, in as few statements as the database lets us."""

from collections.abc import Sequence
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.fhir.embedded_rows import current_row, key_rows, version_row
from quill.adapters.fhir.models import FhirResource, FhirResourceVersion, FhirSearchKey
from quill.adapters.fhir.search_keys import SearchKeys
from quill.ports.fhir import StoredResource

RESOURCE = cast("sa.Table", FhirResource.__table__)
VERSION = cast("sa.Table", FhirResourceVersion.__table__)
SEARCH_KEY = cast("sa.Table", FhirSearchKey.__table__)

INSERT_VERSION = sa.insert(VERSION)
INSERT_SEARCH_KEY = sa.insert(SEARCH_KEY)


async def create(session: AsyncSession, stored: StoredResource, keys: SearchKeys) -> bool:
    """Write a resource with its current version and what it is found by; tell whether its id was free.

    A writer who comes second waits for the first one's transaction, then writes nothing.
    """
    row, its_keys = current_row(stored, keys), key_rows(stored, keys)
    if session.get_bind().dialect.name == "postgresql":
        return await session.scalar(_CREATE, _values_at_once(row, its_keys)) == 1
    result = await session.execute(_INSERT_UNLESS_THERE, row, execution_options={"preserve_rowcount": True})
    if cast("sa.CursorResult[Any]", result).rowcount == 0:
        return False
    await session.execute(INSERT_VERSION, version_row(stored))
    if its_keys:
        await session.execute(INSERT_SEARCH_KEY, its_keys)
    return True


_INSERT_UNLESS_THERE = sqlite.insert(RESOURCE).on_conflict_do_nothing()


_OF_RESOURCE = [column for column in SEARCH_KEY.c if column.name in RESOURCE.c]
_OF_KEYS = [column for column in SEARCH_KEY.c if column.name not in RESOURCE.c]


def _create_at_once() -> sa.Select[int]:
    """Return PostgreSQL's one statement for all of it, which answers how many resources it wrote: one or none."""
    created = (
        postgresql.insert(RESOURCE)
        .values({column.name: sa.bindparam(f"its_{column.name}") for column in RESOURCE.c})
        .on_conflict_do_nothing()
        .returning(*RESOURCE.c)
        .cte("created")
    )
    version_columns = [column.name for column in VERSION.c]
    kept = sa.insert(VERSION).from_select(version_columns, sa.select(*(created.c[name] for name in version_columns)))
    arrays = [sa.bindparam(f"all_{column.name}", type_=postgresql.ARRAY(column.type)) for column in _OF_KEYS]
    columns = (sa.column(column.name, column.type) for column in _OF_KEYS)
    held = sa.func.unnest(*arrays).table_valued(*columns, name="held").render_derived()
    key_columns = [*(created.c[column.name] for column in _OF_RESOURCE), *(held.c[column.name] for column in _OF_KEYS)]
    found_by = sa.insert(SEARCH_KEY).from_select(
        [column.name for column in key_columns], sa.select(*key_columns).join_from(created, held, sa.true())
    )
    count = sa.select(sa.func.count()).select_from(created)
    return count.add_cte(kept.cte("kept"), found_by.cte("found_by"))


def _values_at_once(row: dict[str, Any], its_keys: Sequence[dict[str, Any]]) -> dict[str, Any]:
    arrays = {f"all_{column.name}": [key[column.name] for key in its_keys] for column in _OF_KEYS}
    return {f"its_{name}": value for name, value in row.items()} | arrays


_CREATE = _create_at_once()
