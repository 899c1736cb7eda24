"""What the application's PostgreSQL role may do with the audit trail: add to it and read it, nothing else."""

from quill.audit.models import AuditEvent, AuditSeal, AuditSealEntry

TABLES = tuple(model.__tablename__ for model in (AuditEvent, AuditSeal, AuditSealEntry))
"""The tables of the trail."""

_SEQUENCE = f"{AuditEvent.__tablename__}_id_seq"
"""The name PostgreSQL gives the sequence of a serial column: table, column, ``seq``."""


def grant_statements(role: str) -> list[str]:
    """Return the statements an operator runs, as the tables' owner, to restrict a role to adding and reading.

    They bind only a role that does not own the tables and is no superuser, so migrations need a role of their own.

    Args:
        role: name of the role the program connects as.

    Raises:
        ValueError: the name is blank or holds a NUL.

    Source: PostgreSQL documentation, GRANT and REVOKE.
    """
    if not role.strip() or "\x00" in role:
        raise ValueError("A role needs a name.")
    quoted = '"{}"'.format(role.replace('"', '""'))
    tables = ", ".join(TABLES)
    return [
        f"REVOKE ALL ON {tables} FROM PUBLIC, {quoted}",
        f"GRANT SELECT, INSERT ON {tables} TO {quoted}",
        f"GRANT USAGE ON SEQUENCE {_SEQUENCE} TO {quoted}",
    ]
