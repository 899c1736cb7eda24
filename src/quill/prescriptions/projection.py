"""A prescription as a FHIR MedicationRequest, and what an intent of kind ``prescription`` does.

Source: FHIR R4 (4.0.1), ``medicationrequest.html``; durations in UCUM days.
"""

import datetime
from dataclasses import dataclass
from typing import Any

import sqlalchemy as sa

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.kit import clock
from quill.kit.documents import Document
from quill.kit.ids import PatientId
from quill.patients.projection import as_written, from_written
from quill.ports.fhir import StoredResource
from quill.prescriptions import queries
from quill.prescriptions.models import Prescription
from quill.unit import Unit

UCUM = "http://unitsofmeasure.org"
USERNAME_SYSTEM = "urn:quillmedical:username"
"""The system of our usernames where a resource names one of our people."""
USER_ID_URL = "urn:quillmedical:sender-user-id"
"""The extension that ties a reference to an account, as Communication.sender carries it."""


@dataclass(frozen=True, slots=True)
class Order:
    """A medicine to be prescribed; ``duration_days`` is 1..366."""

    patient_id: PatientId
    medication: str
    dose: str
    duration_days: int


def document_of(prescription_id: str, actor: Actor, order: Order, prescribed_at: datetime.datetime) -> Document:
    """Return the MedicationRequest of an order; its requester is the person signed in."""
    return {
        "resourceType": "MedicationRequest",
        "id": prescription_id,
        "status": "active",
        "intent": "order",
        "medicationCodeableConcept": {"text": order.medication},
        "subject": {"reference": f"Patient/{order.patient_id}"},
        "authoredOn": clock.rfc3339(prescribed_at),
        "requester": {
            "extension": [{"url": USER_ID_URL, "valueInteger": actor.person_id}],
            "identifier": {"system": USERNAME_SYSTEM, "value": actor.name},
            "display": actor.display_name,
        },
        "dosageInstruction": [{"text": order.dose}],
        "dispenseRequest": {
            "expectedSupplyDuration": {"value": order.duration_days, "unit": "days", "system": UCUM, "code": "d"}
        },
    }


def row_of(stored: StoredResource) -> dict[str, Any]:
    """Return the row of ``prescription`` that follows from a MedicationRequest of ours."""
    document = stored.document
    requester = document["requester"]
    return {
        "id": stored.id,
        "version": stored.version,
        "patient_id": document["subject"]["reference"].removeprefix("Patient/"),
        "status": document["status"],
        "medication": document["medicationCodeableConcept"]["text"],
        "dose": document["dosageInstruction"][0]["text"],
        "duration_days": int(document["dispenseRequest"]["expectedSupplyDuration"]["value"]),
        "prescriber": requester["identifier"]["value"],
        "prescriber_user_id": requester["extension"][0]["valueInteger"],
        "prescribed_at": datetime.datetime.fromisoformat(document["authoredOn"]),
    }


class PrescriptionKind:
    """What writing and projecting mean for a prescription; the payload holds its ``document``."""

    name = "prescription"

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the FHIR store shares the unit's transaction."""
        return unit.fhir.joins_transaction

    async def write(self, unit: Unit, payload: Document) -> Document:
        """Write the MedicationRequest under its id, and return it as stored."""
        return as_written(await unit.fhir.write(payload["document"], if_match=0))

    async def has_landed(self, unit: Unit, payload: Document) -> Document | bool:
        """Return the order as stored; the id was minted for it, so whatever is there is that."""
        stored = await unit.fhir.find("MedicationRequest", payload["document"]["id"])
        return as_written(stored) if stored is not None else False

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Put the prescription into the patient's list."""
        stored = from_written("MedicationRequest", payload["written"])
        prescription_id = stored.id
        row = row_of(stored)
        known = await queries.lock_version(unit.session, prescription_id)
        if known is None:
            await unit.session.execute(sa.insert(Prescription), row)
        elif known < stored.version:
            await unit.session.execute(sa.update(Prescription).where(Prescription.id == prescription_id).values(**row))
        audit.record(
            unit,
            actor,
            Act.PRESCRIPTION_WRITE,
            patient_id=PatientId(row["patient_id"]),
            subject=f"prescription:{prescription_id}",
        )
        return {"prescription_id": prescription_id}
