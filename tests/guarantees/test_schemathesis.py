"""Generated requests, good and bad, by everybody: no 5xx, no undocumented status, no answer unlike its schema.

A few examples for each operation by default; ``QUILL_SCHEMATHESIS_EXAMPLES=50`` makes a campaign of it, by every kind
of person and with schemathesis' boundary values.
"""

import asyncio
import os
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import pytest
import schemathesis
import sqlalchemy as sa
from fastapi import FastAPI
from hypothesis import HealthCheck, Phase, settings
from schemathesis.checks import load_all_checks
from schemathesis.generation.case import Case
from schemathesis.python.asgi import ASGIClient, get_client, shutdown_lifespans
from schemathesis.specs.openapi.checks import (
    ensure_resource_availability,
    ignored_auth,
    positive_data_acceptance,
    use_after_free,
)

from quill.app import create_app
from quill.auth.passwords import Passwords
from quill.auth.throttle import Throttle
from quill.cli.reference import published_document
from quill.identity.models import UserAccount
from quill.kit.database import Database
from tests.clinic import PASSWORD
from tests.conftest import cheap_settings
from tests.databases import Databases
from tests.guarantees.world import World
from tests.published_api import Browser

pytestmark = pytest.mark.thorough

EXAMPLES = int(os.environ.get("QUILL_SCHEMATHESIS_EXAMPLES", "0"))
IS_CAMPAIGN = EXAMPLES > 0
ROLES = ("staff", "patient", "admin", "anonymous") if IS_CAMPAIGN else ("whoever may",)

NOT_ASKED = [
    # JSON Schema cannot say everything: blank text, words of a catalogue, numbers that must exist are 400, 409 or 422.
    positive_data_acceptance,
    # The access table calls every route without a login.
    ignored_auth,
    # They are about sequences of calls, and each of ours stands alone.
    use_after_free,
    ensure_resource_availability,
]

# A stream has no end, and what it sends is a sequence rather than one value; tests/events are about it.
SCHEMA = schemathesis.openapi.from_dict(published_document()).exclude(path="/api/events")
SCHEMA.config.generation.update(with_security_parameters=False)
SCHEMA.config.phases.coverage.enabled = IS_CAMPAIGN

load_all_checks()


@dataclass
class House:
    """The running application, who may sign in, and ids that exist."""

    app: FastAPI
    client: ASGIClient
    usernames: dict[str, str]
    ids: dict[str, Any]
    password_hash: str

    async def mend(self, username: str) -> None:
        """Make somebody able to sign in with the password everybody began with."""
        database = Database(self.app.state.settings.resolved_database_url)
        values = {"is_active": True, "is_totp_enabled": False, "password_hash": self.password_hash}
        async with database.writing() as session:
            await session.execute(sa.update(UserAccount).where(UserAccount.username == username).values(**values))
        await database.dispose()

    def sign_in(self, kind: str) -> dict[str, str]:
        """Return the cookies of a new login."""
        self.app.state.authenticator.throttle = Throttle()
        if kind == "anonymous":
            return {}
        self.client.cookies.clear()
        body = {"username": self.usernames[kind], "password": PASSWORD}
        answer = self.client.post("/api/auth/login", json=body)
        if answer.status_code != 200:
            # Whoever came before was free to disable accounts and to change passwords.
            asyncio.run(self.mend(self.usernames[kind]))
            answer = self.client.post("/api/auth/login", json=body)
        assert answer.status_code == 200, answer.text
        cookies = {name: value for name, value in answer.cookies.items() if name != "refresh_token" and value}
        self.client.cookies.clear()
        return cookies


@pytest.fixture(scope="module")
def house(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[House]:
    directory = tmp_path_factory.mktemp("house")
    url = databases.fresh(directory)
    app = create_app(cheap_settings(directory, database_url=url))
    with Browser(app, raise_server_exceptions=False) as browser:
        world = World(browser)
        ids = {
            "patient_id": world.patient,
            "org_id": world.surgery,
            "conversation_id": world.shared,
            "composition_uid": world.letter.uid,
            "user_id": world.colleague.id,
            "feature_key": "letters",
            "request_id": world.new_join_request(),
        }
        usernames = {kind: person.username for kind, person in world.people.items()}
    password_hash = asyncio.run(Passwords(app.state.settings).hash(PASSWORD))
    with get_client(cast("Any", app)) as client:
        yield House(app, client, usernames, ids, password_hash)
    shutdown_lifespans()
    databases.drop(url)


@pytest.mark.parametrize("has_real_ids", [True, False] if IS_CAMPAIGN else [True])
@pytest.mark.parametrize("role", ROLES)
@SCHEMA.parametrize()
@settings(
    max_examples=EXAMPLES or 2,
    deadline=None,
    derandomize=True,
    database=None,
    phases=[Phase.explicit, Phase.generate],
    suppress_health_check=list(HealthCheck),
)
def test_every_answer_is_a_documented_one(case: Case[Any], role: str, house: House, *, has_real_ids: bool) -> None:
    kind = role if IS_CAMPAIGN else furthest(case)
    if has_real_ids:
        case.path_parameters = dict(case.path_parameters) | {
            name: value for name, value in house.ids.items() if name in case.path_parameters
        }
    cookies = house.sign_in(kind)
    headers = {"X-CSRF-Token": cookies["XSRF-TOKEN"]} if cookies else {}
    case.call_and_validate(
        session=house.client, app=house.app, headers=headers, cookies=cookies, excluded_checks=NOT_ASKED
    )


def furthest(case: Case[Any]) -> str:
    """Return whose call gets past the guard."""
    path = case.operation.path
    is_for_admins = path.startswith(("/api/organizations", "/api/users")) or path.endswith("activate")
    return "admin" if is_for_admins else "staff"
