"""What ties people to patients: the own record, shared organisations, grants."""

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, cast

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor, Level
from quill.identity.models import (
    ExternalAccess,
    OrganisationPatientMember,
    OrganisationStaffMember,
    UserAccount,
)
from quill.identity.queries.anybody import Anybody
from quill.identity.queries.people import ACCOUNT, SHOWN, of_levels, person_select
from quill.identity.terms import ActorShape, Count, Terms, actor_values
from quill.kit.ids import PatientId, UserId

# Core tables, which cost much less than ORM attributes; the aliases are for conditions within other slices' statements.
_ORGANISATION_PATIENT = cast("sa.Table", OrganisationPatientMember.__table__)
_ACCESS = cast("sa.Table", ExternalAccess.__table__)
_MEMBER = _ORGANISATION_PATIENT.alias("caring")
_GRANT = _ACCESS.alias("access_grant")


@dataclass(frozen=True, slots=True)
class Ties:
    """What rows say of somebody and a patient.

    Attributes:
        patient_id: about whom.
        shares_organisation: whether an organisation they work in cares for the patient.
        holds_grant: whether they hold an active grant for the patient's record.
    """

    patient_id: PatientId
    shares_organisation: bool
    holds_grant: bool


def related_patients(actor: Terms) -> sa.Select[str]:
    """Return the ids of the patients an actor is related to: own record, shared organisations, active grants.

    Whoever is related in several ways comes several times: it is meant for ``IN``, which sorts that out by itself.
    """
    branches = [granted_patients(actor)]
    if actor.organisations is not Count.NONE:
        branches.append(
            sa.select(_ORGANISATION_PATIENT.c.patient_id).where(actor.works_in(_ORGANISATION_PATIENT.c.organisation_id))
        )
    if actor.own_record_id is not None:
        branches.append(sa.select(actor.own_record_id))
    union = sa.union_all(*branches).subquery() if len(branches) > 1 else branches[0].subquery()
    return sa.select(union.c[0])


