"""What a FHIR server and an openEHR server elsewhere hold, asked over their own protocols and not through Quill."""

from collections.abc import AsyncIterator, Mapping
from typing import Any

import httpx2

from quill.kit.documents import loads
from tests.live.crashes.ledger import Kind, Ledger
from tests.live.crashes.stores import Held, Resource

PAGE = "500"
SINCE = "_since=1900-01-01T00:00:00Z"
"""Without it HAPI FHIR relies on a count of versions that is up to a minute old."""
_UIDS = "SELECT c/uid/value AS uid FROM EHR e CONTAINS COMPOSITION c WHERE e/ehr_id/value = $ehr_id"


def family_of(patient: Resource) -> str:
    """Return the family name; empty for somebody else's patient who has none."""
    names = patient.get("name") or [{}]
    return str(names[0].get("family", ""))


class RemoteStores:
    """A HAPI FHIR and an EHRbase, which may hold records of other runs too.

    Args:
        environment: ``FHIR_URL``, ``OPENEHR_URL`` and, where it asks for them, ``OPENEHR_USER`` and
            ``OPENEHR_PASSWORD``.
    """

    def __init__(self, environment: Mapping[str, str]) -> None:
        self._fhir_url = environment["FHIR_URL"].rstrip("/")
        root = environment["OPENEHR_URL"].rstrip("/")
        self._openehr_url = root if root.endswith("/rest/openehr/v1") else f"{root}/rest/openehr/v1"
        user = environment.get("OPENEHR_USER")
        self._auth = (user, environment["OPENEHR_PASSWORD"]) if user else None
        # A version of a composition never changes.
        self._compositions: dict[str, Resource] = {}

    async def read(self, ledger: Ledger) -> Held:
        """Return everything they hold about the patients of this run."""
        held = Held()
        async with httpx2.AsyncClient(timeout=60, headers={"Cache-Control": "no-cache"}) as client:
            patients = [found async for found in self._search(client, "Patient")]
            ours = sorted(found["id"] for found in patients if family_of(found) in ledger)
            subjects = {f"Patient/{patient_id}" for patient_id in ours}
            messages = [found async for found in self._search(client, "Communication")]
            held.take_communications(
                [found for found in messages if found.get("subject", {}).get("reference") in subjects]
            )
            versions: list[Resource] = []
            for patient_id in ours:
                history = self._pages(client, f"{self._fhir_url}/Patient/{patient_id}/_history?_count={PAGE}&{SINCE}")
                found = [version async for version in history]
                versions += sorted(found, key=lambda version: int(version["meta"]["versionId"]))
            held.take_patients(versions)
        with_letters = {operation.path.split("/")[3] for operation in ledger if operation.kind is Kind.LETTER}
        async with httpx2.AsyncClient(timeout=60, auth=self._auth) as client:
            for patient_id in sorted(with_letters):
                async for uid, document in self._letters(client, patient_id):
                    held.take_letter(uid, document)
        return held

    def _search(self, client: httpx2.AsyncClient, resource_type: str) -> AsyncIterator[Resource]:
        return self._pages(client, f"{self._fhir_url}/{resource_type}?_count={PAGE}&_sort=_lastUpdated,_id")

    async def _pages(self, client: httpx2.AsyncClient, address: str) -> AsyncIterator[Resource]:
        """Yield the resources of a bundle and of those that follow it."""
        following: str | None = address
        while following is not None:
            bundle = await _document(client, "GET", following)
            for entry in bundle.get("entry", []):
                yield entry["resource"]
            following = next((link["url"] for link in bundle.get("link", []) if link["relation"] == "next"), None)

    async def _letters(self, client: httpx2.AsyncClient, patient_id: str) -> AsyncIterator[tuple[str, Resource]]:
        """Yield every version of every composition of a patient."""
        query = {"subject_id": patient_id, "subject_namespace": "fhir"}
        answer = await client.get(f"{self._openehr_url}/ehr", params=query)
        if answer.status_code == 404:
            return
        answer.raise_for_status()
        ehr_id = answer.json()["ehr_id"]["value"]
        asked = {"q": _UIDS, "query_parameters": {"ehr_id": ehr_id}, "fetch": 10_000}
        rows = (await _document(client, "POST", f"{self._openehr_url}/query/aql", json=asked))["rows"]
        for (newest,) in rows:
            object_id, system_id, count = newest.split("::")
            for version in range(1, int(count) + 1):
                uid = f"{object_id}::{system_id}::{version}"
                if uid not in self._compositions:
                    address = f"{self._openehr_url}/ehr/{ehr_id}/composition/{uid}"
                    self._compositions[uid] = await _document(client, "GET", address)
                yield uid, self._compositions[uid]


async def _document(client: httpx2.AsyncClient, method: str, address: str, **more: Any) -> Resource:
    answer = await client.request(method, address, headers={"Accept": "application/json"}, **more)
    answer.raise_for_status()
    return loads(answer.content)
