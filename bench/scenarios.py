"""The scenarios of ``scenarios.toml``, and the requests each of them sends to Quill and to the floor."""

import json
import string
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

HERE = Path(__file__).parent
SCENARIOS_FILE = HERE / "scenarios.toml"
CONNECTIONS = 8
"""Browsers that ask at once, each waiting for its answer."""

Kind = Literal["read", "audited", "write", "sign-in", "refresh"]
Facts = Mapping[str, Any]
"""What the bench clinic says of itself: ids, tokens, and lists of what is gone through in turn."""


@dataclass(frozen=True, slots=True)
class Scenario:
    """One thing people do.

    Attributes:
        name: the key in ``budgets.toml`` and on the command line.
        title: for readers.
        kind: which promise holds for it.
        path: of Quill, with ``${fact}`` for what the clinic says of itself.
        floor: the path of the same at the floor.
        method: of both.
        signed_in: who asks, or nobody.
        each: the list of the clinic whose members are gone through.
        body: JSON text for both, with facts.
        connections: how many ask at once.
        round_seconds: how long one turn is; longer where an answer takes long.
    """

    name: str
    title: str
    kind: Kind
    path: str
    floor: str
    method: str = "GET"
    signed_in: str | None = None
    each: str | None = None
    body: str | None = None
    connections: int = CONNECTIONS
    round_seconds: int = 1

    @property
    def writes(self) -> bool:
        """Tell whether it changes something, and so must not run into a server that was stopped for a moment."""
        return self.kind in {"write", "sign-in", "refresh"}


@dataclass(frozen=True, slots=True)
class Call:
    """One HTTP request, without the server's address."""

    method: str
    path: str
    headers: Mapping[str, str]
    body: str | None = None

    def raw(self, host: str) -> bytes:
        """Return the request as it goes over the wire (RFC 9112)."""
        body = (self.body or "").encode()
        headers = {"Host": host, **self.headers}
        if self.method != "GET":
            headers |= {"Content-Type": "application/json", "Content-Length": str(len(body))}
        lines = [f"{self.method} {self.path} HTTP/1.1", *(f"{name}: {value}" for name, value in headers.items())]
        return "\r\n".join([*lines, "", ""]).encode() + body


def read_scenarios(file: Path = SCENARIOS_FILE) -> list[Scenario]:
    """Return the scenarios, in order."""
    entries = tomllib.loads(file.read_text())["scenario"]
    return [
        Scenario(**{("signed_in" if name == "as" else name): value for name, value in entry.items()})
        for entry in entries
    ]


def quill_calls(scenario: Scenario, facts: Facts) -> list[Call]:
    """Return what is sent to Quill, in turn."""
    headers = sign_in_headers(facts, scenario.signed_in) if scenario.signed_in else {}
    return [
        Call(scenario.method, _filled(scenario.path, own), headers, _body(scenario, own))
        for own in _members(scenario, facts)
    ]


def floor_calls(scenario: Scenario, facts: Facts, *, padding: int = 0) -> list[Call]:
    """Return what is sent to the floor, which adds so many bytes to its answer."""
    mark = "&" if "?" in scenario.floor else "?"
    return [
        Call(scenario.method, f"{_filled(scenario.floor, own)}{mark}padding={padding}", {}, _body(scenario, own))
        for own in _members(scenario, facts)
    ]


def sign_in_headers(facts: Facts, name: str) -> dict[str, str]:
    """Return what somebody's browser sends along."""
    tokens = facts["tokens"][name]
    return {
        "Cookie": f"access_token={tokens['access']}; XSRF-TOKEN={tokens['csrf']}",
        "X-CSRF-Token": tokens["csrf"],
    }


def read_facts(file: Path) -> Facts:
    """Return what a bench clinic said of itself when it was filled."""
    facts: Facts = json.loads(file.read_text())
    return facts


def chosen(scenarios: Sequence[Scenario], names: Sequence[str]) -> list[Scenario]:
    """Return the scenarios of these names, all without a name; raises ``ValueError`` for a name there is none of."""
    known = {scenario.name for scenario in scenarios}
    if unknown := sorted(set(names) - known):
        raise ValueError(f"There is no scenario {', '.join(unknown)}; there are {', '.join(sorted(known))}.")
    return [scenario for scenario in scenarios if not names or scenario.name in names]


def _members(scenario: Scenario, facts: Facts) -> Iterator[Facts]:
    if scenario.each is None:
        yield facts
        return
    for member in facts[scenario.each]:
        yield {**facts, **member}


def _filled(text: str, facts: Facts) -> str:
    return string.Template(text).substitute(facts)


def _body(scenario: Scenario, facts: Facts) -> str | None:
    return None if scenario.body is None else _filled(scenario.body, facts)
