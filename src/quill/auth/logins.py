"""A person's logins, for those who look after them: seeing which are alive, ending one."""

import datetime
from dataclasses import dataclass

from sqlalchemy.ext.asyncio import AsyncSession

from quill.auth import queries
from quill.kit import clock
from quill.kit.ids import LoginId, UserId
from quill.kit.paging import Page, PageRequest, cursor_of
from quill.unit import Unit


@dataclass(frozen=True, slots=True)
class LoginLine:
    """A login that is alive: from where and with which browser; times are aware UTC instants."""

    id: LoginId
    source: str
    user_agent: str
    created_at: datetime.datetime
    refreshed_at: datetime.datetime
    expires_at: datetime.datetime


async def list_live(session: AsyncSession, user_id: UserId, page: PageRequest) -> Page[LoginLine]:
    """Return somebody's live logins, newest first."""
    after = page.after(str)
    rows = await queries.live_logins_page(
        session, user_id, clock.now(), after=str(after[0]) if after else None, limit=page.limit + 1
    )
    shown = rows[: page.limit]
    lines = [
        LoginLine(LoginId(row.id), row.source, row.user_agent, row.created_at, row.refreshed_at, row.expires_at)
        for row in shown
    ]
    return Page(lines, cursor_of(shown[-1].id) if len(rows) > page.limit else None)


async def end_one(unit: Unit, user_id: UserId, login_id: LoginId, reason: str) -> bool:
    """End one login of somebody, with what hangs on it; shows at the next request.

    Returns:
        Whether it was alive.
    """
    login = await queries.lock_login(unit.session, login_id)
    now = clock.now()
    if login is None or login.user_id != user_id or login.ended_at is not None or login.expires_at <= now:
        return False
    login.ended_at = now
    login.end_reason = reason
    await unit.session.flush()
    return True
