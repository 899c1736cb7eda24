"""Tables of the embedded FHIR store."""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class FhirResource(Base):
    """The current version of a resource, a deleted one included, with the columns single-valued searches need.

    ``folded_names`` holds a patient's names folded for search, one a line; ``birth_date`` only a whole date, because
    a search for a day does not match a record that knows only the month (FHIR R4, search, ``date``).
    """

    __tablename__ = "fhir_resource"

    resource_type: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int]
    last_updated: Mapped[datetime.datetime]
    is_deleted: Mapped[bool]
    document: Mapped[str]
    folded_names: Mapped[str | None]
    birth_date: Mapped[str | None]
    subject: Mapped[str | None]

    __table_args__ = (
        sa.Index(None, "resource_type", "last_updated", "id"),
        sa.Index(
            None,
            "birth_date",
            "resource_type",
            "last_updated",
            "id",
            sqlite_where=sa.text("birth_date IS NOT NULL"),
            postgresql_where=sa.text("birth_date IS NOT NULL"),
        ),
        sa.Index(
            None,
            "subject",
            "resource_type",
            "last_updated",
            "id",
            sqlite_where=sa.text("subject IS NOT NULL"),
            postgresql_where=sa.text("subject IS NOT NULL"),
        ),
    )


class FhirResourceVersion(Base):
    """One version of a resource; rows are only ever added."""

    __tablename__ = "fhir_resource_version"

    resource_type: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True)
    last_updated: Mapped[datetime.datetime]
    is_deleted: Mapped[bool]
    document: Mapped[str]


class FhirSearchKey(Base):
    """A value a current resource is found by where it may hold several: ``identifier`` and ``part-of``.

    ``system`` is empty where the parameter or the identifier has none.
    """

    __tablename__ = "fhir_search_key"

    resource_type: Mapped[str] = mapped_column(primary_key=True)
    id: Mapped[str] = mapped_column(primary_key=True)
    parameter: Mapped[str] = mapped_column(primary_key=True)
    position: Mapped[int] = mapped_column(primary_key=True)
    system: Mapped[str]
    value: Mapped[str]

    __table_args__ = (
        sa.Index(None, "value", "system", "parameter", "resource_type"),
        {"sqlite_with_rowid": False},
    )
