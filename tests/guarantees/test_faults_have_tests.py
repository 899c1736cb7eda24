"""Every fault of every part has a row in ``docs/faults.md``, and the tests named there exist."""

import ast
import functools
import itertools
import re
from pathlib import Path

import pytest

from tests.faults import house, test_mail_and_push, test_redis

ROOT = Path(__file__).parents[2]
PAGE = (ROOT / "docs/faults.md").read_text()
PARTS = ("FHIR", "openEHR", "database", "Redis", "SMTP", "push")
FAULTS = ("refused", "timeout", "500", "429", "half", "content-type", "slow", "restart")
NAMED = re.compile(r"`(tests/[\w/]+\.py)::(\w+)`")


def rows() -> list[list[str]]:
    """Return the cells of each row about a fault."""
    lines = PAGE.partition("## Rows")[2].splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| ")]
    return [row for row in cells if row[0] != "Part"]


@functools.cache
def names_in(path: str) -> frozenset[str]:
    nodes = ast.walk(ast.parse((ROOT / path).read_text()))
    return frozenset(node.name for node in nodes if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef))


def test_every_fault_of_every_part_has_one_row() -> None:
    assert [(row[0], row[1]) for row in rows()] == list(itertools.product(PARTS, FAULTS))


@pytest.mark.parametrize("row", rows(), ids=lambda row: f"{row[0]}: {row[1]}")
def test_row_is_whole_and_shown_by_a_test(row: list[str]) -> None:
    assert len(row) == 6
    assert all(row)
    assert NAMED.findall(row[5])


@pytest.mark.parametrize(("path", "name"), sorted(set(NAMED.findall(PAGE))))
def test_every_test_named_exists(path: str, name: str) -> None:
    assert name in names_in(path), f"{path} has no {name}"


def test_tests_try_every_fault_the_page_tells_of() -> None:
    assert set(house.HTTP_FAULTS) == set(FAULTS)
    assert set(test_mail_and_push.MAIL_FAULTS) | {"slow"} == set(FAULTS)
    assert set(test_mail_and_push.PUSH_FAULTS) | {"slow", "content-type"} == set(FAULTS)
    assert set(test_redis.FAULTS) | {"slow", "restart"} == set(FAULTS)
