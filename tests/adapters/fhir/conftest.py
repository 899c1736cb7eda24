"""Query plans are a matter of the one database they are read from: SQLite."""

import pytest

from quill.kit.database import Database


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """Return a SQLite database whatever the suite runs on."""
    return sqlite_database
