"""How the database's tables came to be, step by step; the same steps on SQLite and PostgreSQL.

Each step says how to go up and down. No step imports a model: a step must do the same in ten years.
"""


class CannotMigrate(RuntimeError):
    """A step cannot be taken on this database; the message says what is missing and who can mend it."""
