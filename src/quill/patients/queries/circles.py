"""How many patients a caller may see, among how many: what the way to a list is chosen by."""

import functools
from dataclasses import dataclass

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.identity import service as identity
from quill.identity.terms import ActorShape, actor_values
from quill.patients.models import PatientIndex


@dataclass(frozen=True, slots=True)
class Circle:
    """How large a caller's circle is.

    Attributes:
        size: patients of the caller's organisations, one who is in several counted as often; counted only so far.
        listed: patients there are, about, as far as the database knows without counting; ``None`` when it does not.
    """

    size: int
    listed: int | None


async def circle(session: AsyncSession, actor: Actor, most: int) -> Circle:
    """Return how large the caller's circle is, counted up to ``most``; one statement, which reads no more than that."""
    statement = _circle(ActorShape.of(actor), is_sqlite=session.get_bind().dialect.name == "sqlite")
    row = (await session.execute(statement, actor_values(actor) | {"most": most})).one()
    return Circle(row.size, row.listed)


@functools.cache
def _circle(actor: ActorShape, *, is_sqlite: bool) -> sa.Select[int, int]:
    size = identity.number_cared_for(actor, sa.bindparam("most", type_=sa.Integer()))
    listed = _listed_on_sqlite() if is_sqlite else _listed_on_postgresql()
    return sa.select(size.label("size"), listed.label("listed"))


def _listed_on_sqlite() -> sa.ScalarSelect[int]:
    # Rows get their numbers one after another, and are not deleted.
    number: sa.ColumnClause[int] = sa.literal_column("rowid", sa.Integer())
    return sa.select(sa.func.max(number)).select_from(PatientIndex.__table__).scalar_subquery()


def _listed_on_postgresql() -> sa.ScalarSelect[int]:
    # What its planner goes by, as of the last ANALYZE or VACUUM; -1 before the first.
    catalogue = sa.table("pg_class", sa.column("oid"), sa.column("reltuples"))
    name: sa.ColumnClause[str] = sa.literal_column(f"'{PatientIndex.__tablename__}'")
    known = sa.cast(catalogue.c.reltuples, sa.Integer())
    return sa.select(known).where(catalogue.c.oid == sa.func.to_regclass(name), known >= 0).scalar_subquery()
