"""What nobody may do to an account, whatever their level; asked by everything that changes one."""

from collections.abc import Iterable

from quill.actor import Actor, Level
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import (
    LastSuperadmin,
    OwnHighRiskCompetency,
    OwnLevel,
    QuillError,
    SuperadminMissing,
    UserNotFound,
)
from quill.identity import people
from quill.identity.catalogue import COMPETENCIES
from quill.identity.people import Person
from quill.kit.ids import UserId
from quill.unit import Unit


def check_may_administer(unit: Unit, actor: Actor, user_id: UserId | None, *levels: Level) -> None:
    """Refuse an admin who is not a superadmin to touch admins, or to make them (decisions, rule 14).

    Args:
        unit: where a refusal is recorded.
        actor: who wants to change an account.
        user_id: whose; ``None`` for one that is to be made.
        levels: the level the account has, and the one it is to have.

    Raises:
        SuperadminMissing: 403.
    """
    if any(level.reaches(Level.ADMIN) for level in levels) and not actor.level.reaches(Level.SUPERADMIN):
        _refuse(unit, actor, user_id, SuperadminMissing())


def check_change(
    unit: Unit, actor: Actor, before: Person, after: Person, superadmins: frozenset[UserId] = frozenset()
) -> None:
    """Refuse a change of rights that nobody, or not this actor, may make.

    Args:
        unit: where a refusal is recorded.
        actor: who wants it.
        before: the account as it stands.
        after: the account as it would be.
        superadmins: the active superadmins, locked; needed when level or activity would change.

    Raises:
        SuperadminMissing: 403, the account is an admin's, or would be.
        OwnLevel: 403.
        OwnHighRiskCompetency: 403.
        LastSuperadmin: 409.
    """
    check_may_administer(unit, actor, before.user_id, before.level, after.level)
    if actor.user_id == before.user_id:
        if after.level != before.level:
            _refuse(unit, actor, before.user_id, OwnLevel())
        if is_high_risk(added_competencies(before, after)):
            _refuse(unit, actor, before.user_id, OwnHighRiskCompetency())
    stays_superadmin = after.level is Level.SUPERADMIN and after.is_active
    if not stays_superadmin and before.user_id in superadmins and len(superadmins) == 1:
        _refuse(unit, actor, before.user_id, LastSuperadmin())


def added_competencies(before: Person, after: Person) -> frozenset[str]:
    """Return the competencies a change adds: newly held, or newly listed so that they would come back later."""
    listed = frozenset(after.additional_competencies) - frozenset(before.additional_competencies)
    # A registration makes those of the profession count, whether or not it is asked for at present.
    registered = after.registered_competencies - before.registered_competencies
    return listed | registered | (after.competencies - before.competencies)


def is_high_risk(competencies: Iterable[str]) -> bool:
    """Tell whether one of them is of high risk; the unknown are refused elsewhere."""
    return any(name in COMPETENCIES and COMPETENCIES[name].risk_level == "high" for name in competencies)


async def lock(unit: Unit, user_id: UserId) -> Person:
    """Return an account, held against other changes.

    Raises:
        UserNotFound: 404.
    """
    person = await people.lock_person(unit, user_id)
    if person is None:
        raise UserNotFound
    return person


def _refuse(unit: Unit, actor: Actor, user_id: UserId | None, error: QuillError) -> None:
    act, subject = (Act.USER_CHANGE, f"user:{user_id}") if user_id is not None else (Act.USER_CREATE, None)
    audit.record_refusal(unit, actor, act, reason=error.code, subject=subject)
    raise error
