"""The program as an operator runs it: a process of its own, an installation of its own."""

import os
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path

import pytest

Run = Callable[..., "subprocess.CompletedProcess[str]"]

PROGRAM = (sys.executable, "-c", "from quill.cli import main; main()")


def environment(data_dir: Path, **settings: str) -> dict[str, str]:
    """Return a process environment with nothing of Quill's in it but what is given."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("QUILL_")}
    cheap = {"QUILL_ARGON2_TIME_COST": "1", "QUILL_ARGON2_MEMORY_KIB": "8", "QUILL_ARGON2_PARALLELISM": "1"}
    return kept | cheap | {"QUILL_DATA_DIR": str(data_dir)} | settings


@pytest.fixture
def quill(tmp_path: Path) -> Run:
    """Return a function that runs ``quill …`` to its end on this test's installation."""

    def run(*words: str, stdin: str = "", **settings: str) -> "subprocess.CompletedProcess[str]":
        return subprocess.run(  # noqa: S603 - the program under test
            [*PROGRAM, *words],
            input=stdin,
            capture_output=True,
            text=True,
            env=environment(tmp_path / "data", **settings),
            timeout=50,
            check=False,
        )

    return run
