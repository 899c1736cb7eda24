"""A plan answers as FastAPI does: the same bytes and headers, the same calls in the same order."""

from collections.abc import AsyncIterator
from itertools import product
from typing import Annotated, Any, Literal

import pytest
from fastapi import APIRouter, BackgroundTasks, Body, Cookie, Depends, FastAPI, Header, Path, Query, Request, Response
from fastapi.exceptions import RequestValidationError
from fastapi.responses import JSONResponse
from fastapi.routing import APIRoute
from pydantic import BaseModel, Field
from starlette.types import Message, Scope

from quill.app import create_app
from quill.edge.inputs import BlankAsAbsent
from quill.edge.plans import plan_for
from quill.edge.routing import add_routers, find_quickly
from quill.settings import Settings

pytestmark = pytest.mark.anyio

router = APIRouter(prefix="/api/things")
calls: list[str] = []
"""What was called, in order; emptied by each request."""


class Refused(Exception):
    pass


class Thing(BaseModel):
    name: str = Field(min_length=2)
    size: int = 1


class Answer(BaseModel):
    told: dict[str, Any]


async def opened(request: Request) -> AsyncIterator[str]:
    calls.append("open")
    try:
        yield f"open for {request.method}"
    except Exception:
        calls.append("rolled back")
        raise
    calls.append("closed")


Opened = Annotated[str, Depends(opened, scope="function")]


async def page(limit: Annotated[int, Query(ge=1, le=9)] = 5, cursor: str | None = None) -> tuple[int, str | None]:
    calls.append("page")
    return limit, cursor


class Guard:
    def __init__(self, word: str) -> None:
        self.word = word

    async def __call__(self, held: Opened, number: Annotated[int, Path(ge=0)]) -> str:
        calls.append(self.word)
        if number == 13:
            raise Refused
        return f"{self.word} {number} {held}"


async def exact(request: Request) -> int:
    return len(await request.body())


async def mark() -> None:
    calls.append("mark")


@router.get("/{number}", dependencies=[Depends(mark)])
async def read(
    number: int,
    guard: Annotated[str, Depends(Guard("read"), scope="function")],
    held: Opened,
    page: Annotated[tuple[int, str | None], Depends(page)],
    kind: Annotated[Literal["a", "b"], Query()] = "a",
    flag: Annotated[bool | None, BlankAsAbsent, Query()] = None,
    if_match: Annotated[str | None, Header(max_length=5)] = None,
) -> Answer:
    calls.append("endpoint")
    if number == 14:
        raise Refused
    return Answer(told={"all": [number, guard, held, page, kind, flag, if_match]})


@router.post("/{number}", status_code=201)
async def write(
    number: int,
    body: Thing,
    guard: Annotated[str, Depends(Guard("write"), scope="function")],
    length: Annotated[int, Depends(exact)],
    again: Annotated[int, Depends(exact, use_cache=False)],
    response: Response,
) -> Answer:
    calls.append("endpoint")
    response.headers["X-Number"] = str(number)
    response.set_cookie("number", str(number))
    if number == 7:
        response.status_code = 202
    return Answer(told={"all": [number, body.model_dump(), guard, length, again]})


@router.put("/{number}")
async def put(number: int, body: Annotated[Thing | None, Body()] = None) -> Answer:
    return Answer(told={"all": [number, body.model_dump() if body else None]})


@router.delete("/{number}", response_model=Answer)
async def remove(number: int) -> Response:
    return Response(f"{number} is gone", 410, {"X-Gone": "yes"})


@router.patch("/{number}")
async def lie(number: int, held: Opened) -> Answer:
    return f"{number} {held}"  # type: ignore[return-value]


READS = [
    "/api/things/1",
    "/api/things/1?",
    "/api/things/1?limit=3&cursor=x&kind=b&flag=true",
    "/api/things/1?limit=3&limit=4",
    "/api/things/1?flag=&cursor=&kind=",
    "/api/things/1?limit=10",
    "/api/things/1?limit=&kind=c&flag=perhaps",
    "/api/things/1?limit=%34&unknown=1",
    "/api/things/-1",
    "/api/things/13",
    "/api/things/14",
    "/api/things/x",
    "/api/things/x?limit=0",
]
BODIES = [
    b'{"name": "ab"}',
    b'{"name": "ab", "size": "3"}',
    b'{"name": "a"}',
    b'{"size": 3}',
    b"{}",
    b"",
    b"null",
    b"[1]",
    b'"text"',
    b'{"name": "ab"',
    b'{"name": "\xff\xff"}',
    b'{"name": "ab", "name": "cd"}',
    b'{"name": "ab", "size": NaN}',
    b'\xef\xbb\xbf{"name": "ab"}',
    b"[" * 100_000,
]
KINDS = [
    "application/json",
    "application/json; charset=utf-8",
    "Application/JSON",
    " application/json",
    "application/fhir+json",
    "application/json, text/plain",
    "text/plain",
    "application/x-www-form-urlencoded",
    None,
]


def application(*, is_planned: bool) -> FastAPI:
    app = FastAPI()

    @app.exception_handler(Refused)
    async def refuse(_request: Request, _error: Refused) -> JSONResponse:
        return JSONResponse({"refused": True}, 403)

    @app.exception_handler(RequestValidationError)
    async def tell(_request: Request, error: RequestValidationError) -> JSONResponse:
        # Without what was sent, as Quill does, and since not all of it can be told in JSON.
        return JSONResponse([[*map(str, found["loc"]), found["type"], found["msg"]] for found in error.errors()], 422)

    add_routers(app, [router])
    if is_planned:
        find_quickly(app)
    return app


