"""What these tests share: browsers elsewhere, an authenticator app of our own, and a look into the mailbox."""

import base64
import datetime
import hmac
import struct
import time
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from quill.adapters.mail.log import LogMailer
from quill.identity.models import UserAccount
from quill.kit import clock
from quill.outbox.models import OutboxEntry
from quill.ports.delivery import Delivery
from quill.ports.mail import MailMessage
from quill.settings import Settings
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.conftest import cheap_settings
from tests.published_api import Browser


def stranger(clinic: Clinic, source: str = "testclient") -> Browser:
    """Return a browser without cookies at an address."""
    client = Browser(clinic.client.app, raise_server_exceptions=False, client=(source, 50000))
    client.portal = clinic.client.portal
    return client


def elsewhere(clinic: Clinic, person: Person, source: str = "testclient") -> Person:
    """Return the same person at another browser, not signed in."""
    other = Person(clinic.client, person.id, person.username)
    other.client = stranger(clinic, source)
    return other


def tries(client: TestClient, username: str, password: str = "wrong", **extra: Any) -> Any:  # noqa: S107 - wrong on purpose
    """Try to sign in."""
    return client.post("/api/auth/login", json={"username": username, "password": password, **extra})


def told(response: Any) -> tuple[int, str]:
    """Return the status of an answer and its sentence."""
    return response.status_code, response.json()["detail"]


def refused(response: Any) -> tuple[int, str]:
    """Return the status of a refusal and its code."""
    return response.status_code, response.json()["error_code"]


def is_signed_in(person: Person) -> bool:
    """Tell whether the person's cookies still open the door."""
    return bool(person.get("/api/auth/me").status_code == 200)


def at_once(act: Callable[[Any], Any], things: Iterable[Any]) -> list[Any]:
    """Return what ``act`` returned for each thing, all of them done at the same time."""
    listed = list(things)
    with ThreadPoolExecutor(len(listed)) as pool:
        return list(pool.map(act, listed))


class Mailbox:
    """Every mail the application sends, in place of the mailer that only logs."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self._sent: list[MailMessage] = []

        async def keep(_mailer: LogMailer, message: MailMessage) -> Delivery:
            self._sent.append(message)
            return Delivery.delivered()

        monkeypatch.setattr(LogMailer, "send", keep)

    def mails(self, clinic: Clinic, template: str | None = None) -> list[MailMessage]:
        """Return the mails sent so far, in the order of their making, once the queue is empty."""
        for _ in range(1000):
            if not clinic.in_unit(_pending_mails):
                break
            time.sleep(0.01)
        ordered = sorted(self._sent, key=lambda mail: mail.id)
        return [mail for mail in ordered if template in {None, mail.template}]

    def reset_token(self, clinic: Clinic) -> str:
        """Return the token of the newest reset mail."""
        link = self.mails(clinic, "password-reset")[-1].link
        assert link is not None
        return parse_qs(urlsplit(link).query)["token"][0]


async def _pending_mails(unit: Unit) -> int:
    statement = sa.select(sa.func.count()).select_from(OutboxEntry).where(OutboxEntry.state == "pending")
    return int(await unit.session.scalar(statement) or 0)


def like(settings: Settings, **changes: object) -> Settings:
    """Return the settings of a test with changes; the same data directory, the same database."""
    return cheap_settings(settings.data_dir, database_url=settings.database_url, **changes)


def account(clinic: Clinic, person: Person) -> UserAccount:
    """Return a person's row."""

    async def read(unit: Unit) -> UserAccount:
        row = await unit.session.get(UserAccount, person.id)
        assert row is not None
        return row

    found: UserAccount = clinic.in_unit(read)
    return found


def alter(clinic: Clinic, person: Person, **values: Any) -> None:
    """Change columns of a person's row behind the program's back."""

    async def write(unit: Unit) -> None:
        await unit.session.execute(sa.update(UserAccount).where(UserAccount.id == person.id).values(**values))

    clinic.in_unit(write)


def code_at(secret: str, instant: datetime.datetime | None = None, *, steps: int = 0) -> str:
    """Return what an authenticator app shows, written from RFC 6238 and RFC 4226 without any library of ours."""
    counter = int((instant or clock.now()).timestamp()) // 30 + steps
    digest = hmac.digest(base64.b32decode(secret), struct.pack(">Q", counter), "sha1")
    offset = digest[-1] & 15
    return f"{(struct.unpack('>I', digest[offset : offset + 4])[0] & 0x7FFFFFFF) % 10**6:06}"


def wrong_code(secret: str) -> str:
    """Return six digits that are not right at any step near now."""
    near = {code_at(secret, steps=steps) for steps in range(-3, 4)}
    return next(f"{number:06}" for number in range(10) if f"{number:06}" not in near)


def set_up_totp(person: Person) -> str:
    """Begin to set up the second factor and return the secret."""
    answer = person.post("/api/auth/totp/setup")
    assert answer.status_code == 200, answer.text
    return parse_qs(urlsplit(str(answer.json()["provision_uri"])).query)["secret"][0]


def enable_totp(person: Person) -> tuple[str, list[str]]:
    """Turn the second factor on with the code before the current one; return the secret and the recovery codes."""
    secret = set_up_totp(person)
    answer = person.post("/api/auth/totp/verify", {"code": code_at(secret, steps=-1)})
    assert answer.status_code == 200, answer.text
    return secret, answer.json()["recovery_codes"]
