"""Every published route and everybody who may call it: one table of what each is answered.

The columns are those of ``world.KINDS``; a row's call is well formed, and carries the CSRF token where one is needed.
A row about a patient is about the one whom the patient, the staff and the external with a grant are tied to. Source:
decisions, rules 14 to 25, and the roles of the wire contract.
"""

import asyncio
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import pytest
from fastapi import FastAPI

from quill.access.guards import Guard
from quill.actor import Level
from quill.app import create_app
from quill.edge.middleware import SAFE_METHODS
from quill.published import guards_of
from tests.clinic import PASSWORD, Person
from tests.conftest import cheap_settings
from tests.conversations.talk import grant
from tests.databases import Databases
from tests.guarantees.test_routes import ROUTES
from tests.guarantees.world import KINDS, World
from tests.letters.desk import LETTER
from tests.published_api import Browser
from tests.push.conftest import Browser as Device

#               anonymous, patient, unrelated, staff, elsewhere, external, without grant, admin, superadmin
EVERYBODY = "   200        200      200        200    200        200       200            200    200"
SIGNED_IN = "   401        200      200        200    200        200       200            200    200"
ADMINS = "      401        403      403        403    403        403       403            200    200"
READERS = "     401        200      404        200    404        200       404            200    200"
CLINICIANS = "  401        403      404        200    404        403       404            403    403"
EDITORS = "     401        403      404        200    404        403       404            200    200"
OWNERS = "      401        200      404        403    404        403       404            200    200"
INSIDE_ADMINS = "401       403      404        403    404        403       404            200    200"
NO_SUCH = "     401        404      404        404    404        404       404            404    404"


@dataclass(frozen=True)
class Call:
    """What a request holds besides its route."""

    path: Mapping[str, Any] = field(default_factory=dict)
    json: Any = None
    params: Mapping[str, str] | None = None
    headers: Mapping[str, str] = field(default_factory=dict)


Making = Callable[[World, Person], Call]


@dataclass(frozen=True)
class Row:
    """A call and what each kind of person is answered."""

    route: str
    answers: str
    making: Making = lambda _world, _person: Call()
    variant: str = ""
    signs_in_anew: bool = False
    undo: str = ""

    @property
    def expected(self) -> dict[str, int]:
        return dict(zip(KINDS, map(int, self.answers.split()), strict=True))


def body(**values: Any) -> Making:
    return lambda _world, _person: Call(json=values)


def named(**values: Any) -> Making:
    """Send a body in which ``#`` stands for a number not used before."""

    def making(world: World, _person: Person) -> Call:
        number = str(world.number())
        return Call(json={key: value.replace("#", number) for key, value in values.items()})

    return making


def account(*, json: Any = None) -> Making:
    """Send a call about an account made for it."""
    return lambda world, _person: Call(path={"user_id": world.new_account().id}, json=json)


def conversation(*, json: Any = None) -> Making:
    """Send a call about a conversation made for it, of staff, a colleague and the patient."""
    return lambda world, _person: Call(path={"conversation_id": world.new_conversation()}, json=json)


def among_staff(*, json: Any = None) -> Making:
    return lambda world, _person: Call(path={"conversation_id": world.among_staff}, json=json)


def somebodys_login(world: World, _person: Person) -> Call:
    user_id, login_id = world.login_of_somebody()
    return Call(path={"user_id": user_id, "login_id": login_id})


def new_member(world: World, _person: Person) -> Call:
    return Call(path={"user_id": world.new_account(organisations=[world.surgery]).id})


def amendment(world: World, _person: Person) -> Call:
    letter = world.new_letter()
    return Call(path={"composition_uid": letter.uid}, json=LETTER, headers={"If-Match": letter.etag})


def prescription(world: World, _person: Person) -> Call:
    return Call(
        json={"patient_id": world.patient, "medication": "Morphine 10 mg", "dose": "once daily", "duration_days": 7}
    )


