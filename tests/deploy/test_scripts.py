"""The scripts for PostgreSQL as somebody meets them who has not read them; tests/live runs them in earnest."""

import subprocess
from pathlib import Path

SCRIPTS = Path(__file__).resolve().parents[2] / "deploy" / "postgresql"


def test_scripts_say_how_to_call_them() -> None:
    for name in ("backup.sh", "restore.sh"):
        told = subprocess.run([SCRIPTS / name], capture_output=True, text=True, check=False)  # noqa: S603 - ours
        assert (told.returncode, told.stdout) == (2, "")
        assert told.stderr.startswith(f"usage: {name}")
