"""What holds for every route: a guard or a reason, problem documents, headers as exact sets."""

import pytest
from fastapi.routing import APIRoute, iter_route_contexts
from starlette.testclient import TestClient

from quill.access.guards import Guard, PublicMark
from quill.app import create_app
from quill.edge.middleware import SAFE_METHODS, SECURITY_HEADERS
from quill.published import guards_of
from quill.settings import Settings
from tests.clinic import Clinic


def routes() -> list[APIRoute]:
    found = [getattr(c, "original_route", c) for c in iter_route_contexts(create_app(Settings()).routes)]
    return [route for route in found if isinstance(route, APIRoute)]


ROUTES = routes()


def test_the_walk_finds_the_routes() -> None:
    paths = {route.path for route in ROUTES}
    assert {"/api/health", "/api/auth/login", "/api/auth/me"} <= paths


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{min(route.methods)} {route.path}")
def test_every_route_names_exactly_one_guard_or_a_reason(route: APIRoute) -> None:
    guards = guards_of(route.dependant)
    assert len({id(guard) for guard in guards}) == 1, (
        "none means open to everybody, two means nobody knows which counts"
    )
    guard = guards[0]
    if isinstance(guard, PublicMark):
        assert len(guard.reason) > 10
    else:
        assert guard.writes == (not (route.methods or set()) <= SAFE_METHODS), (
            "a call that changes something needs the CSRF token"
        )


@pytest.mark.parametrize("route", ROUTES, ids=lambda route: f"{min(route.methods)} {route.path}")
def test_guarded_route_refuses_a_stranger(route: APIRoute, client: TestClient) -> None:
    if not any(isinstance(guard, Guard) for guard in guards_of(route.dependant)):
        return
    for method in route.methods or ():
        answer = client.request(method, route.path.replace("{", "").replace("}", ""))
        assert answer.status_code == 401, answer.text
        assert answer.headers["content-type"] == "application/problem+json"


def test_operation_ids_are_unique() -> None:
    names = [route.name for route in ROUTES if route.include_in_schema]
    assert sorted(names) == sorted(set(names))


@pytest.mark.parametrize(
    ("method", "path", "status", "code"),
    [
        ("GET", "/api/nowhere", 404, "not_found"),
        ("DELETE", "/api/health", 405, "method_not_allowed"),
        ("GET", "/api/auth/me", 401, "not_authenticated"),
        ("GET", "/api/health?verbose=1", 422, "validation_failed"),
        ("POST", "/api/auth/login", 422, "validation_failed"),
    ],
)
def test_errors_have_one_shape(client: TestClient, method: str, path: str, status: int, code: str) -> None:
    answer = client.request(method, path)
    body = answer.json()
    assert answer.status_code == status
    assert answer.headers["content-type"] == "application/problem+json"
    assert {"type", "title", "status", "detail", "error_code", "request_id"} <= set(body)
    assert body["status"] == status
    assert body["error_code"] == code
    assert body["request_id"] == answer.headers["x-request-id"]
    assert set(body) - {"errors", "competency"} == {"type", "title", "status", "detail", "error_code", "request_id"}


@pytest.mark.parametrize("path", ["/api/health/live", "/api/nowhere", "/api/auth/me"])
def test_every_answer_has_the_security_headers(client: TestClient, path: str) -> None:
    headers = client.get(path).headers
    for name, value in SECURITY_HEADERS.items():
        assert headers[name] == value
    assert headers["Cache-Control"] == "no-store"
    assert headers["X-Request-ID"]
    assert "server" not in headers


