"""Records for the FHIR contract, each with ids of its own, and the acts on them, each in a unit of its own."""

from typing import Any

from quill.kit.documents import Document
from quill.kit.ids import new_uuid
from quill.ports.fhir import ResourceType, SearchQuery, StoredResource
from tests.contracts.conftest import OpenFhir

SYSTEM = "https://quill.example/test-number"


def patient(**elements: object) -> Document:
    return {"resourceType": "Patient", "id": f"p-{new_uuid()}", **elements}


def communication(**elements: object) -> Document:
    return {"resourceType": "Communication", "id": f"c-{new_uuid()}", "status": "completed", **elements}


def identified(number: str, system: str = SYSTEM) -> dict[str, Any]:
    return {"identifier": [{"system": system, "value": number}]}


async def write(open_fhir: OpenFhir, document: Document, if_match: int | None = None) -> StoredResource:
    async with open_fhir() as store:
        return await store.write(document, if_match=if_match)


async def find(open_fhir: OpenFhir, document: Document) -> StoredResource | None:
    async with open_fhir() as store:
        return await store.find(document["resourceType"], document["id"])


async def delete(open_fhir: OpenFhir, document: Document) -> None:
    async with open_fhir() as store:
        await store.delete(document["resourceType"], document["id"])


async def history(open_fhir: OpenFhir, document: Document) -> list[StoredResource]:
    async with open_fhir() as store:
        return await store.history(document["resourceType"], document["id"])


async def found_ids(open_fhir: OpenFhir, query: SearchQuery, resource_type: ResourceType = "Patient") -> list[str]:
    async with open_fhir() as store:
        return [found.id for found in (await store.search(resource_type, query)).resources]