def is_related(actor: Terms, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the same as ``related_patients`` as a condition on one row, for walking a long list in its order."""
    # What most are related by comes first: PostgreSQL looks no further.
    return sa.or_(
        shares_organisation(actor, patient_id), holds_grant(actor, patient_id), actor.is_own_record(patient_id)
    )


def shares_organisation(actor: Terms, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the actor works in an organisation which cares for the patient of a row."""
    if actor.organisations is Count.NONE:
        return sa.false()
    member = sa.select(_MEMBER.c.patient_id).where(
        _MEMBER.c.patient_id == patient_id, actor.works_in(_MEMBER.c.organisation_id)
    )
    # Not EXISTS: PostgreSQL would rather gather every patient of the organisations than ask for the few of a page.
    return member.limit(1).scalar_subquery().is_not(None)


def holds_grant(actor: Terms, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
    """Return the condition that the actor holds an active grant for the patient of a row."""
    return sa.exists().where(
        actor.is_user(_GRANT.c.user_id), _GRANT.c.patient_id == patient_id, _GRANT.c.revoked_at.is_(None)
    )


def granted_patients(actor: Terms) -> sa.Select[str]:
    """Return the ids of the patients an actor holds an active grant for."""
    return sa.select(_ACCESS.c.patient_id).where(actor.is_user(_ACCESS.c.user_id), _ACCESS.c.revoked_at.is_(None))


def is_active_grant(patient_id: PatientId) -> sa.ColumnElement[bool]:
    """Return the condition that a grant is for a patient and has not been ended."""
    return sa.and_(ExternalAccess.patient_id == patient_id, ExternalAccess.revoked_at.is_(None))


def number_cared_for(actor: Terms, most: sa.ColumnElement[int]) -> sa.ScalarSelect[int]:
    """Return how many patients the actor's organisations have, each its own and up to ``most``, as an expression."""
    cared_for = sa.select(_ORGANISATION_PATIENT.c.patient_id).where(
        actor.works_in(_ORGANISATION_PATIENT.c.organisation_id)
    )
    return sa.select(sa.func.count()).select_from(cared_for.limit(most).subquery()).scalar_subquery()


def in_several(actor: Terms) -> sa.Select[str]:
    """Return the ids of the patients whom an organisation of the actor cares for that is not their primary one.

    Whoever is in two of the actor's organisations is among them, because only one can be primary.
    """
    organisation_id, is_primary = _ORGANISATION_PATIENT.c.organisation_id, _ORGANISATION_PATIENT.c.is_primary
    return sa.select(_ORGANISATION_PATIENT.c.patient_id).where(actor.works_in(organisation_id), sa.not_(is_primary))


SUBJECT = sa.bindparam("subject", type_=sa.String(64))
"""The patient whom a statement is about."""


def tie_columns(actor: Terms) -> tuple[sa.Label[bool], sa.Label[bool]]:
    """Return columns telling whether the actor shares an organisation with the ``SUBJECT``, and holds a grant."""
    return shares_organisation(actor, SUBJECT).label("shares"), holds_grant(actor, SUBJECT).label("holds")


@functools.cache
def person_with_ties_select() -> sa.Select[*tuple[Any, ...]]:
    """Return ``person_select`` with the ``tie_columns`` of each person, to be read by ``ties_from``."""
    return person_select().add_columns(*tie_columns(Anybody(Level.STAFF, ACCOUNT)))


@functools.cache
def _relationships(actor: ActorShape) -> sa.Select[bool, bool]:
    return sa.select(*tie_columns(actor))


async def relationships(session: AsyncSession, actor: Actor, patient_id: PatientId) -> Ties:
    """Return what ties the actor to a patient; one statement."""
    statement = _relationships(ActorShape.of(actor))
    row = (await session.execute(statement, actor_values(actor) | {"subject": patient_id})).one()
    return Ties(patient_id, shares_organisation=bool(row.shares), holds_grant=bool(row.holds))


_GRANT_HOLDERS = sa.select(_ACCESS.c.user_id).where(
    _ACCESS.c.patient_id == sa.bindparam("subject"),
    _ACCESS.c.revoked_at.is_(None),
    _ACCESS.c.user_id.in_(sa.bindparam("user_ids", type_=sa.Integer(), expanding=True)),
)


async def grant_holders(session: AsyncSession, patient_id: PatientId, user_ids: Collection[int]) -> set[int]:
    """Return those of some people who hold an active grant for a patient."""
    return set(await session.scalars(_GRANT_HOLDERS, {"subject": patient_id, "user_ids": list(user_ids)}))


async def holds_access(session: AsyncSession, user_id: UserId, patient_id: PatientId) -> bool:
    """Tell whether somebody has an active grant for a patient."""
    holds = sa.exists().where(is_active_grant(patient_id), ExternalAccess.user_id == user_id)
    return bool(await session.scalar(sa.select(holds)))


async def grants_page(
    session: AsyncSession, patient_id: PatientId, *, after: int, limit: int
) -> Sequence[sa.Row[*tuple[Any, ...]]]:
    """Return the active grants for a patient with who holds them, in order of their numbers.

    Args:
        session: where to look.
        patient_id: for whose record.
        after: number of a grant to continue after.
        limit: rows wanted.
    """
    result = await session.execute(
        sa.select(
            ExternalAccess.id,
            ExternalAccess.user_id,
            *SHOWN,
            ExternalAccess.granted_at,
            ExternalAccess.granted_by_user_id,
            ExternalAccess.access_level,
        )
        .join(UserAccount, UserAccount.id == ExternalAccess.user_id)
        .where(is_active_grant(patient_id), ExternalAccess.id > after)
        .order_by(ExternalAccess.id)
        .limit(limit)
    )
    return result.all()


def around_patient(patient_id: PatientId) -> sa.ColumnElement[bool]:
    """Return the condition that somebody is active and tied to a patient by an organisation or by an active grant.

    Memberships count from staff level upwards only, as they do for access.
    """
    colleagues = (
        sa.select(OrganisationStaffMember.user_id)
        .join(
            OrganisationPatientMember,
            OrganisationPatientMember.organisation_id == OrganisationStaffMember.organisation_id,
        )
        .where(OrganisationPatientMember.patient_id == patient_id)
    )
    invited = sa.select(ExternalAccess.user_id).where(
        ExternalAccess.patient_id == patient_id, ExternalAccess.revoked_at.is_(None)
    )
    is_staff = of_levels([level for level in Level if level.reaches(Level.STAFF)])
    return sa.and_(
        UserAccount.is_active,
        sa.or_(sa.and_(is_staff, UserAccount.id.in_(colleagues)), UserAccount.id.in_(invited)),
    )
