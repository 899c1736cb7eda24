"""The floor: a bare Starlette application that gives the answers Quill gives, by hand-written SQL and without rights.

Same driver, same tables, same rows, same number of bytes, same JSON library; no login, no audit trail, no checks. What
Quill costs beyond this is what Quill does for people. ``QUILL_BENCH_DATABASE_URL`` says where the tables are.
"""

import asyncio
import contextlib
import datetime
import functools
import os
import uuid
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping, Sequence
from typing import Any

import anyio
import anyio.to_thread
import msgspec
import uvicorn
from argon2 import PasswordHasher
from pydantic_core import to_json
from starlette.applications import Starlette
from starlette.requests import Request
from starlette.responses import Response, StreamingResponse
from starlette.routing import Route

from bench import floor_sql as sql
from bench.floor_store import Rows, Store, open_store
from quill.kit import clock

DATABASE_VARIABLE = "QUILL_BENCH_DATABASE_URL"
HASHES_AT_ONCE = 2

Fields = dict[str, Any]
Handler = Callable[[Request], Coroutine[Any, Any, Response]]

_PEOPLE = ("user_id", "username", "display_name", "role", "joined_at", "added_by")
_CONVERSATION = (
    "id", "fhir_conversation_id", "patient_id", "subject", "status", "status_changed_at", "status_changed_by",
    "created_at", "updated_at", "include_patient_as_participant", "last_message_preview", "last_message_time",
)  # fmt: skip
_MESSAGE = (
    "id", "fhir_communication_id", "sender_id", "sender_username", "sender_display_name", "body", "amends_id",
    "created_at",
)  # fmt: skip


def _store(request: Request) -> Store:
    store: Store = request.app.state.store
    return store


def _answer(request: Request, body: bytes) -> Response:
    """Return a JSON object, made as long as Quill's answer is."""
    padding = int(request.query_params.get("padding", "0"))
    return Response(body[:-1] + _filling(padding) if padding else body, media_type="application/json")


@functools.lru_cache
def _filling(length: int) -> bytes:
    return b',"padding":"' + b"x" * max(0, length - len(b',"padding":""')) + b'"}'


async def health(request: Request) -> Response:
    """Say that all is well."""
    service = {"available": True, "status_code": 200, "error": None}
    services = {"auth_db": service, "fhir": service, "ehrbase": service}
    return _answer(request, to_json({"status": "healthy", "services": services}))


async def me(request: Request) -> Response:
    """Give an account."""
    [row] = await _store(request).fetch(sql.ME, request.path_params["login"])
    names = ("id", "username", "name", "email", "system_permissions", "totp_enabled", "fhir_patient_id", "profession")
    account: Fields = dict(zip(names, row, strict=False))
    return _answer(request, to_json(account | {"roles": row[8].split(","), "enabled_features": []}))


async def sign_in(request: Request) -> Response:
    """Compare a password with its hash."""
    given = msgspec.json.decode(await request.body())
    [row] = await _store(request).fetch(sql.HASH_OF, given["username"])
    state = request.app.state
    await anyio.to_thread.run_sync(state.hasher.verify, row[0], given["password"], limiter=state.hashes)
    return _answer(request, to_json({"detail": "ok"}))


async def refresh(request: Request) -> Response:
    """Count a login on."""
    async with _store(request).writing() as session:
        [row] = await session.fetch(sql.REFRESH, request.cookies["refresh_token"])
    answer = _answer(request, to_json({"detail": "ok"}))
    for name in ("access_token", "refresh_token", "XSRF-TOKEN"):
        answer.set_cookie(name, request.cookies["refresh_token"] if name == "refresh_token" else "x" * 400, max_age=60)
    return answer if row[0] else Response(status_code=401)


async def patients_of(request: Request) -> Response:
    """List an organisation's patients and count them."""
    store, place = _store(request), request.path_params["place"]
    rows = await store.fetch(sql.PATIENTS_OF, place, _limit(request))
    [[total]] = await store.fetch(sql.COUNT_PATIENTS_OF, place)
    return _answer(request, _documents(rows, total))


async def patients(request: Request) -> Response:
    """List patients after a place in the list."""
    after = request.query_params.get("sort_name", ""), request.query_params.get("patient_id", "")
    return _answer(request, _documents(await _store(request).fetch(sql.PATIENTS, *after, _limit(request)), None))


async def patient_search(request: Request) -> Response:
    """List patients of a name and count them."""
    store, pattern = _store(request), f"%{request.query_params['word']}%"
    rows = await store.fetch(sql.PATIENT_SEARCH, pattern, _limit(request))
    [[total]] = await store.fetch(sql.COUNT_SEARCH, pattern)
    return _answer(request, _documents(rows, total))


