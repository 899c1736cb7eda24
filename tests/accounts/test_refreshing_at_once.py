"""What happens to a login between a refresh's look at it and its turn."""

import datetime
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.auth import queries
from quill.auth.models import Login
from quill.auth.service import GRACE_SECONDS
from quill.kit import clock
from quill.kit.ids import LoginId
from tests.accounts.browsers import is_signed_in, refused, told
from tests.clinic import Clinic, Person


@pytest.fixture
def happens(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> Any:
    """Return what has columns of every login set once, just after the next look at one."""
    looked = queries.login_with_person

    def set_up(**values: Any) -> None:
        async def look(session: AsyncSession, login_id: LoginId, *about: Any) -> Any:
            monkeypatch.setattr(queries, "login_with_person", looked)
            row = await looked(session, login_id, *about)
            async with clinic.services.database.writing() as other:
                await other.execute(sa.update(Login).values(**values))
            return row

        monkeypatch.setattr(queries, "login_with_person", look)

    return set_up


def refresh(person: Person) -> Any:
    return person.client.post("/api/auth/refresh")


def generation(clinic: Clinic) -> int:
    async def read(unit: Any) -> int:
        return int(await unit.session.scalar(sa.select(Login.generation)))

    return int(clinic.in_unit(read))


def test_login_that_ends_meanwhile_gets_no_tokens(clinic: Clinic, happens: Any) -> None:
    person = clinic.person()
    happens(ended_at=clock.now(), end_reason="signed_out")
    assert told(refresh(person)) == (401, "Bad refresh token")
    assert generation(clinic) == 1
    assert clinic.audited("token:refresh") == []


def test_login_refreshed_by_another_tab_meanwhile_gets_its_generation(clinic: Clinic, happens: Any) -> None:
    person = clinic.person()
    happens(generation=2, refreshed_at=clock.now())
    assert told(refresh(person)) == (200, "ok")
    assert generation(clinic) == 2
    assert is_signed_in(person)
    assert clinic.audited("token:refresh") == []


def test_token_that_became_old_meanwhile_ends_the_login(clinic: Clinic, happens: Any) -> None:
    person = clinic.person()
    long_ago = clock.now() - datetime.timedelta(seconds=GRACE_SECONDS + 1)
    happens(generation=3, refreshed_at=long_ago)
    assert told(refresh(person)) == (401, "Bad refresh token")
    assert not is_signed_in(person)
    assert [row.outcome for row in clinic.audited("token:reuse")] == ["refused"]
    assert clinic.audited("token:refresh") == []


def test_refresh_that_cannot_be_audited_changes_nothing(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    person = clinic.person()
    for _ in range(3):
        assert refresh(person).status_code == 200

    async def refuse(*_: object) -> bool:
        raise sa.exc.OperationalError("INSERT INTO audit_event", None, Exception("disk full"))

    with monkeypatch.context() as patched:
        patched.setattr("quill.audit.recorder.insert_if_changed", refuse)
        assert refused(refresh(person)) == (503, "audit_unavailable")
    assert generation(clinic) == 4
    assert refresh(person).status_code == 200
    assert is_signed_in(person)
