"""What the tests about patients share: FHIR stores that fail, and looks into the database."""

import dataclasses
from collections.abc import Callable
from typing import Any

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.errors import FhirUnavailable
from quill.kit.database import Database
from quill.kit.documents import Document
from quill.ports.fhir import FhirStore, ResourceType, StoredResource
from tests.clinic import Clinic

# Made up in the range kept for tests, 999 000 0000 to 999 999 9999.
NHS_NUMBER = "9990527113"
OTHER_NHS_NUMBER = "9991054227"
NHS_SYSTEM = "https://fhir.nhs.uk/Id/nhs-number"


class AwayFhir:
    """A FHIR server that cannot be reached."""

    joins_transaction = False

    def __init__(self, session: AsyncSession) -> None:
        del session

    async def _refuse(self, *_: Any, **__: Any) -> Any:
        raise FhirUnavailable

    find = write = create_unless = search = history = delete = ping = _refuse


class RemoteFhir(AwayFhir):
    """A FHIR server of its own: what it is told is kept at once, whatever becomes of our transaction."""

    loses_answers = False

    def __init__(self, database: Database) -> None:
        self.database = database

    async def find(self, resource_type: ResourceType, resource_id: str) -> StoredResource | None:
        async with self.database.reading() as session:
            return await EmbeddedFhirStore(session).find(resource_type, resource_id)

    async def write(self, document: Document, *, if_match: int | None = None) -> StoredResource:
        async with self.database.writing() as session:
            stored = await EmbeddedFhirStore(session).write(document, if_match=if_match)
        if self.loses_answers:
            raise FhirUnavailable
        return stored

    async def ping(self) -> None:
        return None


def use_fhir(clinic: Clinic, fhir_for: Callable[[AsyncSession], FhirStore]) -> None:
    """Put another FHIR store behind the port of the running application."""
    state = clinic.client.app.state  # type: ignore[attr-defined]
    state.services = dataclasses.replace(state.services, fhir_for=fhir_for)


def rows(clinic: Clinic, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return what a SELECT finds in the application's database."""

    async def work() -> list[tuple[Any, ...]]:
        async with clinic.services.database.reading() as session:
            return [tuple(row) for row in await session.execute(sa.text(statement), parameters)]

    found: list[tuple[Any, ...]] = clinic.run(work)
    return found


def acts(clinic: Clinic, patient_id: str | None = None) -> list[tuple[str, str]]:
    """Return act and outcome of the audit rows, about one patient if given."""
    found = rows(clinic, "SELECT act, outcome, patient_id FROM audit_event ORDER BY id")
    return [(act, outcome) for act, outcome, about in found if patient_id in {None, about}]


def detail(answer: Any) -> tuple[int, str]:
    """Return status and sentence of a problem document, after looking at its shape."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    return answer.status_code, body["detail"]
