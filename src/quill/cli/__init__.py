"""The command line: ``quill …``.

Each command imports what it needs when it runs, so that ``quill --help`` answers at once.
"""

import sys


def main() -> None:
    """Run the command line; the entry point of the ``quill`` program.

    Raises:
        SystemExit: always; 0 when all went well, 1 when something is wrong, 2 when the words are.
    """
    from quill.cli.commands import app

    try:
        app()
    except KeyboardInterrupt:
        sys.exit(130)
