"""Tables of the embedded openEHR store.

Source: openEHR Reference Model 1.0.4, ``EHR``, ``VERSIONED_COMPOSITION``, ``ORIGINAL_VERSION``.
"""

import datetime

import sqlalchemy as sa
from sqlalchemy.orm import Mapped, mapped_column

from quill.kit.database import Base


class Ehr(Base):
    """One electronic health record; a subject has at most one."""

    __tablename__ = "openehr_ehr"

    ehr_id: Mapped[str] = mapped_column(primary_key=True)
    subject_id: Mapped[str] = mapped_column(unique=True)
    created_at: Mapped[datetime.datetime]


class OperationalTemplate(Base):
    """An ADL 1.4 operational template, as it was given."""

    __tablename__ = "openehr_template"

    template_id: Mapped[str] = mapped_column(primary_key=True)
    content: Mapped[str]
    created_at: Mapped[datetime.datetime]


class Composition(Base):
    """One version of a composition; rows are only added, and ``is_latest`` moves to the newest one."""

    __tablename__ = "openehr_composition"
    __table_args__ = (
        # Serves the list of letters in one walk: equality on the first three, order by the last two.
        sa.Index(None, "ehr_id", "template_id", "is_latest", "started_at", "object_id"),
    )

    object_id: Mapped[str] = mapped_column(primary_key=True)
    version: Mapped[int] = mapped_column(primary_key=True, autoincrement=False)
    system_id: Mapped[str]
    ehr_id: Mapped[str] = mapped_column(sa.ForeignKey("openehr_ehr.ehr_id"))
    is_latest: Mapped[bool]
    template_id: Mapped[str] = mapped_column(sa.ForeignKey("openehr_template.template_id"))
    title: Mapped[str]
    started_at: Mapped[datetime.datetime]
    composer_name: Mapped[str]
    committed_at: Mapped[datetime.datetime]
    content_hash: Mapped[str]
    document: Mapped[str]