def beginning(world: World, _person: Person) -> Call:
    return Call(json={"patient_id": world.patient, "initial_message": "How is the hip?"})


ENDPOINT = "http://127.0.0.1:1/device"


def no_device(_world: World, person: Person) -> Call:
    person.post("/api/push/unsubscribe", {"endpoint": ENDPOINT})
    return Call()


def new_join_request(world: World, _person: Person) -> Call:
    return Call(path={"request_id": world.new_join_request()})


def new_patient_member(world: World, _person: Person) -> Call:
    return Call(path={"patient_id": world.clinic.patient(world.surgery)})


def acceptance(world: World, _person: Person) -> Call:
    name = f"guest{world.number()}"
    return Call(json={"token": world.new_invite()["token"], "username": name, "password": PASSWORD})


def new_invite(world: World, _person: Person) -> Call:
    return Call(path={"invite_id": world.new_invite()["id"]})


def new_grant(world: World, _person: Person) -> Call:
    guest = world.clinic.person(level=Level.EXTERNAL_HCP, profession="patient", is_signed_in=False)
    grant(world.clinic, guest, world.patient)
    return Call(path={"user_id": guest.id})


TABLE = (
    # Health and sign-in.
    Row("GET /api/health", EVERYBODY),
    Row("GET /api/health/live", EVERYBODY),
    Row("GET /api/health/ready", EVERYBODY),
    Row(
        "POST /api/auth/login",
        EVERYBODY,
        lambda world, _: Call(json={"username": world.new_account().username, "password": PASSWORD}),
    ),
    Row("POST /api/auth/refresh", SIGNED_IN, signs_in_anew=True),
    Row("POST /api/auth/logout", SIGNED_IN, signs_in_anew=True),
    Row("GET /api/auth/me", SIGNED_IN),
    Row("POST /api/auth/register", EVERYBODY, named(username="new#", email="new#@example.org", password=PASSWORD)),
    Row("POST /api/auth/forgot-password", EVERYBODY, body(email="nobody@example.org")),
    Row(
        "POST /api/auth/reset-password",
        "400 400 400 400 400 400 400 400 400",
        body(token="x" * 43, new_password=PASSWORD),
        variant="with a token nobody was sent",
    ),
    Row(
        "POST /api/auth/change-password",
        "401 400 400 400 400 400 400 400 400",
        body(current_password="not " + PASSWORD, new_password=PASSWORD + "!"),
        variant="with another password than one's own",
    ),
    Row("POST /api/auth/totp/setup", SIGNED_IN),
    Row(
        "POST /api/auth/totp/verify",
        "401 400 400 400 400 400 400 400 400",
        body(code="000000"),
        variant="with a wrong code",
    ),
    Row("POST /api/auth/totp/disable", SIGNED_IN, signs_in_anew=True),
    Row("GET /api/auth/logins", SIGNED_IN),
    Row("DELETE /api/auth/logins/{login_id}", NO_SUCH, somebodys_login, variant="of somebody else"),
    Row("GET /api/auth/organizations", EVERYBODY),
    # Organisations.
    Row("GET /api/organizations", ADMINS),
    Row("POST /api/organizations", ADMINS, named(name="Practice #", type="gp_practice")),
    Row("GET /api/organizations/{org_id}", ADMINS),
    Row("PUT /api/organizations/{org_id}", ADMINS, body(name="Riverside Surgery")),
    Row(
        "POST /api/organizations/{org_id}/staff",
        ADMINS,
        lambda world, _: Call(json={"user_id": world.new_account().id}),
    ),
    Row("DELETE /api/organizations/{org_id}/staff/{user_id}", ADMINS, new_member),
    Row(
        "POST /api/organizations/{org_id}/patients",
        ADMINS,
        lambda world, _: Call(json={"patient_id": world.clinic.patient()}),
    ),
    Row("DELETE /api/organizations/{org_id}/patients/{patient_id}", ADMINS, new_patient_member),
    Row("GET /api/organizations/{org_id}/features", ADMINS),
    Row("PUT /api/organizations/{org_id}/features/{feature_key}", ADMINS, body(enabled=True)),
    Row("GET /api/organizations/{org_id}/join-requests", ADMINS),
    Row("POST /api/organizations/{org_id}/join-requests/{request_id}/approve", ADMINS, new_join_request),
    Row("POST /api/organizations/{org_id}/join-requests/{request_id}/decline", ADMINS, new_join_request),
    Row("GET /api/patients/{patient_id}/shared-organisations", SIGNED_IN),
    # People.
    Row("POST /api/users", ADMINS, named(name="New #", email="account#@example.org", password=PASSWORD)),
    Row(
        "POST /api/users",
        "401 403 403 403 403 403 403 403 200",
        named(name="New #", email="account#@example.org", password=PASSWORD, system_permissions="admin"),
        variant="of an admin",
    ),
    Row("PATCH /api/users/{user_id}", ADMINS, account(json={"name": "Somebody"})),
    Row("GET /api/users", READERS, lambda world, _: Call(params={"patient_id": world.patient})),
    Row("GET /api/users", ADMINS, variant="all of them"),
    Row("GET /api/users/{user_id}", ADMINS),
    Row("POST /api/users/{user_id}/activate", ADMINS, account()),
    Row("POST /api/users/{user_id}/deactivate", ADMINS, account()),
    Row(
        "PATCH /api/users/{user_id}/link-patient",
        ADMINS,
        lambda world, _: Call(
            path={"user_id": world.new_account().id}, json={"fhir_patient_id": world.clinic.patient(world.surgery)}
        ),
    ),
    Row("DELETE /api/users/{user_id}/link-patient", ADMINS, account()),
    Row("GET /api/users/{user_id}/logins", ADMINS),
    Row("DELETE /api/users/{user_id}/logins", ADMINS, account()),
    Row("DELETE /api/users/{user_id}/logins/{login_id}", ADMINS, somebodys_login),
    Row("POST /api/users/{user_id}/totp/disable", ADMINS, account()),
    Row("GET /api/cbac/my-competencies", SIGNED_IN),
    Row("PATCH /api/cbac/my-competencies", ADMINS, body(additional_competencies=[])),
    Row("GET /api/cbac/catalogue", SIGNED_IN),
    Row("GET /api/roles", SIGNED_IN),
    # Patients.
    Row("GET /api/patients", SIGNED_IN),
    Row("POST /api/patients", "401 403 403 200 200 403 403 200 200", named(given_name="Sam", family_name="Lee #")),
    Row(
        "POST /api/patients/verify",
        # Who is no clinician learns only that, wherever the patient is.
        "401 403 403 200 404 403 403 403 403",
        lambda world, _: Call(params={"patient_id": world.patient}),
    ),
    Row("GET /api/patients/{patient_id}", READERS),
    Row("PATCH /api/patients/{patient_id}", EDITORS, body(given_name="Pat", family_name="Jones")),
    Row("GET /api/patients/{patient_id}/demographics", READERS),
    Row("PUT /api/patients/{patient_id}/demographics", CLINICIANS, body(given_name="Pat", family_name="Jones")),
    Row("GET /api/patients/{patient_id}/metadata", READERS),
    Row("POST /api/patients/{patient_id}/deactivate", INSIDE_ADMINS, undo="activate"),
    Row("POST /api/patients/{patient_id}/activate", INSIDE_ADMINS),
    # Prescriptions and letters.
    Row("POST /api/prescriptions/controlled", "401 403 403 201 404 403 403 403 403", prescription),
    Row("GET /api/patients/{patient_id}/prescriptions", READERS),
    Row("POST /api/patients/{patient_id}/letters", CLINICIANS, body(**LETTER)),
    Row("GET /api/patients/{patient_id}/letters", READERS),
    Row("GET /api/patients/{patient_id}/letters/{composition_uid}", READERS),
    Row("PUT /api/patients/{patient_id}/letters/{composition_uid}", CLINICIANS, amendment),
    Row("GET /api/patients/{patient_id}/letters/{composition_uid}/versions", READERS),
    # Conversations: one in which the patient takes part, and one among staff.
    Row("POST /api/conversations", READERS, beginning),
    Row("GET /api/conversations", SIGNED_IN),
    Row("GET /api/patients/{patient_id}/conversations", READERS),
    Row("GET /api/conversations/{conversation_id}", READERS),
    Row(
        "GET /api/conversations/{conversation_id}",
        "401 404 404 200 404 404 404 200 200",
        among_staff(),
        variant="among staff",
    ),
    Row(
        "PATCH /api/conversations/{conversation_id}",
        "401 200 404 200 404 403 404 403 403",
        conversation(json={"status": "resolved"}),
    ),
    Row("GET /api/conversations/{conversation_id}/messages", READERS),
    Row(
        "GET /api/conversations/{conversation_id}/messages",
        "401 404 404 200 404 404 404 200 200",
        among_staff(),
        variant="among staff",
    ),
    Row(
        "POST /api/conversations/{conversation_id}/messages",
        "401 200 404 200 404 403 404 403 403",
        body(body="Better."),
    ),
    Row(
        "POST /api/conversations/{conversation_id}/messages",
        "401 404 404 200 404 404 404 403 403",
        among_staff(json={"body": "Better."}),
        variant="among staff",
    ),
    Row("GET /api/conversations/{conversation_id}/participants", READERS),
    Row(
        "POST /api/conversations/{conversation_id}/participants",
        "401 200 404 200 404 403 404 403 403",
        lambda world, _: Call(json={"user_id": world.colleague.id}),
    ),
    Row(
        "DELETE /api/conversations/{conversation_id}/participants/{user_id}",
        "401 403 404 200 404 403 404 200 200",
        lambda world, _: Call(
            path={"conversation_id": world.new_conversation(), "user_id": world.colleague.id},
        ),
        variant="of a colleague, from the creator's conversation",
    ),
    Row(
        "POST /api/conversations/{conversation_id}/join",
        # The sentence is about their kind and says nothing about the conversation.
        "401 403 403 200 404 403 403 200 200",
        conversation(),
    ),
    Row(
        "POST /api/conversations/{conversation_id}/read",
        # Who takes no part has nothing to mark.
        "401 200 404 200 404 404 404 404 404",
    ),
    # External access.
    Row(
        "POST /api/patients/{patient_id}/invite-external",
        OWNERS,
        named(email="guest#@example.org", user_type="external_hcp"),
    ),
    Row("GET /api/patients/{patient_id}/invites", OWNERS),
    Row("DELETE /api/patients/{patient_id}/invites/{invite_id}", OWNERS, new_invite),
    Row("POST /api/accept-invite", EVERYBODY, acceptance),
    Row("GET /api/patients/{patient_id}/external-access", OWNERS),
    Row("DELETE /api/patients/{patient_id}/external-access/{user_id}", OWNERS, new_grant),
    # Devices and live updates.
    Row("POST /api/push/subscribe", SIGNED_IN, lambda _world, _person: Call(json=Device(ENDPOINT).subscription)),
    Row("POST /api/push/unsubscribe", SIGNED_IN, body(endpoint="https://push.example.org/unknown")),
    Row("GET /api/push/vapid-public-key", SIGNED_IN),
    Row(
        "POST /api/push/send-test",
        "401 400 400 400 400 400 400 400 400",
        no_device,
        variant="without a device",
    ),
    Row("GET /api/events", SIGNED_IN),
)

