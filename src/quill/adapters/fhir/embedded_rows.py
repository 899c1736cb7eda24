"""Resources as rows of the embedded store's tables, and back."""

import datetime
from typing import Any

from quill.adapters.fhir import queries
from quill.adapters.fhir.search_keys import SearchKeys
from quill.kit.documents import dumps, loads
from quill.ports.fhir import ResourceType, StoredResource

SMALLEST_STEP = datetime.timedelta(microseconds=1)
"""Two versions are at least so far apart."""
EPOCH = datetime.datetime(1970, 1, 1, tzinfo=datetime.UTC)


def stored_of(resource_type: ResourceType, row: queries.ResourceRow) -> StoredResource:
    """Return a row as the resource it holds."""
    return StoredResource(
        resource_type, row.id, row.version, row.last_updated, loads(row.document), is_deleted=row.is_deleted
    )


def version_row(stored: StoredResource) -> dict[str, Any]:
    """Return one version as a row of the history."""
    return {
        "resource_type": stored.resource_type,
        "id": stored.id,
        "version": stored.version,
        "last_updated": stored.last_updated,
        "is_deleted": stored.is_deleted,
        "document": dumps(stored.document),
    }


def current_row(stored: StoredResource, keys: SearchKeys) -> dict[str, Any]:
    """Return the newest version as a row of what can be searched."""
    return version_row(stored) | search_columns(keys)


def search_columns(keys: SearchKeys) -> dict[str, Any]:
    """Return the columns that are searched by, one value each."""
    return {"folded_names": keys.folded_names, "birth_date": keys.birth_date, "subject": keys.subject}


def key_rows(stored: StoredResource, keys: SearchKeys) -> list[dict[str, Any]]:
    """Return the rows of what a resource may have many of and is searched by."""
    return [
        {
            "resource_type": stored.resource_type,
            "id": stored.id,
            "parameter": parameter,
            "position": position,
            "system": system,
            "value": value,
        }
        for position, (parameter, system, value) in enumerate(keys.many)
    ]


def microseconds(instant: datetime.datetime) -> int:
    """Return an instant as microseconds since 1970, for a cursor."""
    return (instant - EPOCH) // SMALLEST_STEP


def instant_of(microseconds: int) -> datetime.datetime:
    """Return the instant so many microseconds after 1970; raises ``OverflowError`` where there is none."""
    return EPOCH + microseconds * SMALLEST_STEP
