"""A PostgreSQL that is going down or coming up is an outage, whatever word it has for it."""

import asyncio
import threading
from collections.abc import Iterator
from contextlib import contextmanager

import pytest
from fastapi import FastAPI
from starlette.testclient import TestClient

from quill.edge import problems
from quill.kit.database import Database


@contextmanager
def refusing(sqlstate: str) -> Iterator[str]:
    """Run a server that answers every PostgreSQL sign-in with an error; yields its address as a database URL."""

    async def refuse(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        length = int.from_bytes(await reader.readexactly(4))
        await reader.readexactly(length - 4)
        # PostgreSQL, Message Formats, ErrorResponse: severity, SQLSTATE and text, each a field of its own.
        fields = b"".join(name + text.encode() + b"\0" for name, text in ((b"S", "FATAL"), (b"V", "FATAL")))
        fields += b"C" + sqlstate.encode() + b"\0" + b"Mthe words do not matter\0\0"
        writer.write(b"E" + (len(fields) + 4).to_bytes(4) + fields)
        await writer.drain()
        writer.close()

    loop = asyncio.new_event_loop()
    server = loop.run_until_complete(asyncio.start_server(refuse, "127.0.0.1", 0))
    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield f"postgresql+asyncpg://quill@127.0.0.1:{server.sockets[0].getsockname()[1]}/quill?ssl=disable"
    finally:
        loop.call_soon_threadsafe(server.close)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.mark.parametrize(
    "sqlstate",
    ["57P01", "57P02", "57P03", "08003", "08006", "53300", "28P01", "3D000"],
    ids=["shutdown", "crash", "starting", "no connection", "broken", "too many", "sign-in", "no database"],
)
def test_database_that_turns_everybody_away_is_unavailable(sqlstate: str) -> None:
    with refusing(sqlstate) as url:
        answer = asked_of(url)
    assert (answer["status"], answer["error_code"]) == (503, "database_unavailable")


def test_database_that_refuses_what_was_said_is_not_called_unavailable() -> None:
    with refusing("22003") as url:
        answer = asked_of(url)
    assert answer["status"] == 500


def asked_of(url: str) -> dict[str, object]:
    """Return the problem document of a route that needs the database."""
    app = FastAPI()
    problems.install(app)

    @app.get("/")
    async def ping() -> None:
        database = Database(url)
        try:
            await database.ping()
        finally:
            await database.dispose()

    with TestClient(app, raise_server_exceptions=False) as client:
        answer: dict[str, object] = client.get("/").json()
    return answer
