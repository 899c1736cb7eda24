"""A practice whose records are moved: what is in it, what its API answers, and how it is moved."""

import asyncio
import functools
import re
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from fastapi import FastAPI
from starlette.testclient import TestClient

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.app import KINDS, build_services
from quill.copying import service as copying
from quill.copying.opening import open_sides
from quill.copying.reports import Report
from quill.copying.service import Move
from quill.kit.database import Database
from quill.kit.documents import dumps, loads
from quill.patients.reconciling import reconcile
from quill.settings import Settings
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.published_api import Browser
from tests.upstreams.faults import FaultyLine
from tests.upstreams.fhir_server import FhirServer
from tests.upstreams.openehr_server import OpenEhrServer

MORPHINE = {"medication": "Morphine sulfate", "dose": "5 mg", "duration_days": 7}


@dataclass
class Elsewhere:
    """The servers records may be moved to, the lines to them, and settings that name them."""

    fhir: FhirServer
    openehr: OpenEhrServer
    fhir_line: FaultyLine
    openehr_line: FaultyLine
    settings: Settings


@dataclass
class Practice:
    """An installation; ``letter_uids`` are the version uids its clients have noted."""

    application: FastAPI
    settings: Settings
    doctor: Person
    patients: list[str]
    conversation: int
    letters: list[str]
    letter_uids: list[str] = field(default_factory=list)

    @contextmanager
    def running(self, settings: Settings) -> Iterator[TestClient]:
        """Run the application with these settings; the doctor stays signed in."""
        self.application.state.settings = settings
        with Browser(self.application, raise_server_exceptions=False) as client:
            self.doctor.client.portal = client.portal
            yield client

    def pages(self) -> list[str]:
        """Return what the doctor looks at."""
        found = ["/api/patients", f"/api/conversations/{self.conversation}", "/api/conversations"]
        for patient_id in self.patients:
            of_patient = f"/api/patients/{patient_id}"
            found += [of_patient, f"{of_patient}/demographics", f"{of_patient}/prescriptions", f"{of_patient}/letters"]
        letters = f"/api/patients/{self.patients[0]}/letters"
        found += [f"{letters}/{letter}/versions" for letter in self.letters]
        return found + [f"{letters}/{uid}" for uid in [*self.letters, *self.letter_uids]]

    def seen(self) -> dict[str, tuple[int, str, str]]:
        """Return status, ETag and body of each page, without what belongs to the store.

        That is its times, its name in version uids, and how it writes a composition down.
        """
        answers = {page: self.doctor.get(page) for page in self.pages()}
        return {
            page: (answer.status_code, _neutral(answer.headers.get("etag") or ""), _neutral(answer.text))
            for page, answer in answers.items()
        }


def unlike(before: dict[str, tuple[int, str, str]], after: dict[str, tuple[int, str, str]]) -> list[str]:
    """Return the pages that look different, with the place where they begin to."""
    return [
        f"{page}: {before[page][:2]} {before[page][2][_place(before[page][2], after[page][2]) :][:200]}"
        f" → {after[page][:2]} {after[page][2][_place(before[page][2], after[page][2]) :][:200]}"
        for page in before
        if before[page] != after[page]
    ]


def _place(one: str, other: str) -> int:
    return next((place for place, pair in enumerate(zip(one, other, strict=False)) if len(set(pair)) > 1), 0)


def _neutral(text: str) -> str:
    if "archetype_details" in text:
        text = dumps(_bare(loads(text)))
    text = re.sub(r'"(lastUpdated|last_updated|committed_at|as_of)":\s*"[^"]*"', r'"\1": "…"', text)
    return re.sub(r"::(quill\.local|ehrbase\.test)::", "::…::", text)


def _bare(value: Any) -> Any:
    """Return a composition without its order and without ``_type``, which may be left out where it is clear."""
    if isinstance(value, dict):
        return {name: _bare(value[name]) for name in sorted(value) if name != "_type"}
    return [_bare(part) for part in value] if isinstance(value, list) else value


