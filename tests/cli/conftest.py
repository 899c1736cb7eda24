"""The program as an operator runs it: a process of its own, an installation of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest
from typer.testing import CliRunner

from quill.cli.commands import app

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAM = (sys.executable, "-c", "from quill.cli import main; main()")


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """Return a process environment with nothing of Quill's in it but what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUILL_")}
    cheap = {"QUILL_ARGON2_TIME_COST": "1", "QUILL_ARGON2_MEMORY_KIB": "8", "QUILL_ARGON2_PARALLELISM": "1"}
    return kept | cheap | {"QUILL_DATA_DIR": str(data_dir)} | settings


@pytest.fixture
def quill(tmp_path: Path) -> Run:
    """Return a function that runs ``quill …`` to its end on this test's installation.

    In this process, because starting one takes a second; ``PROGRAM`` is for tests about the process itself.
    """

    def run(*words: str, stdin: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
        # ``None`` unsets: what surrounds the suite must not reach the installation under test.
        surroundings: dict[str, str | None] = {name: None for name in os.environ if name.startswith("QUILL_")}
        wanted = {name: value for name, value in environment(tmp_path / "data", **settings).items() if "QUILL_" in name}
        done = CliRunner().invoke(app, words, input=stdin, env=surroundings | wanted)
        return subprocess.CompletedProcess(words, done.exit_code, done.stdout, done.stderr)

    return run
