"""Every FHIR resource Quill makes or changes names this Quill as its source; what was imported keeps its own."""

import dataclasses
import io
import json
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.app import KINDS
from quill.errors import FhirUnavailable
from quill.kit.documents import Document, loads
from quill.kit.ids import OrganisationId
from quill.patients import importing
from quill.patients.importing import Import
from quill.ports.fhir import ResourceType, StoredResource
from quill.settings import Settings
from tests.clinic import Clinic, Person
from tests.remote_like import Line, RemoteLikeFhirStore, sweep_after_leases_ran_out

QUILL = "https://quill.example.org"
THEIRS = "https://elsewhere.example.org/fhir"


@pytest.fixture
def settings(settings: Settings) -> Settings:
    return settings.model_copy(update={"public_url": f"{QUILL}/"})


@pytest.fixture
def here(clinic: Clinic) -> int:
    return clinic.organisation()


@pytest.fixture
def gp(clinic: Clinic, here: int) -> Person:
    return clinic.clinician(here)


def resources(clinic: Clinic, resource_type: str) -> list[Document]:
    async def work() -> list[str]:
        async with clinic.services.database.reading() as session:
            statement = sa.text("SELECT document FROM fhir_resource WHERE resource_type = :type")
            return list(await session.scalars(statement, {"type": resource_type}))

    return [loads(text) for text in clinic.run(work)]


def sources(clinic: Clinic, resource_type: str) -> list[str | None]:
    return [document["meta"].get("source") for document in resources(clinic, resource_type)]


def add_patient(gp: Person, **fields: Any) -> str:
    answer = gp.post("/api/patients", {"given_name": "Ann", "family_name": "Lee"} | fields)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["id"])


def test_patients_prescriptions_conversations_and_messages_carry_it(clinic: Clinic, gp: Person, here: int) -> None:
    """gap: no Provenance, AuditEvent or meta.source; authorship rests on an extension."""
    patient = add_patient(gp)
    order = {"patient_id": patient, "medication": "Morphine", "dose": "5 mg", "duration_days": 7}
    assert gp.post("/api/prescriptions/controlled", order).status_code == 201
    talk = gp.post("/api/conversations", {"patient_id": patient, "initial_message": "Hello"}).json()
    assert gp.post(f"/api/conversations/{talk['id']}/messages", {"body": "More"}).status_code == 200
    other = clinic.clinician(here)
    assert gp.post(f"/api/conversations/{talk['id']}/participants", {"user_id": other.id}).status_code == 200
    assert sources(clinic, "Patient") == [QUILL]
    assert sources(clinic, "MedicationRequest") == [QUILL]
    assert sources(clinic, "Communication") == [QUILL] * 3
    assert gp.get(f"/api/patients/{patient}").json()["meta"]["source"] == QUILL


def take_in(clinic: Clinic, here: int, document: Document) -> Any:
    async def work() -> Any:
        lines = importing.read_lines(io.BytesIO(json.dumps(document).encode()))
        return await importing.import_patients(clinic.services, lines, Import(OrganisationId(here)))

    return clinic.run(work)


def test_imported_patient_keeps_its_source_until_somebody_edits_it(clinic: Clinic, gp: Person, here: int) -> None:
    theirs = {"resourceType": "Patient", "id": "p1", "meta": {"source": f"{THEIRS}#42"}, "name": [{"family": "Lee"}]}
    take_in(clinic, here, theirs)
    assert sources(clinic, "Patient") == [f"{THEIRS}#42"]
    unchanged = gp.patch("/api/patients/p1", {"family_name": "Lee"})
    assert (unchanged.status_code, unchanged.headers["etag"]) == (200, 'W/"1"')
    assert sources(clinic, "Patient") == [f"{THEIRS}#42"]
    assert gp.patch("/api/patients/p1", {"family_name": "Leigh"}).status_code == 200
    assert sources(clinic, "Patient") == [QUILL]


class SourceMarkingStore(RemoteLikeFhirStore):
    """A store that adds a fragment to each source it gives out, as HAPI does with the id of the request."""

    async def find(self, resource_type: ResourceType, resource_id: str) -> StoredResource | None:
        found = await super().find(resource_type, resource_id)
        return _marked(found) if found is not None else None

    async def write(self, document: Document, *, if_match: int | None = None) -> StoredResource:
        return _marked(await super().write(document, if_match=if_match))


def _marked(stored: StoredResource) -> StoredResource:
    meta = stored.document["meta"]
    return dataclasses.replace(stored, document={**stored.document, "meta": {**meta, "source": f"{QUILL}#r7q"}})


@pytest.fixture
def line(clinic: Clinic) -> Line:
    line = Line()
    state = clinic.client.app.state  # type: ignore[attr-defined]
    services = state.services

    def fhir_for(session: AsyncSession) -> SourceMarkingStore:
        return SourceMarkingStore(services.database, line, EmbeddedFhirStore, session)

    state.services = dataclasses.replace(services, fhir_for=fhir_for)
    return line


def test_fragment_a_store_adds_makes_no_difference(clinic: Clinic, gp: Person, here: int, line: Line) -> None:
    line.lose_next("write", FhirUnavailable)
    body = {"given_name": "Ann", "family_name": "Lee", "patient_id": "p1"}
    assert gp.post("/api/patients", body).status_code == 503
    assert clinic.run(sweep_after_leases_ran_out, clinic.services, KINDS) == 1
    read = gp.get("/api/patients/p1")
    assert (read.status_code, read.headers["etag"]) == (200, 'W/"1"')
    same = gp.patch("/api/patients/p1", {"family_name": "Lee"})
    assert (same.status_code, same.headers["etag"]) == (200, 'W/"1"')
    edited = gp.patch("/api/patients/p1", {"family_name": "Leigh"})
    assert (edited.status_code, edited.headers["etag"]) == (200, 'W/"2"')
    assert sources(clinic, "Patient") == [QUILL]
    [known] = resources(clinic, "Patient")
    known["meta"] = {"source": QUILL}
    line.serves_a_job = True
    report = take_in(clinic, here, known)
    assert (report.unchanged, report.updated) == (1, 0)
