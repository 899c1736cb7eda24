"""Requests reach the route that FastAPI's own search, one route after the other, would have found."""

import re
from itertools import product
from typing import Any

import pytest
from fastapi import FastAPI
from fastapi.routing import APIRoute
from starlette.exceptions import HTTPException
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from quill.app import create_app
from quill.edge import routing
from quill.settings import Settings

pytestmark = pytest.mark.anyio

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
ODD = (
    "",
    "/",
    "//",
    "/api",
    "/api/",
    "/api//auth/me",
    "/api/nowhere",
    "/nowhere/at/all",
    "/api/docs/static/none.js",
    "x",
)


@pytest.fixture(scope="module")
def app() -> FastAPI:
    with pytest.MonkeyPatch.context() as patch:
        # Without plans a route answers by its ``handle``, which the test watches.
        patch.setattr(routing, "plan_for", lambda _route: None)
        return create_app(Settings())


def paths_of(app: FastAPI) -> list[str]:
    """Return paths of every route and some near them."""
    templates = [route.path for route in app.router.routes if isinstance(route, APIRoute)]
    whole = [re.sub(r"\{[^}]+\}", value, template) for template, value in product(templates, ("1", "a.b", "ä%2F"))]
    near = [
        changed for path in whole for changed in (f"{path}/", f"{path}/x", path.rpartition("/")[0], f"/prefix{path}")
    ]
    return sorted({*whole, *near, *ODD})


async def outcome(entry: ASGIApp, app: FastAPI, method: str, path: str, root_path: str = "") -> tuple[Any, ...]:
    """Return the route and what its path held, or the status and where the answer points to."""
    heard: list[Message] = []

    async def receive() -> Message:
        raise AssertionError("Nobody reads the body.")

    async def send(message: Message) -> None:
        heard.append(message)

    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": root_path,
        "query_string": b"",
        "headers": [(b"host", b"quill.example")],
        "scheme": "http",
        "server": ("quill.example", 80),
        "app": app,
    }
    try:
        await entry(scope, receive, send)
    except HTTPException as refused:
        return refused.status_code, sorted((refused.headers or {}).items())
    if "reached" in scope:
        assert scope["router"] is app.router
        assert scope["route"] is scope["reached"]
        return "reached", id(scope["reached"]), scope["path_params"]
    return heard[0]["status"], sorted(heard[0]["headers"])


async def test_table_finds_what_the_search_finds(app: FastAPI, monkeypatch: pytest.MonkeyPatch) -> None:
    async def handle(self: APIRoute, scope: Scope, receive: Receive, send: Send) -> None:
        del receive, send
        scope["reached"] = self

    monkeypatch.setattr(APIRoute, "handle", handle)
    reached: set[int] = set()
    for method, path in product(METHODS, paths_of(app)):
        found = await outcome(app.router, app, method, path)
        assert found == await outcome(app.router.app, app, method, path), (method, path)
        if found[0] == "reached":
            reached.add(found[1])
    assert reached == {id(route) for route in app.router.routes if isinstance(route, APIRoute)}
    below = await outcome(app.router, app, "GET", "/prefix/api/auth/me", "/prefix")
    assert below == await outcome(app.router.app, app, "GET", "/prefix/api/auth/me", "/prefix")
