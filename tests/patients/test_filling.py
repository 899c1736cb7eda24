"""Many new patients at once are what they would have been one by one."""

from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Actor
from quill.errors import InvalidRecord, NhsNumberTaken, PatientExists
from quill.identity.models import OrganisationPatientMember
from quill.kit.documents import Document, loads
from quill.kit.ids import OrganisationId, new_uuid
from quill.patients import filling
from quill.patients import service as patients
from quill.patients.models import PatientDocument, PatientIdentifier, PatientIndex
from quill.unit import Unit
from tests.clinic import Clinic
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, remote_fhir

ACTOR = Actor.job("test")


def patient(**elements: Any) -> Document:
    return {"resourceType": "Patient", "id": new_uuid(), "name": [{"family": "Ødegård", "given": ["Ann"]}]} | elements


def numbered(number: str = NHS_NUMBER) -> Document:
    return {"identifier": [{"system": NHS_SYSTEM, "value": number}, {"system": "urn:other", "value": "A 1"}]}


def add(clinic: Clinic, here: int, *documents: Document) -> list[str]:
    async def work(unit: Unit) -> list[str]:
        return list(await filling.add_many(unit, ACTOR, documents, organisation_id=OrganisationId(here)))

    made: list[str] = clinic.in_unit(work)
    return made


def kept(clinic: Clinic, table: type[Any], patient_id: str) -> list[dict[str, Any]]:
    """Return a patient's rows of a table without what must differ: id and time."""

    async def work(unit: Unit) -> list[dict[str, Any]]:
        found = await unit.session.execute(sa.select(table.__table__).where(table.patient_id == patient_id))
        return [dict(row) for row in found.mappings()]

    rows: list[dict[str, Any]] = clinic.in_unit(work)
    for row in rows:
        del row["patient_id"]
        row.pop("last_updated", None)
        row.pop("joined_at", None)
        if "document" in row:
            row["document"] = {
                name: value for name, value in loads(row["document"]).items() if name not in {"id", "meta"}
            }
    return rows


def test_rows_are_those_of_a_patient_added_alone(clinic: Clinic) -> None:
    here = clinic.organisation()
    content: Document = {
        "identifier": [{"system": "urn:other", "value": "A 1"}],
        "birthDate": "1980",
        "is_active": True,
    }
    alone, among = patient(**content), patient(**content)

    async def work(unit: Unit) -> None:
        await patients.create(unit, ACTOR, alone, organisation_id=OrganisationId(here))

    clinic.in_unit(work)
    other = patient()
    assert add(clinic, here, other, among) == [other["id"], among["id"]]
    for table in (PatientIndex, PatientDocument, PatientIdentifier, OrganisationPatientMember):
        one = kept(clinic, table, alone["id"])
        assert one
        assert one == kept(clinic, table, among["id"])


def test_staff_find_them_and_each_addition_is_audited(clinic: Clinic) -> None:
    here = clinic.organisation()
    doctor = clinic.clinician(here)
    made = add(clinic, here, patient(**numbered()), patient())
    assert {found["id"] for found in doctor.get("/api/patients").json()["patients"]} == set(made)
    assert [found["id"] for found in doctor.get(f"/api/patients?identifier={NHS_NUMBER}").json()["patients"]] == made[
        :1
    ]
    assert [row.patient_id for row in clinic.audited("patient:create")] == made
    assert add(clinic, here) == []


def test_one_that_cannot_be_added_keeps_all_out(clinic: Clinic) -> None:
    here = clinic.organisation()
    [known] = add(clinic, here, patient(**numbered()))
    for wrong, refusal in (
        (patient(id=known), PatientExists),
        (patient(**numbered()), NhsNumberTaken),
        (patient(gender="X"), InvalidRecord),
    ):
        with pytest.raises(refusal):
            add(clinic, here, patient(), wrong)
    assert [row.patient_id for row in clinic.audited("patient:create")] == [known]


def test_a_store_elsewhere_takes_them_one_by_one_only(clinic: Clinic) -> None:
    here = clinic.organisation()
    remote_fhir(clinic)
    with pytest.raises(ValueError, match="shares the transaction"):
        add(clinic, here, patient())
