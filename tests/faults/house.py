"""The whole application with every clinical record elsewhere, and a line to each part that a test lets go wrong."""

import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from fastapi import FastAPI

from quill.app import KINDS, build_services
from quill.settings import Settings
from tests.clinic import Clinic, Person
from tests.databases import Databases, SqliteDatabases
from tests.published_api import Browser
from tests.remote_like import sweep_after_leases_ran_out
from tests.upstreams.faults import FaultyLine, faulty_line
from tests.upstreams.fhir_server import fhir_server
from tests.upstreams.openehr_server import PASSWORD, USER, openehr_server

DEADLINE = 0.5
"""Seconds one call to a record store may take here; 8 unless the operator says otherwise."""
PATIENCE = 3.0
"""Seconds within which everything must be answered, on a machine that is busy with other tests too."""

AT_ONCE = 16
"""Calls side by side; more would only wait for this machine's processors."""

Break = Callable[[FaultyLine], None]
Call = Callable[[], Any]

HTTP_FAULTS: Mapping[str, Break] = {
    "refused": lambda line: line.break_with("refuse"),
    "timeout": lambda line: line.break_with("freeze"),
    "500": lambda line: line.answer_http(500, b'{"resourceType": "OperationOutcome", "issue": []}'),
    "429": lambda line: line.answer_http(429, headers=(("Retry-After", "7"),)),
    "half": lambda line: line.break_with("half"),
    "content-type": lambda line: line.answer_http(200, b"<html>Welcome</html>", "text/html"),
    "slow": lambda line: line.break_with("slow"),
    "restart": lambda line: line.break_with("cut"),
}
"""What the issue names, as a line to an HTTP service shows it; ``restart`` ends the connection after the request
arrived and before its answer is back."""


@dataclass
class House:
    """The application, its people, and the lines.

    Attributes:
        clinic: makes people and patients.
        lines: by part, ``fhir`` and ``openehr``.
    """

    clinic: Clinic
    lines: Mapping[str, FaultyLine]

    def mend(self) -> None:
        """Let every line carry everything again."""
        for line in self.lines.values():
            line.mend()

    def sweep(self) -> int:
        """Finish what was left open, as would be done once the leases have run out."""
        count: int = self.clinic.run(sweep_after_leases_ran_out, self.clinic.services, KINDS)
        return count

    def health(self) -> Any:
        """Return what health says, asked without a login."""
        return self.clinic.client.get("/api/health")


@contextmanager
def open_house(application: FastAPI, settings: Settings, records: SqliteDatabases) -> Iterator[House]:
    """Run the application with both record stores elsewhere, each behind a line, until the block ends."""
    directory = settings.data_dir
    for name in ("fhir", "openehr"):
        (directory / name).mkdir()
    with ExitStack() as stack:
        fhir = stack.enter_context(fhir_server(records.fresh(directory / "fhir")))
        _, openehr_address = stack.enter_context(openehr_server(directory / "openehr"))
        lines = {
            "fhir": stack.enter_context(faulty_line(fhir.address)),
            "openehr": stack.enter_context(faulty_line(openehr_address)),
        }
        elsewhere: dict[str, Any] = {
            "fhir_url": f"http://127.0.0.1:{lines['fhir'].port}/fhir",
            "openehr_url": f"http://127.0.0.1:{lines['openehr'].port}/ehrbase",
            "openehr_user": USER,
            "openehr_password": PASSWORD,
        }
        changed = Settings.model_validate(settings.model_dump() | elsewhere)
        browser = stack.enter_context(started(application, changed))
        yield House(Clinic(browser), lines)


@contextmanager
def started(application: FastAPI, settings: Settings) -> Iterator[Browser]:
    """Start the application with settings of its own; yields a browser without a login."""
    usual = dict(application.state._state)
    application.state.open_services = build_services
    application.state.settings = settings
    try:
        with Browser(application, raise_server_exceptions=False) as browser:
            yield browser
    finally:
        application.state._state.clear()
        application.state._state.update(usual)


@contextmanager
def fresh_database(databases: Databases, directory: Path) -> Iterator[str]:
    """Return the URL of a migrated database that a module's tests share."""
    url = databases.fresh(directory)
    try:
        yield url
    finally:
        databases.drop(url)


@dataclass(frozen=True)
class Outcome:
    """An answer, and how long it took in seconds."""

    answer: Any
    seconds: float

    @property
    def told(self) -> tuple[int, str]:
        """Return status and ``error_code`` of a problem document, or status and nothing."""
        is_problem = self.answer.headers["content-type"] == "application/problem+json"
        return self.answer.status_code, self.answer.json()["error_code"] if is_problem else ""


def all_at_once(calls: Mapping[str, Call]) -> dict[str, Outcome]:
    """Make calls side by side; returns what came of each."""

    def timed(call: Call) -> Outcome:
        began = time.monotonic()
        answer = call()
        return Outcome(answer, time.monotonic() - began)

    with ThreadPoolExecutor(AT_ONCE) as pool:
        return dict(zip(calls, pool.map(timed, calls.values()), strict=True))


def until(condition: Callable[[], object], seconds: float = PATIENCE) -> None:
    """Return once something holds; fail when it does not in time."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "It did not come about in time."
        time.sleep(0.02)


def new_sign_in(person: Person) -> Call:
    """Return a sign-in with the password, at a browser of its own."""

    def call() -> Any:
        return Person(person.client, person.id, person.username).sign_in()

    return call
