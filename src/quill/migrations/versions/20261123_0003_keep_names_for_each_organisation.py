"""Keep names for each organisation, so that its patients are listed in order and counted without looking at others.

Triggers keep the rows, on either database, so that nobody who adds members or changes patients can forget them.

Revision: 0003
"""

import sqlalchemy as sa
from alembic import op

revision = "0003"
down_revision = "0002"
branch_labels = None
depends_on = None

TABLE = "organisation_patient_name"
SECONDARY = "ix_organisation_patient_member_secondary"

FILL = """
INSERT INTO organisation_patient_name (patient_id, organisation_id, is_active, sort_name)
SELECT m.patient_id, m.organisation_id, i.is_active, i.sort_name
FROM organisation_patient_member m JOIN patient_index i ON i.patient_id = m.patient_id
ORDER BY m.organisation_id, i.is_active, i.sort_name, m.patient_id
"""

SQLITE = {
    "organisation_patient_name_after_member": """
CREATE TRIGGER organisation_patient_name_after_member AFTER INSERT ON organisation_patient_member BEGIN
  INSERT INTO organisation_patient_name (patient_id, organisation_id, is_active, sort_name)
    SELECT patient_id, new.organisation_id, is_active, sort_name FROM patient_index WHERE patient_id = new.patient_id;
END
""",
    # The foreign key does this too, but only for programs that ask SQLite to heed those.
    "organisation_patient_name_after_leaving": """
CREATE TRIGGER organisation_patient_name_after_leaving AFTER DELETE ON organisation_patient_member BEGIN
  DELETE FROM organisation_patient_name WHERE patient_id = old.patient_id AND organisation_id = old.organisation_id;
END
""",
    "organisation_patient_name_after_insert": """
CREATE TRIGGER organisation_patient_name_after_insert AFTER INSERT ON patient_index BEGIN
  INSERT INTO organisation_patient_name (patient_id, organisation_id, is_active, sort_name)
    SELECT patient_id, organisation_id, new.is_active, new.sort_name FROM organisation_patient_member
    WHERE patient_id = new.patient_id;
END
""",
    "organisation_patient_name_after_update": """
CREATE TRIGGER organisation_patient_name_after_update AFTER UPDATE OF is_active, sort_name ON patient_index
  WHEN old.is_active <> new.is_active OR old.sort_name <> new.sort_name
BEGIN
  UPDATE organisation_patient_name SET is_active = new.is_active, sort_name = new.sort_name
    WHERE patient_id = new.patient_id;
END
""",
    "organisation_patient_name_after_delete": """
CREATE TRIGGER organisation_patient_name_after_delete AFTER DELETE ON patient_index BEGIN
  DELETE FROM organisation_patient_name WHERE patient_id = old.patient_id;
END
""",
}

# Each statement of these functions sees what was committed before it began (PostgreSQL, 13.2.1 and 38.7). Whoever is
# added to an organisation holds the patient's row, so that no change of it goes unseen; a change holds it by itself,
# and finds whoever was added before. A patient who is not there cannot be held: those who add the two take turns, by an
# advisory lock of a number that nobody else uses.
POSTGRESQL = {
    "organisation_patient_name_after_member": (
        "AFTER INSERT ON organisation_patient_member FOR EACH ROW",
        """
  INSERT INTO organisation_patient_name (patient_id, organisation_id, is_active, sort_name)
    SELECT patient_id, new.organisation_id, is_active, sort_name FROM patient_index
    WHERE patient_id = new.patient_id FOR SHARE;
  IF NOT FOUND THEN
    PERFORM pg_advisory_xact_lock(20030);
    INSERT INTO organisation_patient_name (patient_id, organisation_id, is_active, sort_name)
      SELECT patient_id, new.organisation_id, is_active, sort_name FROM patient_index
      WHERE patient_id = new.patient_id FOR SHARE;
  END IF;
""",
    ),
    "organisation_patient_name_after_insert": (
        "AFTER INSERT ON patient_index FOR EACH ROW",
        """
  PERFORM pg_advisory_xact_lock_shared(20030);
  INSERT INTO organisation_patient_name (patient_id, organisation_id, is_active, sort_name)
    SELECT patient_id, organisation_id, new.is_active, new.sort_name FROM organisation_patient_member
    WHERE patient_id = new.patient_id FOR KEY SHARE;
""",
    ),
    "organisation_patient_name_after_update": (
        "AFTER UPDATE OF is_active, sort_name ON patient_index FOR EACH ROW"
        " WHEN (old.is_active <> new.is_active OR old.sort_name <> new.sort_name)",
        """
  UPDATE organisation_patient_name SET is_active = new.is_active, sort_name = new.sort_name
    WHERE patient_id = new.patient_id;
""",
    ),
    "organisation_patient_name_after_delete": (
        "AFTER DELETE ON patient_index FOR EACH ROW",
        """
  DELETE FROM organisation_patient_name WHERE patient_id = old.patient_id;
""",
    ),
}


def upgrade() -> None:
    is_postgresql = op.get_bind().dialect.name == "postgresql"
    if is_postgresql:
        # Nobody writes to these two from here on until the rows are there; in the order in which others lock them.
        op.execute("LOCK TABLE patient_index, organisation_patient_member IN SHARE ROW EXCLUSIVE MODE")
    op.create_table(
        TABLE,
        sa.Column("patient_id", sa.String(length=64), nullable=False),
        sa.Column("organisation_id", sa.Integer(), autoincrement=False, nullable=False),
        sa.Column("is_active", sa.Boolean(), nullable=False),
        sa.Column("sort_name", sa.Text(), nullable=False),
        sa.ForeignKeyConstraint(
            ["organisation_id", "patient_id"],
            ["organisation_patient_member.organisation_id", "organisation_patient_member.patient_id"],
            name="fk_organisation_patient_name_membership",
            ondelete="CASCADE",
        ),
        sa.PrimaryKeyConstraint("patient_id", "organisation_id", name="pk_organisation_patient_name"),
        sqlite_with_rowid=False,
    )
    op.execute(FILL)
    op.create_index(
        "ix_organisation_patient_name_in_order", TABLE, ["organisation_id", "is_active", "sort_name", "patient_id"]
    )
    op.create_index(
        SECONDARY,
        "organisation_patient_member",
        ["organisation_id", "patient_id"],
        sqlite_where=sa.text("NOT is_primary"),
        postgresql_where=sa.text("NOT is_primary"),
    )
    if is_postgresql:
        op.execute(f"ANALYZE {TABLE}")
        for name, (happening, body) in POSTGRESQL.items():
            op.execute(
                f"CREATE FUNCTION {name}() RETURNS trigger LANGUAGE plpgsql AS $$BEGIN{body}  RETURN NULL;\nEND$$"
            )
            op.execute(f"CREATE TRIGGER {name} {happening} EXECUTE FUNCTION {name}()")
    else:
        for trigger in SQLITE.values():
            op.execute(trigger)


def downgrade() -> None:
    if op.get_bind().dialect.name == "postgresql":
        op.execute("LOCK TABLE patient_index, organisation_patient_member IN SHARE ROW EXCLUSIVE MODE")
        for name in POSTGRESQL:
            # The trigger goes with it.
            op.execute(f"DROP FUNCTION {name}() CASCADE")
    else:
        for name in SQLITE:
            op.execute(f"DROP TRIGGER {name}")
    op.drop_index(SECONDARY, "organisation_patient_member")
    op.drop_table(TABLE)
