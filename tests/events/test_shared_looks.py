"""Rights are looked up once for all streams that are told the same, and still at the moment of telling."""

import asyncio
from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import AsyncExitStack, asynccontextmanager, contextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import OperationalError

from quill.auth import service as auth
from quill.events import service as events
from quill.identity import catalogue
from quill.identity.models import OrganisationStaffMember, UserAccount
from quill.kit.ids import ConversationId
from quill.outbox import service as outbox
from quill.outbox.service import LiveEvent
from quill.unit import open_unit
from tests.events.conftest import FACTS, PATIENT, Browser, House, Listening, Told

pytestmark = pytest.mark.anyio

LETTER = LiveEvent("letter", PATIENT, None, {"composition_uid": "a::quill::1"})
GONE = Told("end", None, {"reason": "invalid_token"})


@pytest.fixture
async def colleagues(house: House) -> list[Browser]:
    organisation = await house.organisation(PATIENT)
    return [await house.person(f"reader{number}", organisations=[organisation]) for number in range(3)]


@asynccontextmanager
async def streams(browsers: Sequence[Browser], each: int) -> AsyncIterator[list[list[Listening]]]:
    """Open so many streams for each browser, and read what they begin with."""
    async with AsyncExitStack() as stack:
        opened = [[await stack.enter_async_context(browser.listening()) for _ in range(each)] for browser in browsers]
        for stream in flat(opened):
            await stream.next()
        yield opened


def flat(opened: list[list[Listening]]) -> list[Listening]:
    return [stream for of_one in opened for stream in of_one]


async def kinds_told(opened: Sequence[Listening]) -> set[str | None]:
    """Return what all of them are told next."""
    return {told.kind if told else None for told in await asyncio.gather(*(stream.next() for stream in opened))}


@contextmanager
def looks(house: House, task_name: str = "live-rights") -> Iterator[list[str]]:
    """Note the statements a task sends meanwhile; those about the rights of streams, if no other is named."""
    noted: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_: object) -> None:
        task = asyncio.current_task()
        if task is not None and task.get_name() == task_name:
            noted.append(statement)

    engine = house.services.database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield noted
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)


@pytest.mark.parametrize("each", [1, 8])
async def test_an_event_costs_as_many_statements_for_many_streams_as_for_one(
    house: House, colleagues: list[Browser], monkeypatch: pytest.MonkeyPatch, each: int
) -> None:
    monkeypatch.setattr(events, "RECHECK_SECONDS", 60.0)
    async with streams(colleagues, each) as opened:
        with looks(house) as noted:
            await house.publish(LETTER)
            assert await kinds_told(flat(opened)) == {"letter"}
    # All logins with their people, the patient's organisations, the grants for the patient.
    assert len(noted) == 3