async def patient(request: Request) -> Response:
    """Give a patient's resource."""
    [row] = await _store(request).fetch(sql.PATIENT, request.path_params["patient"])
    return _answer(request, row[0].encode())


async def letters(request: Request) -> Response:
    """List letters."""
    rows = await _store(request).fetch(sql.LETTERS, request.path_params["patient"])
    listed = [
        {
            "composition_uid": f"{row[0]}::{row[1]}::{row[2]}",
            "title": row[3],
            "created_at": row[4],
            "author_name": row[5],
            "version": row[2],
        }
        for row in rows
    ]
    whole = {"patient_id": request.path_params["patient"], "letters": listed, "next_cursor": None}
    return _answer(request, to_json(whole))


async def letter(request: Request) -> Response:
    """Give a letter: the stored text, and what it says once more, read out of it."""
    [row] = await _store(request).fetch(sql.LETTER, request.path_params["patient"], request.path_params["object"])
    composition = msgspec.json.decode(row[0])
    said = {"data": composition, "title": row[1], "created_at": row[2], "author_name": row[3], "version": row[4]}
    return _answer(request, to_json(said))


async def conversations(request: Request) -> Response:
    """List somebody's conversations."""
    store, user, limit = _store(request), request.path_params["user"], _limit(request)
    rows = await store.fetch(sql.CONVERSATIONS, user, limit)
    people: dict[int, list[Fields]] = {}
    for row in await store.fetch(sql.PEOPLE_OF_PAGE, user, limit):
        people.setdefault(row[0], []).append(_named(_PEOPLE, tuple(row)[1:]))
    listed = [
        _named(_CONVERSATION, row)
        | {"unread_count": row[12], "participants": people.get(row[0], []), "is_participant": True, "can_write": True}
        for row in rows
    ]
    return _answer(request, to_json({"conversations": listed, "next_cursor": None}))


async def conversation(request: Request) -> Response:
    """Give a conversation with its messages."""
    store, number = _store(request), request.path_params["conversation"]
    [row] = await store.fetch(sql.CONVERSATION, number)
    people = [_named(_PEOPLE, tuple(person)[1:]) for person in await store.fetch(sql.PEOPLE, number)]
    said = await store.fetch(sql.MESSAGES, number, 1000)
    whole = _named(_CONVERSATION, row) | {"participants": people, "messages": _messages(said), "next_cursor": None}
    return _answer(request, to_json(whole))


async def messages(request: Request) -> Response:
    """List the newest messages of a conversation."""
    rows = await _store(request).fetch(sql.MESSAGES, request.path_params["conversation"], _limit(request))
    return _answer(request, to_json({"messages": _messages(rows), "next_cursor": None}))


async def send(request: Request) -> Response:
    """Keep a message: the record with its version and key, the row, and everything a list shows of it."""
    number, user = request.path_params["conversation"], request.path_params["user"]
    body = msgspec.json.decode(await request.body())["body"]
    now, fhir_id = clock.now(), str(uuid.uuid4())
    store = _store(request)
    async with store.writing() as session:
        [[patient_id, parent]] = await session.fetch(sql.TOUCH_CONVERSATION, number, now, body[:200])
        [[message_id]] = await session.fetch(sql.TAKE_NUMBER[store.dialect])
        record = _communication(fhir_id, patient_id, parent, now, {"sender": user, "number": message_id, "body": body})
        await session.fetch(sql.INSERT_RESOURCE, fhir_id, now, False, record, patient_id)
        await session.fetch(sql.INSERT_VERSION, fhir_id, now, False, record)
        await session.fetch(sql.INSERT_KEY, fhir_id, parent)
        await session.fetch(sql.INSERT_MESSAGE, message_id, fhir_id, number, user, body, now)
        await session.fetch(sql.TOUCH_PEOPLE, number, now, user)
        await session.fetch(sql.TOUCH_PLACES, number, now)
        await session.fetch(sql.INSERT_NOTICE, str(uuid.uuid4()), now)
        facts = f'{{"message_id":"{message_id}"}}'
        await session.fetch(sql.INSERT_EVENT, "message", patient_id, number, facts, now)
    answer = {"id": message_id, "fhir_communication_id": fhir_id, "sender_id": user, "body": body, "created_at": now}
    return _answer(request, to_json(answer))


async def mark_read(request: Request) -> Response:
    """Move somebody's marker."""
    number, user = request.path_params["conversation"], request.path_params["user"]
    message_id = msgspec.json.decode(await request.body())["message_id"]
    now = clock.now()
    async with _store(request).writing() as session:
        [[patient_id]] = await session.fetch(sql.READ_MESSAGE, number)
        await session.fetch(sql.MARK_READ, number, user, message_id, now)
        facts = f'{{"user_id":"{user}","message_id":"{message_id}"}}'
        await session.fetch(sql.INSERT_EVENT, "read", patient_id, number, facts, now)
    return _answer(request, to_json({"ok": True}))


