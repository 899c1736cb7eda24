"""Where the clinical records of a database live, so that a changed setting can never make them seem to be gone.

The first start writes down whether FHIR and openEHR records are embedded or elsewhere. From then on a start with other
settings is refused until ``quill copy-clinical`` has moved the records.
"""

import datetime
from typing import Literal

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.ext.asyncio import AsyncSession
from sqlalchemy.orm import Mapped, mapped_column

from quill.adapters.fhir.models import FhirResource
from quill.adapters.openehr.models import Composition
from quill.kit import clock
from quill.kit.database import Base, Database
from quill.settings import Settings

Store = Literal["fhir", "openehr"]
Place = Literal["embedded", "remote"]

SETTING_NAMES: dict[Store, str] = {"fhir": "QUILL_FHIR_URL", "openehr": "QUILL_OPENEHR_URL"}


class ClinicalHome(Base):
    """Where the records of one store live: ``embedded`` in this database, or ``remote``."""

    __tablename__ = "clinical_home"

    store: Mapped[str] = mapped_column(sa.String(20), primary_key=True)
    place: Mapped[str] = mapped_column(sa.String(20))
    since: Mapped[datetime.datetime]


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