async def test_a_conversation_is_decided_once_for_all_people(
    house: House, colleagues: list[Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "RECHECK_SECONDS", 60.0)
    house.readers[7] = {"reader0", "reader2"}
    async with streams(colleagues, 4) as opened:
        await house.message()
        assert await kinds_told([*opened[0], *opened[2]]) == {"message"}
        assert house.asked == [{"reader0", "reader1", "reader2"}]
        assert await opened[1][0].is_silent(0.2)


async def test_a_look_that_finds_no_event_asks_for_nobodys_rights(
    house: House, colleagues: list[Browser], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(events, "RECHECK_SECONDS", 60.0)
    async with streams(colleagues, 1):
        with looks(house) as noted:
            for _ in range(5):
                house.services.signals.notify(outbox.LIVE)
                await asyncio.sleep(0.02)
    assert noted == []


async def test_feed_asks_nothing_while_nobody_listens_and_who_comes_then_misses_nothing(
    house: House, colleagues: list[Browser]
) -> None:
    async with streams(colleagues, 1):
        pass
    await asyncio.sleep(0.1)
    with looks(house, "feed") as noted:
        for _ in range(5):
            await house.publish(LETTER)
            await asyncio.sleep(0.02)
        assert noted == []
        async with streams(colleagues, 1) as opened:
            await house.publish(LETTER)
            assert await kinds_told(flat(opened)) == {"letter"}
        assert noted


async def test_idle_streams_are_rechecked_together(house: House, colleagues: list[Browser]) -> None:
    async with streams(colleagues, 6):
        with looks(house) as noted:
            # Time for two rechecks.
            await asyncio.sleep(0.2)
    # Not eighteen for each recheck; where the machine is slow a few streams may ask after the others.
    assert 1 <= len(noted) <= 8


async def test_a_right_removed_between_two_events_is_gone_for_every_stream(
    house: House, colleagues: list[Browser]
) -> None:
    async with streams(colleagues, 5) as opened:
        await house.publish(LETTER)
        assert await kinds_told(flat(opened)) == {"letter"}
        async with open_unit(house.services, FACTS) as unit:
            is_first = OrganisationStaffMember.user_id == colleagues[0].user_id
            await unit.session.execute(sa.delete(OrganisationStaffMember).where(is_first))
            removed = {"removed_competencies": [catalogue.ACCESS_PATIENT_RECORDS]}
            is_second = UserAccount.id == colleagues[1].user_id
            await unit.session.execute(sa.update(UserAccount).where(is_second).values(removed))
        await house.publish(LETTER)
        assert await kinds_told(opened[2]) == {"letter"}
        for stream in [*opened[0], *opened[1]]:
            assert await stream.is_silent(0.02)


async def test_a_login_that_ended_ends_all_its_streams_and_no_others(house: House, colleagues: list[Browser]) -> None:
    async with streams(colleagues, 5) as opened:
        async with open_unit(house.services, FACTS) as unit:
            await auth.end_logins(unit, colleagues[0].user_id, "ended_by_admin")
            is_second = UserAccount.id == colleagues[1].user_id
            await unit.session.execute(sa.update(UserAccount).where(is_second).values(is_active=False))
        await house.publish(LETTER)
        assert [await stream.next() for stream in opened[0]] == [GONE] * 5
        assert [await stream.next() for stream in opened[1]] == [Told("end", None, {"reason": "inactive_user"})] * 5
        assert await kinds_told(opened[2]) == {"letter"}


async def test_a_login_of_somebody_signed_in_twice_ends_alone(house: House, colleagues: list[Browser]) -> None:
    browser = colleagues[0]
    elsewhere = await house.sign_in(browser.user_id, browser.username)
    async with streams([browser, elsewhere], 2) as opened:
        csrf = {"X-CSRF-Token": browser.client.cookies["XSRF-TOKEN"]}
        assert (await browser.client.post("/api/auth/logout", headers=csrf)).status_code == 200
        await house.publish(LETTER)
        assert [await stream.next() for stream in opened[0]] == [GONE] * 2
        assert await kinds_told(opened[1]) == {"letter"}


async def test_trouble_ends_every_stream(house: House, colleagues: list[Browser]) -> None:
    async with streams(colleagues, 3) as opened:
        house.failure = OperationalError("SELECT", {}, Exception("away"))
        await house.message()
        unavailable = Told("end", None, {"reason": "unavailable"})
        assert [await stream.next() for stream in flat(opened)] == [unavailable] * 9


async def test_streams_that_resume_at_different_places_are_each_told_their_own(
    house: House, colleagues: list[Browser]
) -> None:
    house.readers = {7: {"reader0", "reader1"}, 8: {"reader1"}}
    for number in range(1, 4):
        await house.message(7, number)
        await house.publish(LiveEvent("status", PATIENT, ConversationId(8)))
    async with (
        colleagues[0].listening(0) as first,
        colleagues[0].listening(3) as second,
        colleagues[1].listening(2) as third,
    ):
        await house.message(7, 4)
        assert await numbers_told(first, 5) == [0, 1, 3, 5, 7]
        assert await numbers_told(second, 3) == [3, 5, 7]
        assert await numbers_told(third, 6) == [2, 3, 4, 5, 6, 7]


async def numbers_told(stream: Listening, many: int) -> list[int | None]:
    return [told.number if told else None for told in [await stream.next() for _ in range(many)]]