UNPUBLISHED = {"GET /", "GET /api/docs"}
"""Pages of development; they are in no contract, and ``test_routes`` finds their marks."""


def published() -> dict[str, Any]:
    return {f"{method} {route.path}": route for route in ROUTES for method in route.methods or ()}


@pytest.fixture(scope="module")
def world(tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[World]:
    """Return the clinic of this worker; its rows leave it as they found it, or use things made for them."""
    directory = tmp_path_factory.mktemp("world")
    url = databases.fresh(directory)
    with Browser(create_app(cheap_settings(directory, database_url=url)), raise_server_exceptions=False) as client:
        yield World(client)
    databases.drop(url)


def test_the_table_names_every_published_route_and_no_other() -> None:
    tabled = {row.route for row in TABLE}
    routes = {name for name, route in published().items() if route.include_in_schema}
    assert routes - tabled == set(), "routes nobody decided about"
    assert tabled - routes == set(), "routes that do not exist"
    assert set(published()) - routes == UNPUBLISHED


@pytest.mark.parametrize("row", TABLE, ids=lambda row: f"{row.route} {row.variant}".strip())
def test_everybody_gets_what_the_table_says(row: Row, world: World) -> None:
    answered = {kind: status_for(world, row, kind) for kind in KINDS}
    assert answered == row.expected


@pytest.mark.parametrize("route", [name for name in published() if name.split()[0] not in SAFE_METHODS])
def test_a_login_without_the_csrf_token_changes_nothing(route: str, world: World) -> None:
    if not any(isinstance(guard, Guard) for guard in guards_of(published()[route].dependant)):
        return
    row = next(row for row in TABLE if row.route == route)
    answer = send(world, row, world.visitor("superadmin"), without_token=True)
    assert (answer.status_code, answer.json()["error_code"]) == (403, "csrf_failed")


def status_for(world: World, row: Row, kind: str) -> int:
    person = world.visitor(kind, signs_in_anew=row.signs_in_anew)
    if row.route == "GET /api/events":
        return listening_status(world, person)
    answer = send(world, row, person)
    if row.undo and answer.is_success:
        done = world.people["superadmin"].post(f"/api/patients/{world.patient}/{row.undo}")
        assert done.status_code == 200
    status: int = answer.status_code
    return status


def send(world: World, row: Row, person: Person, *, without_token: bool = False) -> Any:
    call = row.making(world, person)
    world.forget_attempts()
    usual = {
        "patient_id": world.patient,
        "org_id": world.surgery,
        "user_id": world.colleague.id,
        "conversation_id": world.shared,
        "composition_uid": world.letter.uid,
        "feature_key": "letters",
    }
    method, template = row.route.split()
    csrf = {} if method in SAFE_METHODS or without_token else person.csrf
    url = template.format(**usual | dict(call.path))
    return person.client.request(method, url, json=call.json, params=call.params, headers=csrf | dict(call.headers))


def listening_status(world: World, person: Person) -> int:
    """Return how a stream begins; the listener leaves at once, because a stream has no end to wait for."""
    cookies = "; ".join(f"{name}={value}" for name, value in person.client.cookies.items())
    app: FastAPI = world.clinic.client.app  # type: ignore[assignment]
    return int(world.clinic.run(_begin_listening, app, cookies))


async def _begin_listening(app: FastAPI, cookies: str) -> int:
    begun: asyncio.Future[int] = asyncio.get_running_loop().create_future()
    incoming = [{"type": "http.request", "body": b"", "more_body": False}]

    async def receive() -> Any:
        if incoming:
            return incoming.pop()
        await begun
        return {"type": "http.disconnect"}

    async def tell(message: Any) -> None:
        if message["type"] == "http.response.start":
            begun.set_result(message["status"])

    scope = {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": "GET",
        "scheme": "http",
        "path": "/api/events",
        "raw_path": b"/api/events",
        "root_path": "",
        "query_string": b"",
        "headers": [(b"host", b"testserver"), (b"cookie", cookies.encode())],
        "client": ("testclient", 50000),
        "server": ("testserver", 80),
    }
    async with asyncio.timeout(10):
        await app(scope, receive, tell)
    return await begun
