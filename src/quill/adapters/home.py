"""Where the clinical records of a database live, so that a changed setting can never make them seem to be gone.

The first start writes down whether FHIR and openEHR records are embedded or elsewhere. From then on a start with other
settings is refused until ``quill copy-clinical`` has moved the records.
"""

import datetime
from collections.abc import Awaitable, Callable
from typing import Literal, cast

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from quill.adapters.fhir.models import FhirResource
from quill.adapters.openehr.models import Composition
from quill.errors import RecordsMoving
from quill.kit import clock
from quill.kit.database import Base, Database
from quill.settings import Settings

Store = Literal["fhir", "openehr"]
Place = Literal["embedded", "remote"]

SETTING_NAMES: dict[Store, str] = {"fhir": "QUILL_FHIR_URL", "openehr": "QUILL_OPENEHR_URL"}


_NO_SYNC = {"synchronize_session": False}


class AnotherMove(Exception):
    """Somebody else is moving the records just now."""


class ClinicalHome(Base):
    """Where the records of one store live: ``embedded`` in this database, or ``remote``.

    ``mover`` is who moves them elsewhere just now, believed to be at it until ``moving_until``.
    """

    __tablename__ = "clinical_home"

    store: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    place: Mapped[str] = mapped_column(sa.String(20))
    since: Mapped[datetime.datetime]
    mover: Mapped[str | None] = mapped_column(sa.String(36))
    moving_until: Mapped[datetime.datetime | None]


MOVE_LEASE = datetime.timedelta(seconds=30)
"""How long a mover is believed to be at it without saying so again."""
MOVE_GRACE = datetime.timedelta(seconds=10)
"""How much longer writers wait than the mover counts on: clocks of several hosts differ."""


class RecordsElsewhere(Exception):
    """The settings name another home than the records have; starting would show their absence as "no data"."""


def configured(settings: Settings) -> dict[Store, Place]:
    """Return where the settings say that the records live."""
    urls: dict[Store, str | None] = {"fhir": settings.fhir_url, "openehr": settings.openehr_url}
    return {store: "embedded" if url is None else "remote" for store, url in urls.items()}


async def check_home(database: Database, settings: Settings) -> None:
    """Return when the records live where the settings say, writing it down the first time.

    Raises:
        RecordsElsewhere: they do not; says what to do.
    """
    wanted = configured(settings)
    async with database.reading() as session:
        known = await _known(session)
        if known == wanted:
            return
        for store, place in wanted.items():
            home = known.get(store)
            if home is None and place == "remote" and await _is_anything_embedded(session, store):
                home = "embedded"
            if home is not None and home != place:
                raise RecordsElsewhere(_sentence(store, home))
    async with database.writing() as session:
        for store, place in wanted.items():
            await move_home(session, store, place)


async def move_home(session: AsyncSession, store: Store, place: Place) -> None:
    """Write down where the records of a store live from now on."""
    insert = postgresql.insert if session.get_bind().dialect.name == "postgresql" else sqlite.insert
    row = {"store": store, "place": place, "since": clock.now()}
    statement = insert(ClinicalHome).values(**row)
    await session.execute(
        statement.on_conflict_do_update(
            index_elements=[ClinicalHome.store],
            set_={"place": statement.excluded.place, "since": statement.excluded.since},
            where=ClinicalHome.place != statement.excluded.place,
        )
    )


def refusing_moved(settings: Settings) -> Callable[[AsyncSession], Awaitable[None]]:
    """Return what refuses clinical writes that would end up where the records do not live any more.

    Awaited inside a write's transaction, it holds a move up until that transaction is over, so that a write either
    comes before the last look at the old store or is refused.
    """
    here = configured(settings)
    # Of the core table, and made once: this is asked with every clinical write.
    table = cast("sa.Table", ClinicalHome.__table__)
    homes = sa.select(table.c.store, table.c.place, table.c.moving_until).with_for_update(read=True)

    async def refuse(session: AsyncSession) -> None:
        for row in await session.execute(homes):
            is_moving = row.moving_until is not None and clock.now() < row.moving_until + MOVE_GRACE
            if here.get(row.store) != row.place or is_moving:
                raise RecordsMoving

    return refuse


async def begin_move(session: AsyncSession, mover: str) -> None:
    """Stop new clinical writes until the lease runs out.

    Raises:
        AnotherMove: somebody else is at it, or was until a moment ago.
    """
    now = clock.now()
    is_free = ClinicalHome.moving_until.is_(None) | (ClinicalHome.moving_until < now - MOVE_GRACE)
    statement = sa.update(ClinicalHome).where(is_free | (ClinicalHome.mover == mover))
    statement = statement.values(mover=mover, moving_until=now + MOVE_LEASE)
    taken = (await session.execute(statement.returning(ClinicalHome.store), execution_options=_NO_SYNC)).all()
    if len(taken) < len(SETTING_NAMES):
        raise AnotherMove


async def renew_move(session: AsyncSession, mover: str) -> bool:
    """Go on holding clinical writes up; ``False`` when the lease has run out, so that there may have been some."""
    now = clock.now()
    mine = (ClinicalHome.mover == mover, ClinicalHome.moving_until > now)
    statement = sa.update(ClinicalHome).where(*mine).values(moving_until=now + MOVE_LEASE).returning(ClinicalHome.store)
    return bool((await session.execute(statement, execution_options=_NO_SYNC)).all())


async def end_move(session: AsyncSession, mover: str) -> None:
    """Let clinical writes through again."""
    mine = ClinicalHome.mover == mover
    statement = sa.update(ClinicalHome).where(mine).values(mover=None, moving_until=None)
    await session.execute(statement, execution_options=_NO_SYNC)


async def _known(session: AsyncSession) -> dict[str, str]:
    rows = await session.execute(sa.select(ClinicalHome.store, ClinicalHome.place))
    return {row.store: row.place for row in rows}


async def _is_anything_embedded(session: AsyncSession, store: Store) -> bool:
    table = FhirResource.id if store == "fhir" else Composition.object_id
    return await session.scalar(sa.select(table).limit(1)) is not None


def _sentence(store: Store, home: str) -> str:
    name = SETTING_NAMES[store]
    if home == "embedded":
        return (
            f"{name} is set, but this database holds the {store} records itself. Move them first with "
            "`quill copy-clinical`, or unset it."
        )
    return (
        f"{name} is not set, but the {store} records of this database live on another server. Set it, or move them "
        "back with `quill copy-clinical`."
    )
