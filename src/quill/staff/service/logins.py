"""Other people's logins: seeing which are alive, and ending them when a device is lost."""

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth import logins
from quill.auth import service as auth
from quill.auth.logins import LoginLine
from quill.errors import LoginNotFound, UserNotFound
from quill.identity import people
from quill.kit.ids import LoginId, UserId
from quill.kit.paging import Page, PageRequest
from quill.staff.service import rules
from quill.unit import Reader, Unit

REASON = "ended_by_admin"


async def list_logins(reader: Reader, actor: Actor, user_id: UserId, page: PageRequest) -> Page[LoginLine]:
    """Return somebody's live logins, newest first.

    Raises:
        UserNotFound: 404.
    """
    if await people.find_person(reader.session, user_id) is None:
        raise UserNotFound
    audit.record(reader, actor, Act.LOGIN_LIST, subject=f"user:{user_id}")
    return await logins.list_live(reader.session, user_id, page)


async def end_logins(unit: Unit, actor: Actor, user_id: UserId) -> None:
    """End every login of somebody; their next request is 401.

    Raises:
        UserNotFound: 404.
        SuperadminMissing: 403, an admin wants to sign out another admin.
    """
    await _check(unit, actor, user_id)
    await auth.end_logins(unit, user_id, REASON)
    audit.record(unit, actor, Act.LOGIN_END, subject=f"user:{user_id}")


async def end_login(unit: Unit, actor: Actor, user_id: UserId, login_id: str) -> None:
    """End one login of somebody.

    Raises:
        UserNotFound: 404.
        SuperadminMissing: 403, an admin wants to sign out another admin.
        LoginNotFound: 404, the person has no such login, or it has ended.
    """
    await _check(unit, actor, user_id)
    if not await logins.end_one(unit, user_id, LoginId(login_id), REASON):
        raise LoginNotFound
    audit.record(unit, actor, Act.LOGIN_END, subject=f"login:{login_id}")


async def _check(unit: Unit, actor: Actor, user_id: UserId) -> None:
    person = await rules.lock(unit, user_id)
    if actor.user_id != user_id:
        rules.check_may_administer(unit, actor, user_id, person.level)
