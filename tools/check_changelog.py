"""Fail when the version in ``pyproject.toml`` has no heading in ``CHANGELOG.md``."""

import re
import sys
import tomllib
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def main() -> int:
    """Return 0 when the changelog has a section for the current version, 1 when it has none."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    changelog = (ROOT / "CHANGELOG.md").read_text()
    if re.search(rf"^## \[{re.escape(version)}\]", changelog, flags=re.MULTILINE):
        print(f"CHANGELOG.md has a section for {version}.")
        return 0
    print(f"CHANGELOG.md has no section '## [{version}]'.", file=sys.stderr)
    return 1


if __name__ == "__main__":
    sys.exit(main())
