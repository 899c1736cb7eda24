"""The clinical stores elsewhere that the settings name, and the connections to them."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Generic, TypeVar

from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.fhir.remote import RemoteFhirStore
from quill.adapters.openehr.remote import RemoteOpenEhrStore
from quill.adapters.openehr.wire import rest_base
from quill.adapters.upstream import Troubles, Upstream
from quill.errors import FhirRefused, FhirUnavailable, OpenEhrRefused, OpenEhrUnavailable
from quill.kit.database import Database
from quill.ports.fhir import FhirStore
from quill.ports.openehr import OpenEhrStore
from quill.settings import Settings

StoreT = TypeVar("StoreT")

FHIR_TROUBLES = Troubles(FhirUnavailable, FhirRefused)
OPENEHR_TROUBLES = Troubles(OpenEhrUnavailable, OpenEhrRefused)


@dataclass(frozen=True, slots=True)
class Remote(Generic[StoreT]):
    """A store elsewhere.

    Attributes:
        upstream: the service it speaks to, one for this process.
        store_for: returns the store for a unit; it gives a reading unit's connection back before each call.
    """

    upstream: Upstream
    store_for: Callable[[AsyncSession], StoreT]

    async def close(self) -> None:
        """Close the connections to the service."""
        await self.upstream.close()


def remote_fhir(settings: Settings, database: Database) -> Remote[FhirStore] | None:
    """Return the FHIR server the settings name, or ``None`` when the embedded store serves."""
    if settings.fhir_url is None:
        return None
    secret = settings.fhir_authorization
    upstream = Upstream(
        "fhir",
        settings.fhir_url,
        FHIR_TROUBLES,
        headers={"Authorization": secret.get_secret_value()} if secret is not None else {},
        deadline_seconds=settings.clinical_timeout_seconds,
    )
    return Remote(upstream, lambda session: RemoteFhirStore(upstream, let_go=_letting_go(database, session)))


def remote_openehr(settings: Settings, database: Database) -> Remote[OpenEhrStore] | None:
    """Return the openEHR server the settings name, or ``None`` when the embedded store serves."""
    if settings.openehr_url is None:
        return None
    user, password = settings.openehr_user, settings.openehr_password
    upstream = Upstream(
        "openehr",
        rest_base(settings.openehr_url),
        OPENEHR_TROUBLES,
        auth=(user, password.get_secret_value()) if user is not None and password is not None else None,
        deadline_seconds=settings.clinical_timeout_seconds,
    )
    former = frozenset(settings.openehr_former_systems)
    return Remote(
        upstream,
        lambda session: RemoteOpenEhrStore(upstream, let_go=_letting_go(database, session), former_systems=former),
    )


def _letting_go(database: Database, session: AsyncSession) -> Callable[[], Awaitable[None]]:
    async def let_go() -> None:
        await database.let_go(session)

    return let_go
