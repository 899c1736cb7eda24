"""Bringing the patient list up to date with a FHIR Patient, and what an intent of kind ``patient`` does."""

from typing import Any

import sqlalchemy as sa

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import FhirRefused
from quill.identity import service as identity
from quill.kit.documents import Document, dumps
from quill.kit.ids import OrganisationId, PatientId
from quill.kit.text import fold
from quill.patients import queries
from quill.patients.models import PatientIdentifier, PatientIndex
from quill.ports import fhir_patient
from quill.ports.fhir import StoredResource
from quill.unit import Unit


def index_row(stored: StoredResource) -> dict[str, Any]:
    """Return the columns of ``patient_index`` that follow from a Patient resource."""
    document = stored.document
    family, given = fhir_patient.family_and_given(document)
    return {
        "version": stored.version,
        "last_updated": stored.last_updated,
        "display_name": fhir_patient.display_name(document),
        "sort_name": fold(f"{family} {' '.join(given)}"),
        "search_text": fold("\n".join(fhir_patient.all_names(document))),
        "birth_date": document.get("birthDate"),
        "gender": document.get("gender"),
        "nhs_number": fhir_patient.nhs_number(document),
        "document": dumps(document),
    }


async def project_patient(unit: Unit, stored: StoredResource, *, created_by: Actor | None = None) -> None:
    """Bring the list up to date with one version of a Patient; an older one than it holds changes nothing."""
    known = await queries.lock_index_row(unit.session, PatientId(stored.id))
    if known is not None and known.version > stored.version:
        return
    if known is None:
        unit.session.add(
            PatientIndex(
                patient_id=stored.id,
                is_active=True,
                created_by_user_id=created_by.user_id if created_by is not None else None,
                **index_row(stored),
            )
        )
    else:
        for column, value in index_row(stored).items():
            setattr(known, column, value)
    await unit.session.flush()
    await unit.session.execute(sa.delete(PatientIdentifier).where(PatientIdentifier.patient_id == stored.id))
    rows = [
        {
            "patient_id": stored.id,
            "position": position,
            "system": system,
            "value": value,
            "value_folded": fold_identifier(value),
        }
        for position, (system, value) in enumerate(fhir_patient.identifiers(stored.document))
    ]
    if rows:
        await unit.session.execute(sa.insert(PatientIdentifier), rows)


def fold_identifier(value: str) -> str:
    """Return an identifier for comparing: without case, spaces and punctuation."""
    return fold(value).replace(" ", "")


class PatientKind:
    """What writing and projecting mean for a Patient.

    The payload holds ``document``; ``if_match`` (the version it replaces, 0 for a new record); ``organisation_id`` to
    put a new patient into an organisation's care; and the ``act`` for the audit trail.
    """

    name = "patient"

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the FHIR store shares the unit's transaction."""
        return unit.fhir.joins_transaction

    async def write(self, unit: Unit, payload: Document) -> None:
        """Write the resource under its id; a version that is there already is not written again."""
        if payload.get("if_match") is not None and await self.has_landed(unit, payload):
            return
        await unit.fhir.write(payload["document"], if_match=payload.get("if_match"))

    async def has_landed(self, unit: Unit, payload: Document) -> bool:
        """Tell whether the store holds just this content under the id."""
        stored = await unit.fhir.find("Patient", payload["document"]["id"])
        return stored is not None and _content(stored.document) == _content(payload["document"])

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Bring the list up to date, and put a new patient into its organisation's care.

        Raises:
            FhirRefused: 502, the store does not hold what it acknowledged.
        """
        patient_id = PatientId(payload["document"]["id"])
        stored = await unit.fhir.find("Patient", patient_id)
        if stored is None:
            raise FhirRefused("The patient record store does not hold what it acknowledged")
        await project_patient(unit, stored, created_by=actor)
        if payload.get("organisation_id") is not None:
            await identity.add_patient_membership(unit, OrganisationId(payload["organisation_id"]), patient_id)
        audit.record(unit, actor, Act(payload["act"]), patient_id=patient_id)
        return {"patient_id": patient_id, "version": stored.version}


def _content(document: Document) -> Document:
    meta = {key: value for key, value in document.get("meta", {}).items() if key not in {"versionId", "lastUpdated"}}
    rest = {key: value for key, value in document.items() if key != "meta"}
    return rest | ({"meta": meta} if meta else {})
