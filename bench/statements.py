"""How many statements a request costs, counted exactly: in this process, one call of each scenario."""

import asyncio
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import Any

import sqlalchemy as sa
from fastapi import FastAPI
from starlette.testclient import TestClient

from bench.driver import Failed
from bench.scenarios import Call, Facts, Scenario, quill_calls
from quill.app import create_app
from quill.kit.logs import configure
from quill.settings import Settings

BACKGROUND_TASKS = frozenset(
    {
        "sweep",
        "sealer",
        "letter-template",
        "follow",
        "feed",
        "outbox",
        "outbox-delivery",
        "outbox-closing",
        "push-devices",
    }
)
"""What the program does on its own time (``quill.app``)."""
SPARE_LOGINS = 2
"""Refreshed here, and therefore not by the driver."""


def count_statements(
    settings: Settings, scenarios: Sequence[Scenario], facts: Facts
) -> Mapping[str, Mapping[str, int]]:
    """Return for each scenario how many statements of each kind its request costs, the audit row's included."""
    configure("error", as_json=False)
    app = create_app(settings)
    with TestClient(app, base_url="http://quill.example") as client:
        return {scenario.name: _of(app, client, scenario, facts) for scenario in scenarios}


def _of(app: FastAPI, client: TestClient, scenario: Scenario, facts: Facts) -> dict[str, int]:
    calls = _calls(scenario, facts)
    # The first brings what is asked for once in a while: a probe of the store, a statement's compilation.
    for call in calls[:-1]:
        _ask(client, call)
    # A read is asked again: what is looked at once a second, such as whether the store answers, may fall into one.
    counted = [_count(app, client, calls[-1]) for _ in range(3 if scenario.method == "GET" else 1)]
    least = min(counted, key=lambda kinds: sum(kinds.values()))
    return dict(least)


def _count(app: FastAPI, client: TestClient, call: Call) -> Counter[str]:
    with _noted(app) as sent:
        _ask(client, call)
    return Counter(statement.split(None, 1)[0].upper() for statement in sent)


def _calls(scenario: Scenario, facts: Facts) -> list[Call]:
    if scenario.kind == "refresh":
        spare = facts["refresh_tokens"][-SPARE_LOGINS:]
        return [Call(scenario.method, scenario.path, {"Cookie": f"refresh_token={token}"}) for token in spare]
    calls = quill_calls(scenario, facts)
    return [calls[0], calls[1 % len(calls)]]


def _ask(client: TestClient, call: Call) -> None:
    headers = dict(call.headers) | ({"Content-Type": "application/json"} if call.body else {})
    client.cookies.clear()
    answer = client.request(call.method, call.path, headers=headers, content=call.body)
    if answer.status_code >= 400:
        raise Failed(f"{call.method} {call.path} was answered {answer.status_code}")


@contextmanager
def _noted(app: FastAPI) -> Iterator[list[str]]:
    sent: list[str] = []

    def note(_connection: Any, _cursor: Any, statement: str, *_: Any) -> None:
        task = asyncio.current_task()
        if task is None or task.get_name() not in BACKGROUND_TASKS:
            sent.append(statement)

    engine = app.state.services.database.engine.sync_engine
    sa.event.listen(engine, "before_cursor_execute", note)
    try:
        yield sent
    finally:
        sa.event.remove(engine, "before_cursor_execute", note)
