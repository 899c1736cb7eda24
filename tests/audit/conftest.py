"""The trail is meddled with by somebody with the database file in hand, so these tests are about SQLite."""

import pytest

from quill.kit.database import Database


@pytest.fixture
def database(sqlite_database: Database) -> Database:
    """Return a SQLite database whatever the suite runs on."""
    return sqlite_database
