"""The statements by which the embedded openEHR store is read most, made once; the values are given when executing."""

from typing import Any, TypeAlias, cast

import sqlalchemy as sa

from quill.adapters.openehr.models import Composition, Ehr
from quill.kit.database import UtcDateTime

Select: TypeAlias = sa.Select[*tuple[Any, ...]]
Row: TypeAlias = sa.Row[*tuple[Any, ...]]

_EHR = cast("sa.Table", Ehr.__table__)
_COMPOSITION = cast("sa.Table", Composition.__table__)

EHR_OF_SUBJECT = sa.select(_EHR.c.ehr_id).where(_EHR.c.subject_id == sa.bindparam("of_subject"))
"""The EHR of a patient."""

_MEANT = sa.func.coalesce(
    sa.bindparam("in_ehr", type_=_EHR.c.ehr_id.type), EHR_OF_SUBJECT.scalar_subquery(), type_=_EHR.c.ehr_id.type
)
"""The EHR by its id or, without one, by its subject."""

VERSIONS: Select = (
    sa.select(
        _COMPOSITION.c.object_id,
        _COMPOSITION.c.system_id,
        _COMPOSITION.c.version,
        _COMPOSITION.c.ehr_id,
        _COMPOSITION.c.committed_at,
        _COMPOSITION.c.content_hash,
        _COMPOSITION.c.document,
    )
    .where(
        _COMPOSITION.c.ehr_id == _MEANT,
        _COMPOSITION.c.object_id == sa.bindparam("of_object"),
    )
    .order_by(_COMPOSITION.c.version.desc())
)
"""Every version of a composition, newest first."""
NEWEST_VERSION = VERSIONS.where(_COMPOSITION.c.is_latest)
ONE_VERSION = VERSIONS.where(_COMPOSITION.c.version == sa.bindparam("the_version"))
"""One version, whatever system made it."""
ONE_VERSION_OF_SYSTEM = ONE_VERSION.where(_COMPOSITION.c.system_id == sa.bindparam("of_system"))
SOME_VERSIONS = VERSIONS.where(
    _COMPOSITION.c.version.in_(sa.bindparam("the_versions", type_=sa.Integer(), expanding=True))
)

FIRST_PAGE: Select = (
    sa.select(
        _COMPOSITION.c.object_id,
        _COMPOSITION.c.system_id,
        _COMPOSITION.c.version,
        _COMPOSITION.c.title,
        _COMPOSITION.c.started_at,
        _COMPOSITION.c.composer_name,
    )
    .where(
        _COMPOSITION.c.ehr_id == _MEANT,
        _COMPOSITION.c.template_id == sa.bindparam("of_template"),
        _COMPOSITION.c.is_latest,
    )
    .order_by(_COMPOSITION.c.started_at.desc(), _COMPOSITION.c.object_id.desc())
    .limit(sa.bindparam("most", type_=sa.Integer()))
)
"""The newest versions of an EHR's compositions of a template, newest ``started_at`` first."""
NEXT_PAGE = FIRST_PAGE.where(
    sa.tuple_(_COMPOSITION.c.started_at, _COMPOSITION.c.object_id)
    < sa.tuple_(sa.bindparam("before", type_=UtcDateTime()), sa.bindparam("before_object", type_=sa.Text()))
)
"""The same, from before a sort key on."""
