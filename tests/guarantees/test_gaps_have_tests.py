"""Every known weakness of the first implementation has a row in ``tests/gaps.md``, and the tests named there exist."""

import ast
import functools
import re
from collections import Counter
from pathlib import Path

import pytest
import yaml

ROOT = Path(__file__).parents[2]
CONTRACT = ROOT.parent / "shared/contract/api.yaml"
GAPS_IN_ALL = 160
SECTIONS_IN_ALL = 69
ROW = re.compile(r"\| `(?P<where>\w+)` \| (?P<words>[^|]+) \| (?P<shown>.+) \|")
DECIDED = re.compile(r"decided: \[\d{4}\]\(\.\./(?P<record>docs/decisions/\d{4}-[a-z0-9-]+\.md)\): `tests/.+")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[re.Match[str]]:
    lines = (ROOT / "tests/gaps.md").read_text().splitlines()
    return [found for line in lines if (found := ROW.fullmatch(line))]


@functools.cache
def names_in(path: str) -> frozenset[str]:
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row['where']}: {row['words']}")
def test_every_test_named_exists_or_its_lack_has_a_reason(row: re.Match[str]) -> None:
    named = NAMED.findall(row["shown"])
    if row["shown"].startswith("decided"):
        decided = DECIDED.fullmatch(row["shown"])
        assert decided, "a decision names its record, and the test that shows it"
        assert (ROOT / decided["record"]).is_file()
    elif not named:
        assert re.fullmatch(r"missing: .{10,}", row["shown"])
    for path, name in named:
        assert name in names_in(path), f"{path} has no {name}"


def test_every_weakness_has_a_row() -> None:
    counted = Counter(row["where"] for row in rows())
    assert (len(counted), counted.total()) == (SECTIONS_IN_ALL, GAPS_IN_ALL)
    if CONTRACT.is_file():
        assert counted == gaps_of_the_contract()


def gaps_of_the_contract() -> Counter[str]:
    contract = yaml.safe_load(CONTRACT.read_text())
    endpoints = {endpoint["id"]: endpoint for endpoint in contract["endpoints"]}
    sections = {name: section for name, section in contract.items() if isinstance(section, dict)}
    return Counter({name: len(found["gaps"]) for name, found in (sections | endpoints).items() if found.get("gaps")})