async def listen(request: Request) -> Response:
    """Tell whatever is published."""
    listeners: set[asyncio.Queue[bytes]] = request.app.state.listeners
    waiting: asyncio.Queue[bytes] = asyncio.Queue()

    async def told() -> AsyncIterator[bytes]:
        listeners.add(waiting)
        try:
            yield b"id: 0\nevent: ready\ndata: {}\n\n"
            while True:
                yield await waiting.get()
        finally:
            listeners.discard(waiting)

    return StreamingResponse(told(), media_type="text/event-stream")


async def publish(request: Request) -> Response:
    """Keep a message, and tell everybody who listens."""
    answer = await send(request)
    message_id = msgspec.json.decode(bytes(answer.body))["id"]
    number = request.path_params["conversation"]
    event = f'id: 1\nevent: message\ndata: {{"conversation_id":{number},"message_id":{message_id}}}\n\n'.encode()
    for waiting in request.app.state.listeners:
        waiting.put_nowait(event)
    return answer


def _limit(request: Request) -> int:
    return int(request.query_params["limit"])


def _documents(rows: Rows, total: int | None) -> bytes:
    """Return stored texts put together, as Quill does it: they are never decoded."""
    rest = to_json({"fhir_ready": True, "as_of": None, "next_cursor": None, "total": total}).decode()
    return f'{{"patients":[{",".join(row[0] for row in rows)}],{rest[1:]}'.encode()


def _named(names: Sequence[str], row: Sequence[Any]) -> Fields:
    return dict(zip(names, row, strict=False))


def _messages(rows: Rows) -> list[Fields]:
    return [_named(_MESSAGE, row) | {"is_amendment": row[6] is not None} for row in reversed(rows)]


def _communication(fhir_id: str, patient_id: str, parent: str, now: datetime.datetime, said: Mapping[str, Any]) -> str:
    """Return a record of the kind Quill keeps, and as large."""
    sender = {"reference": f"Practitioner/{said['sender']}", "display": "Somebody of the bench clinic"}
    record = {
        "resourceType": "Communication",
        "id": fhir_id,
        "meta": {"source": "https://quill.example", "versionId": "1", "lastUpdated": now},
        "identifier": [{"system": "https://quill.example/message-number", "value": str(said["number"])}],
        "partOf": [{"reference": f"Communication/{parent}"}],
        "status": "completed",
        "subject": {"reference": f"Patient/{patient_id}"},
        "sent": now,
        "sender": sender,
        "payload": [{"contentString": said["body"]}],
    }
    return msgspec.json.encode(record).decode()


ROUTES: Sequence[tuple[str, Handler, str]] = (
    ("/health", health, "GET"),
    ("/me/{login}", me, "GET"),
    ("/sign-in", sign_in, "POST"),
    ("/refresh", refresh, "POST"),
    ("/patients-of/{place:int}", patients_of, "GET"),
    ("/patients", patients, "GET"),
    ("/patient-search", patient_search, "GET"),
    ("/patient/{patient}", patient, "GET"),
    ("/letters/{patient}", letters, "GET"),
    ("/letter/{patient}/{object}", letter, "GET"),
    ("/conversations/{user:int}", conversations, "GET"),
    ("/conversation/{conversation:int}", conversation, "GET"),
    ("/messages/{conversation:int}", messages, "GET"),
    ("/send/{conversation:int}/{user:int}", send, "POST"),
    ("/mark-read/{conversation:int}/{user:int}", mark_read, "POST"),
    ("/events", listen, "GET"),
    ("/publish/{conversation:int}/{user:int}", publish, "POST"),
)


@contextlib.asynccontextmanager
async def _lifespan(app: Starlette) -> AsyncIterator[None]:
    app.state.store = await open_store(os.environ[DATABASE_VARIABLE])
    app.state.hasher = PasswordHasher()
    app.state.hashes = anyio.CapacityLimiter(HASHES_AT_ONCE)
    app.state.listeners = set()
    try:
        yield
    finally:
        await app.state.store.close()


def create_floor() -> Starlette:
    """Return the floor's application; it connects when it starts."""
    routes = [Route(path, handler, methods=[method]) for path, handler, method in ROUTES]
    return Starlette(routes=routes, lifespan=_lifespan)


def serve(port: int) -> None:
    """Serve with the options Quill serves with."""
    uvicorn.run(
        create_floor(),
        host="127.0.0.1",
        port=port,
        access_log=False,
        log_config=None,
        proxy_headers=False,
        server_header=False,
        timeout_graceful_shutdown=1,
    )
