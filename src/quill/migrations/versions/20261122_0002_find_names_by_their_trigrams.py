"""Find names by their trigrams.

PostgreSQL gets an index by its own extension ``pg_trgm``, SQLite a full-text table that triggers keep in step.

Revision: 0002
"""

from collections.abc import Callable

import sqlalchemy as sa
from alembic import op

from quill.migrations import CannotMigrate

revision = "0002"
down_revision = "0001"
branch_labels = None
depends_on = None

ROWS = 1000
NOT_ALLOWED_OR_NOT_THERE = {"42501", "0A000", "58P01"}
"""What PostgreSQL says of an extension: insufficient_privilege, feature_not_supported, undefined_file."""

AFTER_INSERT = """
CREATE TRIGGER patient_name_after_insert AFTER INSERT ON patient_index BEGIN
  INSERT INTO patient_name_number (patient_id) VALUES (new.patient_id);
  INSERT INTO patient_name_search (rowid, names)
    SELECT number, new.search_text FROM patient_name_number WHERE patient_id = new.patient_id;
END
"""
AFTER_UPDATE = """
CREATE TRIGGER patient_name_after_update AFTER UPDATE OF search_text ON patient_index
  WHEN old.search_text <> new.search_text
BEGIN
  INSERT INTO patient_name_search (patient_name_search, rowid, names)
    SELECT 'delete', number, old.search_text FROM patient_name_number WHERE patient_id = old.patient_id;
  INSERT INTO patient_name_search (rowid, names)
    SELECT number, new.search_text FROM patient_name_number WHERE patient_id = new.patient_id;
END
"""
AFTER_DELETE = """
CREATE TRIGGER patient_name_after_delete AFTER DELETE ON patient_index BEGIN
  INSERT INTO patient_name_search (patient_name_search, rowid, names)
    SELECT 'delete', number, old.search_text FROM patient_name_number WHERE patient_id = old.patient_id;
  DELETE FROM patient_name_number WHERE patient_id = old.patient_id;
END
"""


def upgrade() -> None:
    _rewrite(_with_short_parts)
    if op.get_bind().dialect.name == "postgresql":
        _index_trigrams()
    else:
        _make_full_text_table()


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        # The extension stays: others may have come to use it, and it does nothing by itself.
        op.drop_index("ix_patient_index_search_text", "patient_index")
    else:
        for happening in ("insert", "update", "delete"):
            op.execute(f"DROP TRIGGER patient_name_after_{happening}")
        op.execute("DROP TABLE patient_name_search")
        op.execute("DROP TABLE patient_name_number")
    _rewrite(_without_short_parts)


def _index_trigrams() -> None:
    if _extension_schema() is None:
        try:
            with op.get_bind().begin_nested():
                op.execute("CREATE EXTENSION pg_trgm")
        except sa.exc.DBAPIError as error:
            if getattr(error.orig, "sqlstate", None) not in NOT_ALLOWED_OR_NOT_THERE:
                raise
            raise CannotMigrate(
                "PostgreSQL does not let this role create the extension pg_trgm, which searching by name needs. The "
                "owner of the database may, and whoever may CREATE in it; it comes with the server's contrib modules. "
                "Or have an administrator run `CREATE EXTENSION pg_trgm` in it, and migrate again."
            ) from error
    schema = op.get_bind().dialect.identifier_preparer.quote(_extension_schema() or "")
    # Without fastupdate: what is new goes into the index at once, not onto a list that every search reads through.
    op.execute(
        "CREATE INDEX ix_patient_index_search_text ON patient_index "
        f"USING gin (search_text {schema}.gin_trgm_ops) WITH (fastupdate = off)"
    )


def _extension_schema() -> str | None:
    found = sa.text(
        "SELECT nspname FROM pg_extension JOIN pg_namespace ON pg_namespace.oid = extnamespace"
        " WHERE extname = 'pg_trgm'"
    )
    schema: str | None = op.get_bind().scalar(found)
    return schema


def _make_full_text_table() -> None:
    # The numbers are a table's own, because those SQLite gives to rows by itself may change at VACUUM.
    op.execute("CREATE TABLE patient_name_number (number INTEGER PRIMARY KEY, patient_id VARCHAR(64) NOT NULL UNIQUE)")
    try:
        op.execute(
            "CREATE VIRTUAL TABLE patient_name_search"
            " USING fts5 (names, content = '', columnsize = 0, tokenize = 'trigram case_sensitive 1')"
        )
    except sa.exc.OperationalError as error:
        raise CannotMigrate(
            "This Python's SQLite is older than 3.34 or was built without FTS5, which searching by name needs."
        ) from error
    op.execute("INSERT INTO patient_name_number (patient_id) SELECT patient_id FROM patient_index")
    op.execute(
        "INSERT INTO patient_name_search (rowid, names)"
        " SELECT number, search_text FROM patient_name_number JOIN patient_index USING (patient_id)"
    )
    for trigger in (AFTER_INSERT, AFTER_UPDATE, AFTER_DELETE):
        op.execute(trigger)


def _rewrite(change: Callable[[str], str]) -> None:
    """Rewrite every search text, some at a time."""
    connection = op.get_bind()
    index = sa.table("patient_index", sa.column("patient_id", sa.String), sa.column("search_text", sa.Text))
    page = sa.select(index.c.patient_id, index.c.search_text).order_by(index.c.patient_id).limit(ROWS)
    update = (
        sa.update(index).where(index.c.patient_id == sa.bindparam("of")).values(search_text=sa.bindparam("rewritten"))
    )
    last = ""
    while rows := connection.execute(page.where(index.c.patient_id > last)).all():
        connection.execute(update, [{"of": row.patient_id, "rewritten": change(row.search_text)} for row in rows])
        last = rows[-1].patient_id


def _with_short_parts(text: str) -> str:
    short = {word[at : at + length] for word in text.split() for at in range(len(word)) for length in (1, 2)}
    return f"{text}\n_{'_'.join(sorted(short))}_" if short else text


def _without_short_parts(text: str) -> str:
    return text.rpartition("\n")[0]
