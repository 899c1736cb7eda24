"""One's own competencies."""

import dataclasses
from collections.abc import Sequence

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import service as auth
from quill.errors import OwnHighRiskCompetency, UserNotFound
from quill.identity import people
from quill.identity import service as identity
from quill.identity.people import Person
from quill.staff.service import rules
from quill.unit import Reader, Unit


async def get_competencies(reader: Reader, actor: Actor) -> Person:
    """Return the caller's account, with the competencies it holds.

    Raises:
        UserNotFound: 404, the account is gone.
    """
    person = await people.find_person(reader.session, actor.person_id)
    if person is None:
        raise UserNotFound
    audit.record(reader, actor, Act.COMPETENCIES_READ, subject=f"user:{actor.person_id}")
    return person


async def change_own_competencies(
    unit: Unit, actor: Actor, *, additional: Sequence[str] | None, removed: Sequence[str] | None
) -> Person:
    """Replace one's own additional or removed competencies; what is ``None`` stays.

    Ends one's other logins, as every change of rights does; this one goes on with the new rights.

    Raises:
        Unprocessable: 422, unknown competencies.
        OwnHighRiskCompetency: 403, one of high risk would be added (decisions, rule 16).
    """
    identity.check_catalogued(competencies=[*(additional or ()), *(removed or ())])
    before = await rules.lock(unit, actor.person_id)
    after = dataclasses.replace(
        before,
        additional_competencies=_sorted(additional, before.additional_competencies),
        removed_competencies=_sorted(removed, before.removed_competencies),
    )
    subject = f"user:{actor.person_id}"
    if rules.is_high_risk(rules.added_competencies(before, after)):
        refusal = OwnHighRiskCompetency()
        audit.record_refusal(unit, actor, Act.COMPETENCIES_CHANGE, reason=refusal.code, subject=subject)
        raise refusal
    if await people.save_person(unit, before, after):
        audit.record(unit, actor, Act.COMPETENCIES_CHANGE, subject=subject)
        await auth.end_logins(unit, actor.person_id, "rights_changed", but=actor.login_id)
    return after


def _sorted(wanted: Sequence[str] | None, held: tuple[str, ...]) -> tuple[str, ...]:
    return held if wanted is None else tuple(sorted(set(wanted)))
