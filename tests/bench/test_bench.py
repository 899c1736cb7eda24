"""The measuring itself, without any time taken: every scenario has a floor and a budget, and past a budget is told."""

import json
import re
import shutil
import string
import subprocess
import sys
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
from bench.budgets import Budget, broken, read_budgets
from bench.driver import Measured
from bench.floor import create_floor
from bench.results import Beside, Growth, Outcome, Results, StoreResults, Streams, Workers, new_results
from bench.scenarios import Scenario, chosen, floor_calls, quill_calls, read_scenarios
from bench.servers import ROOT
from starlette.routing import Match

from bench import command, report

SCENARIOS = read_scenarios()


def facts() -> dict[str, Any]:
    """Return something for every fact that a scenario names."""
    names = {
        name
        for scenario in SCENARIOS
        for text in (scenario.path, scenario.floor, scenario.body or "")
        for name in string.Template(text).get_identifiers()
    }
    return dict.fromkeys(names, 7) | {
        "accounts": [{"username": "a", "password": "b"}],
        "talks": [{"conversation": 1}],
        "marks": [{"conversation": 1, "message": 2}, {"conversation": 1, "message": 3}],
        "tokens": {name: {"access": "x", "csrf": "y"} for name in ("fifty", "many", "everybody")},
    }


def outcome(ratio: float = 1.0, growth: Growth | None = None, statements: int = 2) -> Outcome:
    counted = {"small": {"SELECT": 2}, "large": {"SELECT": statements}}
    return Outcome(
        "me", "audited", Measured(ratio, 0.1, 0.2, 0.1), Measured(1.0, 0.1, 0.2, 0.1), counted, (10, 10), growth
    )


def results_of(*outcomes: Outcome, streams: Streams | None = None, beside: Beside | None = None) -> StoreResults:
    return StoreResults("embedded", "SQLite", list(outcomes), streams=streams, beside=beside)


def sentences(store: StoreResults) -> list[str]:
    return list(broken(store, replace(read_budgets(), scenarios={"me": Budget(floor=0.5, statements=3)})))


def test_every_scenario_has_a_budget_and_no_budget_is_left_over() -> None:
    assert set(read_budgets().scenarios) == {scenario.name for scenario in SCENARIOS}
    assert len({scenario.name for scenario in SCENARIOS}) == len(SCENARIOS)


@pytest.mark.parametrize("scenario", SCENARIOS, ids=lambda scenario: scenario.name)
def test_every_scenario_has_a_route_of_quill_and_a_floor(scenario: Scenario) -> None:
    assert len(quill_calls(scenario, facts())) == len(floor_calls(scenario, facts()))
    [call, *_] = floor_calls(scenario, facts(), padding=5)
    assert call.path.endswith("padding=5")
    scope = {"type": "http", "method": call.method, "path": call.path.partition("?")[0], "headers": []}
    assert [route.matches(scope)[0] for route in create_floor().routes].count(Match.FULL) == 1
    paths = json.loads((ROOT / "docs/reference/openapi.json").read_text())["paths"]
    path = quill_calls(scenario, facts())[0].path.partition("?")[0]
    found = [of for of in paths if re.fullmatch(re.sub(r"\{\w+\}", r"[^/]+", of), path)]
    assert any(scenario.method.lower() in paths[of] for of in found)


def test_a_call_goes_over_the_wire_with_its_length_and_its_cookies() -> None:
    [scenario] = chosen(SCENARIOS, ["mark-read"])
    first, second = quill_calls(scenario, facts())
    raw = first.raw("127.0.0.1:1").decode()
    assert raw.startswith("POST /api/conversations/1/read HTTP/1.1\r\nHost: 127.0.0.1:1\r\n")
    assert "Cookie: access_token=x; XSRF-TOKEN=y\r\nX-CSRF-Token: y\r\n" in raw
    assert raw.endswith('Content-Length: 17\r\n\r\n{"message_id": 2}')
    assert second.body == '{"message_id": 3}'


