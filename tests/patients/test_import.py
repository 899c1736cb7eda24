"""Taking in files of patients."""

import io
import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest

from quill.errors import FhirUnavailable
from quill.kit.documents import Document, dumps, in_order, loads
from quill.patients import importing
from quill.patients.importing import Import, ImportReport
from tests.clinic import Clinic
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, acts, remote_fhir, rows

REPOSITORY = Path(__file__).parents[2]
FILES = [
    file
    for file in (
        REPOSITORY / "tests" / "fixtures" / "patients.ndjson",
        REPOSITORY.parent / "shared" / "data" / "synthea-patients.ndjson",
    )
    if file.exists()
]


@pytest.fixture
def here(clinic: Clinic) -> int:
    return clinic.organisation()


def take_in(clinic: Clinic, raw: bytes, here: int, **task: Any) -> ImportReport:
    async def work() -> ImportReport:
        lines = importing.read_lines(io.BytesIO(raw))
        return await importing.import_patients(clinic.services, lines, Import(here, **task))  # type: ignore[arg-type]

    report: ImportReport = clinic.run(work)
    return report


def ndjson(*documents: Document) -> bytes:
    return "\n".join(json.dumps(document) for document in documents).encode()


def patient(patient_id: str, **elements: Any) -> Document:
    return {"resourceType": "Patient", "id": patient_id, "name": [{"family": "Lee"}]} | elements


def summary(report: ImportReport) -> tuple[int, int, int, Sequence[tuple[int, str]]]:
    refused = [(line.number, line.reason) for line in report.refused]
    return report.imported, report.updated, report.unchanged, refused


@pytest.mark.parametrize("file", FILES, ids=lambda file: file.stem)
def test_whole_file_goes_in_comes_back_untouched_and_changes_nothing_again(
    clinic: Clinic, here: int, file: Path
) -> None:
    raw = file.read_bytes()
    documents = [loads(line) for line in raw.splitlines()]
    assert summary(take_in(clinic, raw, here)) == (len(documents), 0, 0, [])
    assert summary(take_in(clinic, raw, here)) == (0, 0, len(documents), [])
    assert rows(clinic, "SELECT max(version) FROM fhir_resource") == [(1,)]
    stored = {row[0]: loads(row[1]) for row in rows(clinic, "SELECT id, document FROM fhir_resource")}
    for document in documents:
        found = stored[document["id"]]
        own = {name: value for name, value in found["meta"].items() if name not in {"versionId", "lastUpdated"}}
        given = document.get("meta", {})
        assert own == {name: value for name, value in given.items() if name not in {"versionId", "lastUpdated"}}
        # As text, because two numbers may be equal and written with other digits.
        assert dumps(in_order(found | {"meta": {}})) == dumps(in_order(document | {"meta": {}}))
    gp = clinic.clinician(here)
    listed = gp.get("/api/patients").json()
    assert (len(listed["patients"]), listed["total"]) == (len(documents), len(documents))
    assert ("patient:import", "allowed") in acts(clinic, documents[0]["id"])


def test_what_cannot_go_in_is_told_by_line_and_keeps_nobody_out(clinic: Clinic, here: int) -> None:
    numbered = [{"system": NHS_SYSTEM, "value": NHS_NUMBER}]
    raw = b"\n".join(
        [
            ndjson(patient("a", identifier=numbered)),
            b'{"resourceType":"Patient","id":',
            ndjson({"resourceType": "Observation", "id": "o", "status": "final"}),
            ndjson(patient("b", gender="Marigold")),
            ndjson(patient("c", birthDate="1980-02-30")),
            b"",
            ndjson(patient("d", identifier=[{"system": NHS_SYSTEM, "value": "999 052 7113"}])),
            ndjson(patient("e", identifier=[{"system": "urn:mrn", "value": "7"}])),
            ndjson(patient("f", identifier=[{"system": "urn:mrn", "value": "7"}])),
            ndjson(patient("a", gender="male")),
            ndjson(patient("no/id")),
            b"[1]",
            b'{"resourceType":"Patient","id":"g","name":[{"family":"\xff"}]}',
            ndjson(patient("h", name=[{"family": "a\x00b"}])),
            ndjson({"id": "i"}),
            ndjson(patient("z")),
        ]
    )
    report = take_in(clinic, raw, here)
    assert summary(report) == (
        3,
        0,
        0,
        [
            (2, "not-json"),
            (3, "not-a-patient"),
            (4, "invalid-record"),
            (5, "invalid-record"),
            (7, "duplicate-identifier"),
            (9, "duplicate-identifier"),
            (10, "patient-exists"),
            (11, "invalid-record"),
            (12, "not-json"),
            (13, "not-json"),
            (14, "invalid-record"),
            (15, "not-a-patient"),
        ],
    )
    assert report.seen == 15
    sentences = " ".join(line.sentence for line in report.refused)
    assert "gender" in sentences
    assert "birthDate" in sentences
    for value in ("Marigold", "1980-02-30", NHS_NUMBER, "Lee"):
        assert value not in sentences
    assert {row[0] for row in rows(clinic, "SELECT id FROM fhir_resource")} == {"a", "e", "z"}
    assert {row[0] for row in rows(clinic, "SELECT patient_id FROM organisation_patient_member")} == {"a", "e", "z"}