async def answer(
    app: FastAPI, method: str, url: str, headers: dict[str, str] | None = None, body: bytes = b""
) -> tuple[Any, ...]:
    """Return all that a caller can see of an answer, and what was called for it."""
    calls.clear()
    heard: list[Message] = []
    parts = [body[:3], body[3:]] if len(body) > 3 else [body]

    async def receive() -> Message:
        return {"type": "http.request", "body": parts.pop(0), "more_body": bool(parts)}

    async def send(message: Message) -> None:
        heard.append(message)

    path, _, query = url.partition("?")
    scope: Scope = {
        "type": "http",
        "method": method,
        "path": path,
        "raw_path": path.encode(),
        "root_path": "",
        "query_string": query.encode(),
        "headers": [(name.lower().encode(), value.encode()) for name, value in (headers or {}).items()],
        "scheme": "http",
        "server": ("quill.example", 80),
    }
    try:
        await app(scope, receive, send)
    except Exception:  # noqa: BLE001 - a fault of ours, and FastAPI's error for it is another than a plan's
        return "failed", list(calls)
    return heard[0]["status"], heard[0]["headers"], heard[1]["body"], len(heard), list(calls)


@pytest.fixture(scope="module")
def planned() -> FastAPI:
    return application(is_planned=True)


@pytest.fixture(scope="module")
def unplanned() -> FastAPI:
    return application(is_planned=False)


@pytest.mark.parametrize("url", READS)
@pytest.mark.parametrize("version", [None, "12", "too long"])
async def test_reads(planned: FastAPI, unplanned: FastAPI, url: str, version: str | None) -> None:
    headers = {"If-Match": version} if version else {}
    found = await answer(planned, "GET", url, headers)
    assert found[0] != "failed"
    assert found == await answer(unplanned, "GET", url, headers)


@pytest.mark.parametrize("body", BODIES, ids=range(len(BODIES)))
async def test_writes(planned: FastAPI, unplanned: FastAPI, body: bytes) -> None:
    for kind, number, method in product(KINDS, (1, 7, 13, "x"), ("POST", "PUT")):
        path, headers = f"/api/things/{number}", {"Content-Type": kind} if kind is not None else {}
        found = await answer(planned, method, path, headers, body)
        assert found[0] != "failed"
        assert found == await answer(unplanned, method, path, headers, body), (method, path, kind)


async def test_answers_of_their_own_and_answers_of_the_wrong_shape(planned: FastAPI, unplanned: FastAPI) -> None:
    for method in ("DELETE", "PATCH", "OPTIONS", "HEAD"):
        assert await answer(planned, method, "/api/things/1") == await answer(unplanned, method, "/api/things/1")
    assert await answer(planned, "PATCH", "/api/things/1") == ("failed", ["open", "rolled back"])


async def test_what_was_opened_is_closed_before_the_answer_leaves(planned: FastAPI) -> None:
    assert (await answer(planned, "GET", "/api/things/1"))[-1] == ["mark", "open", "read", "page", "endpoint", "closed"]
    assert (await answer(planned, "GET", "/api/things/14"))[-1][-1] == "rolled back"


async def test_a_caller_who_leaves_while_sending_is_no_fault_of_ours(planned: FastAPI) -> None:
    heard: list[Message] = []

    async def receive() -> Message:
        return {"type": "http.disconnect"}

    async def send(message: Message) -> None:
        heard.append(message)

    scope: Scope = {
        "type": "http",
        "method": "POST",
        "path": "/api/things/1",
        "query_string": b"",
        "headers": [(b"content-type", b"application/json")],
    }
    await planned(scope, receive, send)
    assert heard[0]["status"] == 400


def test_every_route_has_a_plan() -> None:
    routes = [route for route in create_app(Settings()).router.routes if isinstance(route, APIRoute)]
    assert len(routes) > 60
    assert [route.path for route in routes if plan_for(route) is None] == []


async def _whatever() -> str:
    return ""


def _blocking() -> str:
    return ""


async def _opened_for_long() -> AsyncIterator[int]:
    yield 1


async def _many(many: Annotated[list[str], Query()]) -> str:
    return str(many)


async def _by_choice(one: Annotated[str, Query(validation_alias="two")]) -> str:
    return one


async def _later(tasks: BackgroundTasks) -> str:
    return str(tasks)


async def _biscuit(biscuit: Annotated[str, Cookie()]) -> str:
    return biscuit


async def _embedded(thing: Annotated[Thing, Body(embed=True)]) -> str:
    return thing.name


async def _by_default(
    thing: Annotated[Thing, Query()],
) -> str:
    return thing.name


async def _blocked(word: Annotated[str, Depends(_blocking)]) -> str:
    return word


async def _for_long(number: Annotated[int, Depends(_opened_for_long)]) -> str:
    return str(number)


@pytest.mark.parametrize(
    "endpoint", [_blocking, _many, _by_choice, _later, _biscuit, _embedded, _by_default, _blocked, _for_long]
)
def test_what_plans_do_not_know_is_left_to_fastapi(endpoint: Any) -> None:
    assert plan_for(APIRoute("/api/it", endpoint)) is None


@pytest.mark.parametrize(
    "options",
    [
        {"status_code": 204, "response_model": None},
        {"response_model_exclude_none": True},
        {"response_class": JSONResponse},
    ],
)
def test_answers_that_plans_do_not_know_are_left_to_fastapi(options: dict[str, Any]) -> None:
    assert plan_for(APIRoute("/api/it", _whatever)) is not None
    assert plan_for(APIRoute("/api/it", _whatever, **options)) is None
