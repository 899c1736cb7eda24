"""The locks install anywhere: every package pinned with hashes, no package index and no machine named."""

import re
import tomllib
from pathlib import Path
from typing import Any

import pytest

ROOT = Path(__file__).resolve().parents[2]
PROJECT: dict[str, Any] = tomllib.loads((ROOT / "pyproject.toml").read_text())
LOCKS = {name: (ROOT / "requirements" / f"{name}.lock").read_text() for name in ("run", "dev", "otel")}
GROUPS: dict[str, list[str]] = {
    "run": [*PROJECT["project"]["dependencies"], *PROJECT["dependency-groups"]["build"]],
    "dev": PROJECT["dependency-groups"]["dev"],
    "otel": [*PROJECT["project"]["dependencies"], *PROJECT["project"]["optional-dependencies"]["otel"]],
}


def pinned(lock: str) -> dict[tuple[str, str], str]:
    """Return the version of each (name, marker); a universal lock may pin one package once per platform."""
    found = re.finditer(r"^([A-Za-z0-9._-]+)(?:\[[^\]]+\])?==([^ \\]+)(?: ; ([^\\\n]+))?", lock, flags=re.MULTILINE)
    return {(match[1], (match[3] or "").strip()): match[2] for match in found}


@pytest.mark.parametrize("name", LOCKS)
class TestLock:
    def test_every_package_is_pinned_and_hashed(self, name: str) -> None:
        entries = re.sub(r"\\\n\s+", " ", LOCKS[name]).splitlines()
        entries = [entry for entry in entries if not entry.startswith("#")]
        assert entries
        assert [entry for entry in entries if "==" not in entry or "--hash=sha256:" not in entry] == []

    def test_names_no_index_and_no_place_on_a_machine(self, name: str) -> None:
        assert not re.search(r"--(extra-)?index-url|--find-links|--trusted-host|://|file:|(?<!\w)/\w+/", LOCKS[name])

    def test_holds_every_requirement_of_the_project(self, name: str) -> None:
        names = {package for package, _marker in pinned(LOCKS[name])}
        wanted = {re.split(r"[\[<>=!~; ]", requirement)[0].lower() for requirement in GROUPS[name]}
        assert wanted <= names


@pytest.mark.parametrize("name", ["run", "otel"])
def test_what_runs_is_what_was_tested(name: str) -> None:
    development = pinned(LOCKS["dev"])
    assert {key: development.get(key) for key in pinned(LOCKS[name])} == pinned(LOCKS[name])
