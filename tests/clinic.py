"""A clinic for tests: makes organisations, people and patients through the services, and acts through HTTP."""

import asyncio
from collections.abc import Callable, Sequence
from typing import Any

import sqlalchemy as sa
from argon2 import PasswordHasher
from starlette.testclient import TestClient

from quill.actor import Actor, Level
from quill.audit.models import AuditEvent
from quill.auth import cookies
from quill.auth.service import Authenticator
from quill.auth.sign_in import open_login
from quill.auth.tokens import TokenFacts, Tokens, TokenType
from quill.identity import service as identity
from quill.identity.service import NewPerson
from quill.kit import clock, ids
from quill.kit.ids import UserId
from quill.organisations.models import Organisation
from quill.patients import service as patients
from quill.settings import Settings
from quill.unit import RequestFacts, Services, Unit, open_unit
from tests.published_api import Browser
from tests.running import BACKGROUND_TASKS, call

PASSWORD = "correct horse battery"


class Person:
    """Somebody signed in: a browser with cookies of its own, which sends the CSRF token as a browser would."""

    def __init__(self, client: TestClient, user_id: int, username: str) -> None:
        # The same running application, but this person's own cookie jar.
        self.client = Browser(client.app, raise_server_exceptions=False)
        self.client.portal = client.portal
        self.id = user_id
        self.username = username

    def sign_in(self, password: str = PASSWORD, **extra: Any) -> Any:
        """Sign in and keep the cookies."""
        return self.client.post("/api/auth/login", json={"username": self.username, "password": password, **extra})

    def keep_login(self, tokens: Tokens, facts: TokenFacts) -> None:
        """Keep the cookies of a login, where a browser would."""
        for kind, name, path in (
            (TokenType.ACCESS, cookies.ACCESS_COOKIE, "/"),
            (TokenType.REFRESH, cookies.REFRESH_COOKIE, cookies.REFRESH_PATH),
            (TokenType.CSRF, cookies.CSRF_COOKIE, "/"),
        ):
            self.client.cookies.set(name, tokens.sign(kind, facts), domain="testserver.local", path=path)

    @property
    def csrf(self) -> dict[str, str]:
        """Return the header a browser adds to a call that changes something."""
        return {"X-CSRF-Token": self.client.cookies.get("XSRF-TOKEN") or ""}

    def get(self, url: str, **kwargs: Any) -> Any:
        """Read."""
        return self.client.get(url, **kwargs)

    def post(self, url: str, json: Any = None, headers: dict[str, str] | None = None, **kwargs: Any) -> Any:
        """Change something, with the CSRF token."""
        return self.client.post(url, json=json, headers=self.csrf | (headers or {}), **kwargs)

    def put(self, url: str, json: Any = None, headers: dict[str, str] | None = None, **kwargs: Any) -> Any:
        """Change something, with the CSRF token."""
        return self.client.put(url, json=json, headers=self.csrf | (headers or {}), **kwargs)

    def patch(self, url: str, json: Any = None, headers: dict[str, str] | None = None, **kwargs: Any) -> Any:
        """Change something, with the CSRF token."""
        return self.client.patch(url, json=json, headers=self.csrf | (headers or {}), **kwargs)

    def delete(self, url: str, headers: dict[str, str] | None = None, **kwargs: Any) -> Any:
        """Remove something, with the CSRF token."""
        return self.client.delete(url, headers=self.csrf | (headers or {}), **kwargs)


_hashes: dict[tuple[int, int, int, str], str] = {}


def hashed(settings: Settings, password: str) -> str:
    """Return the hash of a password as these settings want it, made once."""
    costs = settings.argon2_time_cost, settings.argon2_memory_kib, settings.argon2_parallelism
    made = _hashes.get((*costs, password))
    if made is None:
        hasher = PasswordHasher(time_cost=costs[0], memory_cost=costs[1], parallelism=costs[2])
        made = _hashes[*costs, password] = hasher.hash(password)
    return made


async def _audit_rows(unit: Unit, act: str) -> Sequence[sa.Row[Any]]:
    columns = AuditEvent.__table__.columns
    return (await unit.session.execute(sa.select(*columns).where(AuditEvent.act == act).order_by(AuditEvent.id))).all()


