"""Every SELECT of the embedded FHIR store."""

import datetime
from typing import NamedTuple, TypeAlias, cast

import sqlalchemy as sa

from quill.adapters.fhir.models import FhirResource, FhirResourceVersion, FhirSearchKey
from quill.adapters.fhir.search_keys import IDENTIFIER, PART_OF, key_text, system_and_value
from quill.kit.database import UtcDateTime
from quill.kit.text import fold, like_pattern
from quill.ports.fhir import SearchQuery

_RESOURCE = cast("sa.Table", FhirResource.__table__)
_COLUMNS = (
    _RESOURCE.c.id,
    _RESOURCE.c.version,
    _RESOURCE.c.last_updated,
    _RESOURCE.c.is_deleted,
    _RESOURCE.c.document,
)


Rows: TypeAlias = sa.Select[str, int, datetime.datetime, bool, str]
"""A selection of resources: id, version, last_updated, is_deleted, document."""

ResourceRow: TypeAlias = sa.Row[str, int, datetime.datetime, bool, str]


class Position(NamedTuple):
    """The sort key of a row."""

    last_updated: datetime.datetime
    id: str


CURRENT = cast(
    "Rows",
    sa.select(*_COLUMNS).where(
        _RESOURCE.c.resource_type == sa.bindparam("of_type"),
        _RESOURCE.c.id == sa.bindparam("of_id"),
    ),
)
"""The current version of a resource, a deletion too; made once, because it is read all the time."""
LOCK_CURRENT = CURRENT.with_for_update()
"""The same, locked: writers of one resource pass one at a time."""


def lock_name(name: str) -> sa.Select[None]:
    """Take a lock on a name until the transaction ends (PostgreSQL): creators of one identifier pass one at a time."""
    return sa.select(sa.func.pg_advisory_xact_lock(sa.func.hashtextextended(name, 0)))


def versions(resource_type: str, resource_id: str) -> Rows:
    """Select every version, newest first."""
    version = FhirResourceVersion
    return (
        sa.select(version.id, version.version, version.last_updated, version.is_deleted, version.document)
        .where(version.resource_type == resource_type, version.id == resource_id)
        .order_by(version.version.desc())
    )


def all_versions(resource_type: str, after: tuple[str, int] | None, limit: int) -> Rows:
    """Select one page of all versions of all resources of a type, by id and version, and one row more."""
    version = FhirResourceVersion
    statement = sa.select(
        version.id, version.version, version.last_updated, version.is_deleted, version.document
    ).where(version.resource_type == resource_type)
    if after is not None:
        statement = statement.where(sa.tuple_(version.id, version.version) > sa.tuple_(*after))
    return statement.order_by(version.id, version.version).limit(limit + 1)


def any_resource() -> sa.Select[str]:
    """Select the id of any one resource."""
    return sa.select(FhirResource.id).limit(1)


def matching(resource_type: str, query: SearchQuery) -> Rows:
    """Select the current resources of a type that meet every criterion given."""
    criteria: list[sa.ColumnElement[bool]] = []
    if query.identifier is not None:
        criteria.append(_holds_identifier(resource_type, query.identifier))
    if query.part_of is not None:
        criteria.append(_has_key(resource_type, PART_OF, FhirSearchKey.value == query.part_of))
    if query.name is not None:
        criteria.append(FhirResource.folded_names.like(like_pattern(fold(query.name)), escape="\\"))
    if query.birth_date is not None:
        criteria.append(FhirResource.birth_date == query.birth_date.isoformat())
    if query.last_updated_from is not None:
        criteria.append(FhirResource.last_updated >= query.last_updated_from)
    if query.subject is not None:
        criteria.append(FhirResource.subject == query.subject)
    is_current = FhirResource.is_deleted.is_(False)
    return cast("Rows", sa.select(*_COLUMNS).where(_RESOURCE.c.resource_type == resource_type, is_current, *criteria))


def changed(resource_type: str, since: datetime.datetime) -> Rows:
    """Select the resources of a type written or deleted at an instant or later, each as it is now."""
    of_type = _RESOURCE.c.resource_type == resource_type
    return cast("Rows", sa.select(*_COLUMNS).where(of_type, _RESOURCE.c.last_updated >= since))


def page(statement: Rows, after: Position | None, limit: int) -> Rows:
    """Return one page of a selection by last update and id, and one row more to tell whether it goes on."""
    if after is not None:
        key = sa.tuple_(FhirResource.last_updated, FhirResource.id)
        statement = statement.where(key > sa.tuple_(sa.literal(after.last_updated, UtcDateTime()), after.id))
    return statement.order_by(FhirResource.last_updated, FhirResource.id).limit(limit + 1)


def _holds_identifier(resource_type: str, identifier: str) -> sa.ColumnElement[bool]:
    system, value = system_and_value(identifier)
    condition = FhirSearchKey.value == key_text(value)
    if system is not None:
        condition &= FhirSearchKey.system == key_text(system)
    return _has_key(resource_type, IDENTIFIER, condition)


def _has_key(resource_type: str, parameter: str, condition: sa.ColumnElement[bool]) -> sa.ColumnElement[bool]:
    return FhirResource.id.in_(
        sa.select(FhirSearchKey.id).where(
            FhirSearchKey.resource_type == resource_type, FhirSearchKey.parameter == parameter, condition
        )
    )
