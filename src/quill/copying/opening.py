"""Opening both sides of a copy as the settings and the command name them."""

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

from quill.adapters.remotes import remote_fhir, remote_openehr
from quill.copying.sides import (
    EmbeddedFhirSide,
    EmbeddedOpenEhrSide,
    FhirSide,
    OpenEhrSide,
    RemoteFhirSide,
    RemoteOpenEhrSide,
    Sides,
)
from quill.kit.database import Database
from quill.settings import Settings


@asynccontextmanager
async def open_sides(database: Database, elsewhere: Settings, *, to_embedded: bool) -> AsyncIterator[Sides]:
    """Open the stores in a database and those elsewhere, which must answer.

    Args:
        database: holds the embedded stores.
        elsewhere: names the servers elsewhere; what it does not name is not copied.
        to_embedded: whether the copy goes into the database and not out of it.

    Raises:
        Unavailable: 503 or 502, a server does not answer as it should.
    """
    fhir, openehr = remote_fhir(elsewhere, database), remote_openehr(elsewhere, database)
    fhir_pair: tuple[FhirSide, FhirSide] | None = None
    openehr_pair: tuple[OpenEhrSide, OpenEhrSide] | None = None
    if fhir is not None:
        fhir_pair = (EmbeddedFhirSide(database), RemoteFhirSide(fhir.upstream))
    if openehr is not None:
        openehr_pair = (EmbeddedOpenEhrSide(database), RemoteOpenEhrSide(openehr.upstream))
    try:
        if fhir_pair is not None:
            async with fhir_pair[1].reading() as store:
                await store.ping()
            fhir_pair = fhir_pair[::-1] if to_embedded else fhir_pair
        if openehr_pair is not None:
            async with openehr_pair[1].reading() as letters:
                await letters.ping()
            openehr_pair = openehr_pair[::-1] if to_embedded else openehr_pair
        yield Sides(fhir_pair, openehr_pair)
    finally:
        for remote in (fhir, openehr):
            if remote is not None:
                await remote.close()
