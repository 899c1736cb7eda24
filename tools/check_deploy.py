"""Fail when the files for containers and clusters disagree with the program, or are less strict than they must be."""

import sys
from pathlib import Path

from tools import deploy_compose, deploy_container, deploy_kubernetes
from tools.deployment import Deployment

ROOT = Path(__file__).resolve().parent.parent


def problems(root: Path) -> list[str]:
    """Return what is wrong, a sentence each."""
    deployment = Deployment(root)
    rooms = (deploy_container, deploy_compose, deploy_kubernetes)
    return [problem for room in rooms for problem in room.check(deployment)]


def main() -> int:
    """Return 0 when nothing is wrong, 1 otherwise."""
    found = problems(ROOT)
    print("\n".join(found) or "The files for containers and clusters agree with the program.")
    return 1 if found else 0


if __name__ == "__main__":
    sys.exit(main())