@pytest.mark.parametrize(
    "body",
    [
        b"{",
        b"[" * 100_000,
        b'{"username": "\xff"}',
        b'"text"',
        b"[]",
        b"null",
        b"12",
        b'{"username": 1, "password": 2}',
    ],
    ids=["cut", "deep", "not utf-8", "text", "list", "null", "number", "wrong types"],
)
def test_bad_bodies_are_422_and_not_repeated(client: TestClient, body: bytes) -> None:
    answer = client.post("/api/auth/login", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422
    assert "input" not in answer.text


@pytest.mark.parametrize("field", ["\x00", "\ud800", "a\x00b"])
def test_text_that_cannot_be_stored_is_422(client: TestClient, field: str) -> None:
    import json

    body = json.dumps({"username": field, "password": "x"}).encode()
    answer = client.post("/api/auth/login", content=body, headers={"content-type": "application/json"})
    assert answer.status_code == 422, answer.text


def test_a_huge_body_is_413(client: TestClient) -> None:
    answer = client.post("/api/auth/login", json={"username": "x" * 2_000_000, "password": "x"})
    assert (answer.status_code, answer.json()["error_code"]) == (413, "body_too_large")


def test_a_huge_body_that_comes_in_chunks_is_413(client: TestClient) -> None:
    chunks = [b'{"username": "', *[b"x" * 100_000] * 20, b'", "password": "x"}']
    answer = client.post("/api/auth/login", content=iter(chunks), headers={"content-type": "application/json"})
    assert (answer.status_code, answer.json()["error_code"]) == (413, "body_too_large")


@pytest.mark.parametrize(
    ("headers", "is_refused"),
    [
        ({}, False),
        ({"Origin": "http://testserver"}, False),
        ({"Origin": "https://evil.example"}, True),
        ({"Origin": "null"}, True),
        ({"Sec-Fetch-Site": "cross-site"}, True),
        ({"Sec-Fetch-Site": "same-site"}, True),
        ({"Sec-Fetch-Site": "same-origin"}, False),
    ],
)
def test_pages_of_other_sites_are_refused(client: TestClient, headers: dict[str, str], *, is_refused: bool) -> None:
    answer = client.post("/api/auth/login", json={"username": "nobody", "password": "x"}, headers=headers)
    assert (answer.status_code == 403) == is_refused
    if is_refused:
        assert answer.json()["error_code"] == "foreign_origin"


def test_a_nul_in_the_address_is_422(client: TestClient) -> None:
    assert client.get("/api/patients/a%00b").status_code == 422
    assert client.get("/api/health?x=%00").status_code == 422


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/api/patients", "GET, POST"),
        ("PUT", "/api/patients/1", "GET, PATCH"),
        ("PATCH", "/api/organizations/1", "GET, PUT"),
        ("PUT", "/api/auth/login", "POST"),
        ("DELETE", "/api/patients/verify", "POST"),
    ],
)
def test_a_wrong_method_is_told_every_right_one(client: TestClient, method: str, path: str, allowed: str) -> None:
    answer = client.request(method, path)
    assert (answer.status_code, answer.headers["allow"]) == (405, allowed)


@pytest.mark.parametrize(
    ("method", "path", "body", "field"),
    [
        ("PUT", "/api/organizations/1/features/letters", {"enabled": 0}, "enabled"),
        ("PUT", "/api/organizations/1/features/letters", {"enabled": "off"}, "enabled"),
        ("POST", "/api/organizations/1/staff", {"user_id": "1"}, "user_id"),
        ("POST", "/api/organizations/1/staff", {"user_id": True}, "user_id"),
        ("PATCH", "/api/users/1", {"is_active": 0}, "is_active"),
        ("PATCH", "/api/users/1", {"is_active": "no"}, "is_active"),
        ("POST", "/api/conversations/1/participants", {"user_id": True}, "user_id"),
        ("POST", "/api/conversations/1/participants", {"user_id": "1"}, "user_id"),
        ("POST", "/api/conversations/1/read", {"message_id": True}, "message_id"),
        (
            "POST",
            "/api/conversations",
            {"patient_id": "1", "initial_message": "x", "include_patient_as_participant": 1},
            "include_patient_as_participant",
        ),
    ],
)
def test_a_value_of_another_type_is_not_guessed_at(
    clinic: Clinic, method: str, path: str, body: dict[str, object], field: str
) -> None:
    admin = clinic.admin()
    answer = admin.client.request(method, path, json=body, headers=admin.csrf)
    assert answer.status_code == 422, answer.text
    assert [error["loc"] for error in answer.json()["errors"]] == [["body", field]]
