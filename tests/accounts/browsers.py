"""What these tests share: browsers elsewhere, an authenticator app of our own, and a look into the mailbox."""

import base64
import datetime
import hmac
import json
import struct
from collections.abc import Callable, Iterable
from concurrent.futures import ThreadPoolExecutor
from typing import Any
from urllib.parse import parse_qs, urlsplit

import sqlalchemy as sa
from starlette.testclient import TestClient

from quill.identity.models import UserAccount
from quill.kit import clock
from quill.outbox.models import OutboxEntry
from quill.unit import Unit
from tests.clinic import PASSWORD, Clinic, Person


def stranger(clinic: Clinic, source: str = "testclient") -> TestClient:
    """Return a browser without cookies at an address."""
    client = TestClient(clinic.client.app, raise_server_exceptions=False, client=(source, 50000))
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


def mails(clinic: Clinic, template: str | None = None) -> list[dict[str, Any]]:
    """Return the mails in the queue, oldest first: ``to``, ``template``, ``facts``. The one place that knows how."""

    async def read(unit: Unit) -> list[dict[str, Any]]:
        statement = sa.select(OutboxEntry.payload).where(OutboxEntry.channel == "mail").order_by(OutboxEntry.id)
        return [json.loads(payload) for payload in await unit.session.scalars(statement) if payload]

    found: list[dict[str, Any]] = clinic.in_unit(read)
    return [mail for mail in found if template in {None, mail["template"]}]


def reset_token(clinic: Clinic) -> str:
    """Return the token of the newest reset mail."""
    link = str(mails(clinic, "password-reset")[-1]["facts"]["link"])
    return parse_qs(urlsplit(link).query)["token"][0]


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


__all__ = [
    "PASSWORD", "account", "alter", "at_once", "code_at", "elsewhere", "enable_totp", "is_signed_in", "mails",
    "refused", "reset_token", "set_up_totp", "stranger", "told", "tries", "wrong_code",
]  # fmt: skip