def filled(application: FastAPI, client: TestClient, settings: Settings) -> Practice:
    """Fill a running installation."""
    clinic = Clinic(client)
    surgery = clinic.organisation()
    doctor = clinic.clinician(surgery, full_name="Dr Ada Hart")
    colleague = clinic.clinician(surgery)
    patients = [clinic.patient(surgery) for _ in range(3)]
    patients.append(clinic.patient(surgery, patient_id="4711", identifier=[{"system": "urn:x", "value": "7"}]))
    _edit_and_delete(clinic, doctor, surgery, patients)
    for patient_id in patients[:2]:
        assert doctor.post("/api/prescriptions/controlled", {"patient_id": patient_id, **MORPHINE}).status_code == 201
    conversation = _talk(doctor, colleague, patients[0])
    letters, uids = _letters(doctor, patients[0])
    return Practice(application, settings, doctor, patients, conversation, letters, uids)


def _edit_and_delete(clinic: Clinic, doctor: Person, surgery: int, patients: list[str]) -> None:
    for family in ("Smith", "Smythe"):
        name = [{"use": "official", "family": family, "given": ["Pat"]}]
        at = f"/api/patients/{patients[0]}"
        etag = doctor.get(at).headers["etag"]
        answer = doctor.put(f"{at}/demographics", {"name": name}, headers={"If-Match": etag})
        assert answer.status_code == 200, answer.text
    gone, back = clinic.patient(surgery), patients[1]

    async def delete(unit: Unit) -> None:
        store = EmbeddedFhirStore(unit.session)
        await store.delete("Patient", gone)
        known = await store.find("Patient", back)
        assert known is not None
        await store.delete("Patient", back)
        await store.write(known.document)

    clinic.in_unit(delete)
    # The list follows what was changed behind its back.
    clinic.run(functools.partial(reconcile, clinic.services, mends=True))


def _talk(doctor: Person, colleague: Person, patient_id: str) -> int:
    begun = {"patient_id": patient_id, "initial_message": "How is the hip?", "participant_ids": [colleague.id]}
    answer = doctor.post("/api/conversations", begun)
    assert answer.status_code == 200, answer.text
    at = f"/api/conversations/{answer.json()['id']}"
    sent = doctor.post(f"{at}/messages", {"body": "Betterr"}).json()
    mended = doctor.post(f"{at}/messages", {"body": "Better", "amends_id": sent["id"]}).json()
    assert colleague.post(f"{at}/messages", {"body": "Good"}).status_code == 200
    assert mended["amends_id"] == sent["id"]
    assert doctor.patch(at, {"status": "resolved"}).status_code == 200
    return int(answer.json()["id"])


def _letters(doctor: Person, patient_id: str) -> tuple[list[str], list[str]]:
    at = f"/api/patients/{patient_id}/letters"
    letters, uids = [], []
    for title in ("First clinic", "Second clinic"):
        uids.append(doctor.post(at, {"title": title, "body": "# All *well*"}).json()["composition_uid"])
        letters.append(uids[-1].partition("::")[0])
        amended = doctor.put(f"{at}/{uids[-1]}", {"title": title, "body": "Not so well"}, headers={"If-Match": '"1"'})
        assert amended.status_code == 200, amended.text
        uids.append(amended.json()["composition_uid"])
    return letters, uids


class Listening:
    """Hears what a move tells; ``at`` makes something happen when a walk is finished."""

    def __init__(self) -> None:
        self.notes: list[str] = []
        self.reports: list[tuple[str, Report]] = []
        self.steps: list[tuple[str, int]] = []
        self.on_step: Any = None

    def progress(self, what: str, done: int, _total: int | None) -> None:
        self.steps.append((what, done))
        if self.on_step is not None:
            self.on_step(what, done)

    def note(self, sentence: str) -> None:
        self.notes.append(sentence)

    def finished(self, what: str, report: Report) -> None:
        self.reports.append((what, report))


def move(
    settings: Settings, elsewhere: Settings, *, to_embedded: bool = False, listening: Listening | None = None
) -> Report:
    """Move the records as the command does."""
    return asyncio.run(_with_move(copying.copy, settings, elsewhere, to_embedded, listening or Listening()))


def compare(settings: Settings, elsewhere: Settings, *, to_embedded: bool = False) -> Report:
    """Compare both sides as the command does."""
    return asyncio.run(_with_move(copying.verify, settings, elsewhere, to_embedded, Listening()))


async def _with_move(
    act: Any, settings: Settings, elsewhere: Settings, to_embedded: bool, listening: Listening
) -> Report:
    services = build_services(settings, Database(settings.resolved_database_url))
    try:
        async with open_sides(services.database, elsewhere, to_embedded=to_embedded) as sides:
            report: Report = await act(services, Move(sides, "embedded" if to_embedded else "remote", KINDS), listening)
            return report
    finally:
        await services.recorder.stop()
        await services.close()