def test_an_unknown_scenario_is_refused() -> None:
    with pytest.raises(ValueError, match="no scenario dance"):
        chosen(SCENARIOS, ["dance"])
    assert chosen(SCENARIOS, []) == SCENARIOS


def test_what_is_within_its_budget_is_not_told() -> None:
    streams = Streams(10, told=1.0, p50=1, p99=1, floor_p50=1, floor_p99=1, opened_seconds=1, rss_bytes=None)
    good = results_of(outcome(0.5, Growth(1.3, 1.5)), streams=streams, beside=Beside(100, 4, 0.01, 0.03))
    assert sentences(good) == []


def test_what_is_past_its_budget_is_told() -> None:
    streams = Streams(10, told=0.9, p50=1, p99=1, floor_p50=1, floor_p99=1, opened_seconds=1, rss_bytes=None)
    bad = results_of(outcome(0.4, Growth(1.4, 1.6), 4), streams=streams, beside=Beside(100, 4, 0.01, 0.04))
    told = "\n".join(sentences(bad))
    for words in ("0.40 of the floor", "4 statements", "grows with the clinic", "p50 on the large", "p99 on the large"):
        assert words in told
    assert "0.900 of the events" in told
    assert "4.0 times p50" in told


def results() -> Results:
    made = new_results("small", 5)
    made.stores.append(results_of(outcome(0.4)))
    made.skipped.append("PostgreSQL (none here)")
    return made


def workers(one: float, two: float, cpu: float, *, are_free: bool) -> Workers:
    return Workers("me", Measured(one, 0.1, 0.2, 0.01), Measured(two, 0.1, 0.2, cpu), are_free=are_free)


@pytest.mark.parametrize(
    ("measured", "told"),
    [
        (workers(100, 170, 0.02, are_free=True), ""),
        (workers(100, 160, 0.01, are_free=True), "two give 1.60 times one"),
        (workers(100, 120, 0.0117, are_free=False), ""),
        (workers(100, 190, 0.0125, are_free=False), "two give 1.60 times one"),
    ],
)
def test_two_workers_are_judged_by_what_they_do_or_by_what_an_answer_takes(measured: Workers, told: str) -> None:
    store = results_of()
    store.workers.append(measured)
    assert told in "".join(sentences(store))
    assert bool(sentences(store)) == bool(told)


def test_report_marks_what_falls_short_and_replaces_the_one_before(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    shown = report.text(results(), SCENARIOS, replace(read_budgets(), scenarios={"me": Budget(0.5, 3)}))
    assert "**0.40**" in shown
    assert "Left out: PostgreSQL (none here)." in shown
    readme = tmp_path / "README.md"
    shutil.copy(report.README, readme)
    monkeypatch.setattr(report, "README", readme)
    report.update_readme(results(), shown)
    once = readme.read_text()
    report.update_readme(results(), shown)
    assert readme.read_text() == once
    assert once.count("**0.40**") == 1


def test_plot_is_well_formed_and_names_the_scenario(tmp_path: Path) -> None:
    report.write_plot(results(), SCENARIOS, read_budgets(), tmp_path)
    drawn = (tmp_path / "results-small.svg").read_text()
    assert drawn.startswith("<svg ")
    assert drawn.count("<rect") == drawn.count("/>") - drawn.count("<line")
    assert "who am I" in drawn


def test_command_says_what_it_takes_and_refuses_what_it_does_not_know(capsys: pytest.CaptureFixture[str]) -> None:
    assert command.main(["--scenario", "dance"]) == 2
    assert "no scenario dance" in capsys.readouterr().err
    done = subprocess.run(
        [sys.executable, "bench/run.py", "--help"], cwd=ROOT, capture_output=True, text=True, check=True
    )
    assert "--update-readme" in done.stdout