class Clinic:
    """Makes what a test needs, smallest valid thing first."""

    def __init__(self, client: TestClient) -> None:
        self.client = client
        self._count = 0

    @property
    def services(self) -> Services:
        """Return the running application's services."""
        services: Services = self.client.app.state.services  # type: ignore[attr-defined]
        return services

    @property
    def authenticator(self) -> Authenticator:
        """Return the running application's sign-in machinery."""
        authenticator: Authenticator = self.client.app.state.authenticator  # type: ignore[attr-defined]
        return authenticator

    def run(self, act: Any, *args: Any) -> Any:
        """Run an asynchronous function in the application's own event loop."""
        assert self.client.portal is not None
        return call(self.client.portal, act, *args)

    def in_unit(self, act: Any) -> Any:
        """Run ``act(unit)`` in a transaction of the application."""

        async def work() -> Any:
            async with open_unit(self.services, RequestFacts("test-setup", "test")) as unit:
                return await act(unit)

        return self.run(work)

    def selects(self, act: Callable[[], Any]) -> int:
        """Return how many selects the application sends to its database while ``act`` runs."""
        sent: list[str] = []

        def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
            # Sealer, sweep, outbox and feed work on their own time; audit rows are written with those of others.
            task = asyncio.current_task()
            is_background = task is not None and task.get_name() in BACKGROUND_TASKS
            if statement.startswith(("SELECT", "WITH")) and not is_background and "audit_" not in statement:
                sent.append(statement)

        engine = self.services.database.engine.sync_engine
        sa.event.listen(engine, "before_cursor_execute", note)
        try:
            act()
        finally:
            sa.event.remove(engine, "before_cursor_execute", note)
        return len(sent)

    def audited(self, act: str) -> Sequence[sa.Row[Any]]:
        """Return the audit rows of an act, in order of their numbers."""
        return self.in_unit(  # type: ignore[no-any-return]
            lambda unit: _audit_rows(unit, act)
        )

    def person(
        self,
        username: str | None = None,
        *,
        level: Level = Level.STAFF,
        profession: str = "general_practitioner",
        roles: Sequence[str] = (),
        organisations: Sequence[int] = (),
        patient_id: str | None = None,
        full_name: str | None = None,
        password: str = PASSWORD,
        is_signed_in: bool = True,
        **extra: Any,
    ) -> Person:
        """Make a person, staff of the organisations given, and sign in."""
        self._count += 1
        name = username or f"person{self._count}"

        async def make(unit: Unit) -> tuple[UserId, TokenFacts | None]:
            user_id = await identity.create_person(
                unit,
                Actor.job("test"),
                NewPerson(
                    username=name,
                    email=f"{name}@example.org",
                    password_hash=hashed(self.services.settings, password),
                    full_name=full_name,
                    level=level,
                    profession=profession,
                    roles=roles,
                    patient_id=patient_id,  # type: ignore[arg-type]
                    **extra,
                ),
            )
            for organisation_id in organisations:
                await identity.add_staff_membership(unit, organisation_id, user_id)  # type: ignore[arg-type]
            # The login a sign-in would make, without the way there: signing in has tests of its own.
            grant = await open_login(unit, self.authenticator, user_id, user_agent="tests") if is_signed_in else None
            return user_id, grant.facts if grant else None

        user_id, facts = self.in_unit(make)
        person = Person(self.client, user_id, name)
        if facts is not None:
            person.keep_login(self.authenticator.tokens, facts)
        return person

    def clinician(self, *organisations: int, **extra: Any) -> Person:
        """Make a general practitioner with the Clinician role."""
        return self.person(organisations=organisations, roles=["Clinician"], **extra)

    def admin(self, **extra: Any) -> Person:
        """Make an admin without an organisation."""
        return self.person(level=Level.ADMIN, profession="system_administrator", **extra)

    def superadmin(self, **extra: Any) -> Person:
        """Make a superadmin without an organisation."""
        return self.person(level=Level.SUPERADMIN, profession="system_administrator", **extra)

    def organisation(self, name: str = "Riverside Surgery", type: str = "gp_practice") -> int:  # noqa: A002 - the wire's word
        """Make an organisation and return its id."""

        async def make(unit: Unit) -> int:
            now = clock.now()
            row = Organisation(name=name, type=type, location=None, created_at=now, updated_at=now)
            unit.session.add(row)
            await unit.session.flush()
            return row.id

        return int(self.in_unit(make))

    def patient(self, *organisations: int, patient_id: str | None = None, **elements: Any) -> str:
        """Make a patient in the care of the organisations given and return the id; elements are FHIR's."""
        document: dict[str, Any] = {
            "resourceType": "Patient",
            "id": patient_id or ids.new_uuid(),
            "name": [{"use": "official", "family": "Jones", "given": ["Pat"]}],
            "gender": "female",
            "birthDate": "1980-02-29",
        } | elements

        async def make(unit: Unit) -> str:
            made = await patients.create(
                unit,
                Actor.job("test"),
                document,
                organisation_id=organisations[0] if organisations else None,  # type: ignore[arg-type]
            )
            for organisation_id in organisations[1:]:
                await identity.add_patient_membership(unit, organisation_id, made)  # type: ignore[arg-type]
            return made

        return str(self.in_unit(make))
