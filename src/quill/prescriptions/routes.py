"""Routes about prescriptions."""

from fastapi import APIRouter, Depends

from quill.access.guards import PatientIdPath
from quill.edge.inputs import IdempotencyKey, PageQuery, refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    ClinicalServicesDisabled,
    CompetencyMissing,
    FhirRefused,
    FhirUnavailable,
    IdempotencyKeyReused,
    PatientDeactivated,
    PatientNotFound,
    RequestInProgress,
)
from quill.intents.service import fingerprint
from quill.kit.ids import PatientId
from quill.prescriptions import service
from quill.prescriptions.guards import ControlledPrescriber, PrescriptionReader
from quill.prescriptions.projection import Order
from quill.prescriptions.schemas import PrescriptionIn, PrescriptionListOut, PrescriptionOut, PrescriptionRow

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api",
    tags=["prescriptions"],
    dependencies=[Depends(refuse_unknown_query)],
)


@router.post(
    "/prescriptions/controlled",
    status_code=201,
    responses=answers(
        CompetencyMissing,
        PatientNotFound,
        PatientDeactivated,
        IdempotencyKeyReused,
        RequestInProgress,
        ClinicalServicesDisabled,
        FhirUnavailable,
        FhirRefused,
    ),
)
async def prescribe_controlled(
    actor: ControlledPrescriber, unit: UnitDep, body: PrescriptionIn, idempotency_key: IdempotencyKey = None
) -> PrescriptionOut:
    """Prescribe a controlled medicine; stored as a FHIR MedicationRequest that orders it."""
    prescribed = await service.prescribe(
        unit,
        actor,
        Order(PatientId(body.patient_id), body.medication, body.dose, body.duration_days),
        idempotency_key=idempotency_key,
        fingerprint=fingerprint("prescribe_controlled", body.model_dump()),
    )
    return PrescriptionOut(
        status="success",
        prescription_id=prescribed.prescription_id,
        prescriber=prescribed.prescriber,
        patient_id=prescribed.order.patient_id,
        medication=prescribed.order.medication,
        dose=prescribed.order.dose,
        duration_days=prescribed.order.duration_days,
    )


@router.get("/patients/{patient_id}/prescriptions", responses=answers(PatientNotFound, ClinicalServicesDisabled))
async def list_prescriptions(
    actor: PrescriptionReader, reader: ReaderDep, patient_id: PatientIdPath, page: PageQuery
) -> PrescriptionListOut:
    """Return a page of a patient's prescriptions, newest first."""
    found = await service.list_of_patient(reader, actor, PatientId(patient_id), page)
    return PrescriptionListOut(
        patient_id=patient_id,
        prescriptions=[
            PrescriptionRow(
                prescription_id=row.id,
                status=row.status,
                prescriber=row.prescriber,
                patient_id=patient_id,
                medication=row.medication,
                dose=row.dose,
                duration_days=row.duration_days,
                prescribed_at=row.prescribed_at,
            )
            for row in found.rows
        ],
        next_cursor=found.next_cursor,
    )
