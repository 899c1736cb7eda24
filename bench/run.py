"""``python bench/run.py``: measure, compare with ``budgets.toml``, and say where Quill stands."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1]))

from bench.command import main

if __name__ == "__main__":
    sys.exit(main())