def test_numbers_families_share_and_former_numbers_are_no_duplicates(clinic: Clinic, here: int) -> None:
    medicare = {"system": "http://ns.electronichealth.net.au/id/medicare-number", "value": "32788511952"}
    insured = {"system": "urn:insurer", "value": "1", "type": {"coding": [{"code": "MB"}]}}
    former = {"system": NHS_SYSTEM, "value": NHS_NUMBER, "use": "old"}
    raw = ndjson(*(patient(name, identifier=[medicare, insured, former, {"value": "7"}]) for name in "ab"))
    assert summary(take_in(clinic, raw, here)) == (2, 0, 0, [])


def test_other_content_replaces_only_when_asked(clinic: Clinic, here: int) -> None:
    take_in(clinic, ndjson(patient("a")), here)
    changed = ndjson(patient("a", gender="male"))
    assert summary(take_in(clinic, changed, here)) == (0, 0, 0, [(1, "patient-exists")])
    assert summary(take_in(clinic, changed, here, replace=True)) == (0, 1, 0, [])
    gp = clinic.clinician(here)
    assert gp.get("/api/patients/a").json()["gender"] == "male"
    clinic.admin().post("/api/patients/a/deactivate")
    report = take_in(clinic, ndjson(patient("a", gender="other")), here, replace=True)
    assert summary(report) == (0, 0, 0, [(1, "patient-deactivated")])


def test_known_patients_join_another_organisation_that_imports_them(clinic: Clinic, here: int) -> None:
    there = clinic.organisation("Hilltop")
    take_in(clinic, ndjson(patient("a")), here)
    assert summary(take_in(clinic, ndjson(patient("a")), there)) == (0, 0, 1, [])
    assert clinic.clinician(there).get("/api/patients/a").status_code == 200


def test_record_without_an_id_gets_the_same_one_each_time(clinic: Clinic, here: int) -> None:
    raw = ndjson({"resourceType": "Patient", "name": [{"family": "Lee"}]})
    assert summary(take_in(clinic, raw, here)) == (1, 0, 0, [])
    assert summary(take_in(clinic, raw, here)) == (0, 0, 1, [])


@pytest.mark.parametrize("indent", [None, 2])
def test_bundle_goes_in_by_entry(clinic: Clinic, here: int, indent: int | None) -> None:
    entries: list[Any] = [
        {"resource": patient("a", x_unknown=1)},
        {"resource": {"resourceType": "Observation"}},
        {"fullUrl": "urn:nothing"},
        "nonsense",
        {"resource": patient("b")},
    ]
    raw = json.dumps({"resourceType": "Bundle", "type": "collection", "entry": entries}, indent=indent).encode()
    report = take_in(clinic, raw, here)
    assert summary(report) == (2, 0, 0, [(2, "not-a-patient"), (3, "not-json"), (4, "not-json")])


@pytest.mark.parametrize(
    ("raw", "expected"),
    [
        (b"", (0, 0, 0, [])),
        (b"\n \n", (0, 0, 0, [])),
        (b"\xef\xbb\xbf" + ndjson(patient("a")), (1, 0, 0, [])),
        (json.dumps(patient("a"), indent=1).encode(), (1, 0, 0, [])),
        (b"garbage\n" + ndjson(patient("a")), (1, 0, 0, [(1, "not-json")])),
        (b"{oops}\n" + ndjson(patient("a")), (1, 0, 0, [(1, "not-json")])),
    ],
)
def test_odd_files_are_read(clinic: Clinic, here: int, raw: bytes, expected: Any) -> None:
    assert summary(take_in(clinic, raw, here)) == expected


def test_bundle_without_a_list_of_entries_is_no_file_of_ours() -> None:
    with pytest.raises(importing.UnreadableFile):
        list(importing.read_lines([b'{"resourceType":"Bundle","entry":{}}']))


def test_import_cut_short_keeps_what_it_reported_and_is_repeated(clinic: Clinic, here: int) -> None:
    raw = ndjson(*(patient(f"p{n}") for n in range(importing.BATCH + 50)))
    progress: list[int] = []

    async def cut_short() -> None:
        def stop(report: ImportReport) -> None:
            progress.append(report.imported)
            raise KeyboardInterrupt

        lines = importing.read_lines(raw.splitlines())
        try:
            await importing.import_patients(clinic.services, lines, Import(here), on_progress=stop)  # type: ignore[arg-type]
        except KeyboardInterrupt:
            return

    clinic.run(cut_short)
    assert progress == [importing.BATCH]
    assert rows(clinic, "SELECT count(*) FROM patient_index") == [(importing.BATCH,)]
    assert summary(take_in(clinic, raw, here)) == (50, 0, importing.BATCH, [])


def test_remote_store_takes_patients_one_by_one(clinic: Clinic, here: int) -> None:
    remote_fhir(clinic).serves_a_job = True
    numbered = [{"system": NHS_SYSTEM, "value": NHS_NUMBER}]
    raw = ndjson(patient("a", identifier=numbered), patient("b", identifier=numbered), patient("c"))
    assert summary(take_in(clinic, raw, here)) == (2, 0, 0, [(2, "duplicate-identifier")])
    assert summary(take_in(clinic, raw, here)) == (0, 0, 2, [(2, "duplicate-identifier")])


def test_store_that_is_away_ends_the_import_with_an_error(clinic: Clinic, here: int) -> None:
    remote_fhir(clinic, is_away=True)
    with pytest.raises(FhirUnavailable):
        take_in(clinic, ndjson(patient("a")), here)
    assert rows(clinic, "SELECT count(*) FROM patient_index") == [(0,)]
