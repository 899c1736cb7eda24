"""Routes about patients. Resources are sent as the stored text; they are never decoded to be encoded again."""

from typing import Annotated

from fastapi import APIRouter, Depends, Query, Request, Response
from pydantic import Field

from quill.access.guards import PatientIdPath
from quill.edge.inputs import BlankAsAbsent, IdempotencyKey, IfMatch, PageQuery, etag, refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    ClinicalServicesDisabled,
    FhirRefused,
    FhirUnavailable,
    IdempotencyKeyReused,
    InvalidRecord,
    NhsNumberTaken,
    PatientDeactivated,
    PatientExists,
    PatientNotFound,
    PatientNotInFhir,
    RequestInProgress,
    StaleEdit,
    Unprocessable,
)
from quill.intents.service import fingerprint
from quill.kit.documents import Document, NotADocument, dumps, loads
from quill.kit.ids import PatientId
from quill.patients import listing, service
from quill.patients.contact import FhirContact
from quill.patients.guards import (
    DemographicsEditor,
    PatientActivator,
    PatientCreator,
    PatientDeactivator,
    PatientEditor,
    PatientListReader,
    PatientReader,
    PatientVerifier,
)
from quill.patients.listing import ListRequest
from quill.patients.schemas import (
    DemographicsChangedOut,
    DemographicsIn,
    DemographicsOut,
    PatientActivityOut,
    PatientIn,
    PatientListOut,
    PatientMetadataOut,
    PatientPatch,
    PatientReadyOut,
)
from quill.patients.service import NewPatient, PatientText
from quill.ports.fhir_datatypes import Date
from quill.ports.fhir_resources import PatientShape

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api/patients",
    tags=["patients"],
    dependencies=[Depends(refuse_unknown_query)],
)

STORE_ERRORS = (ClinicalServicesDisabled, FhirUnavailable, FhirRefused)
EDIT_ERRORS = (PatientNotFound, PatientDeactivated, NhsNumberTaken, RequestInProgress, StaleEdit, InvalidRecord)

OptionalQuery = Annotated[Annotated[str, Field(max_length=255)] | None, BlankAsAbsent]


async def contact_of(request: Request) -> FhirContact:
    """Return what this process knows about the record store."""
    contact: FhirContact = request.app.state.fhir_contact
    return contact


async def exact_body(request: Request) -> Document:
    """Return the body as a document whose decimals keep every digit, as FHIR wants.

    Raises:
        Unprocessable: 422, it is no JSON object.
    """
    try:
        return loads(await request.body())
    except NotADocument as error:
        raise Unprocessable("The request body is not readable") from error


async def list_request(
    search: Annotated[OptionalQuery, Query(description="Parts of a name, or a whole identifier.")] = None,
    name: Annotated[OptionalQuery, Query(description="Parts of a name; every word must be found.")] = None,
    identifier: Annotated[OptionalQuery, Query(description="`value` or `system|value`.")] = None,
    birth_date: Annotated[Date | None, BlankAsAbsent, Query(description="FHIR date, whole or partial.")] = None,
    include_inactive: Annotated[bool | None, BlankAsAbsent, Query(description="Heeded for admins only.")] = None,
    scope: Annotated[OptionalQuery, Query(description="`admin` shows admins every patient.")] = None,
) -> ListRequest:
    """Return what the caller asks the list for."""
    return ListRequest(
        search=search,
        name=name,
        identifier=identifier,
        birth_date=birth_date,
        include_inactive=bool(include_inactive),
        everybody=scope == "admin",
    )


def _as_json(text: str, version: int | None = None) -> Response:
    headers = {"ETag": etag(version)} if version is not None else None
    return Response(text, media_type="application/json", headers=headers)


def _enveloped(patient: PatientText, more: str = "") -> Response:
    return _as_json(f'{{"patient_id":{dumps(patient.patient_id)},{more}"data":{patient.text}}}', patient.version)


@router.get("", response_model=PatientListOut, responses=answers(ClinicalServicesDisabled))
async def list_patients(
    actor: PatientListReader,
    reader: ReaderDep,
    request: Annotated[ListRequest, Depends(list_request)],
    page: PageQuery,
    contact: Annotated[FhirContact, Depends(contact_of)],
) -> Response:
    """Return a page of the patients the caller may see, by name.

    While the record store does not answer this is the last known list: `fhir_ready` is false, `as_of` says from when.
    """
    return _as_json(await listing.list_patients(reader, actor, contact, request, page))


@router.post(
    "",
    response_model=PatientShape,
    responses=answers(PatientExists, NhsNumberTaken, IdempotencyKeyReused, RequestInProgress, *STORE_ERRORS),
)
async def create_patient_in_fhir(
    actor: PatientCreator, unit: UnitDep, body: PatientIn, idempotency_key: IdempotencyKey = None
) -> Response:
    """Add a patient, who joins the caller's primary organisation."""
    wanted = NewPatient(
        body.changes(),
        PatientId(body.patient_id) if body.patient_id is not None else None,
        idempotency_key,
        fingerprint("create_patient_in_fhir", body.model_dump()),
    )
    patient = await service.add(unit, actor, wanted)
    return _as_json(patient.text, patient.version)


@router.post("/verify", responses=answers(PatientNotInFhir, *STORE_ERRORS))
async def create_patient_record(
    actor: PatientVerifier, unit: UnitDep, patient_id: Annotated[str, Query(min_length=1, max_length=255)]
) -> PatientReadyOut:
    """Tell whether the record store holds a patient; creates nothing."""
    await service.verify(unit, actor, PatientId(patient_id))
    return PatientReadyOut(patient_id=patient_id, status="ready")


@router.get("/{patient_id}", response_model=PatientShape, responses=answers(PatientNotFound, *STORE_ERRORS))
async def get_patient(actor: PatientReader, reader: ReaderDep, patient_id: PatientIdPath) -> Response:
    """Return a patient's FHIR resource, deactivated or not."""
    patient = await service.get(reader, actor, PatientId(patient_id))
    return _as_json(patient.text, patient.version)


@router.patch("/{patient_id}", response_model=PatientShape, responses=answers(*EDIT_ERRORS, *STORE_ERRORS))
async def update_patient(
    actor: PatientEditor, unit: UnitDep, patient_id: PatientIdPath, body: PatientPatch, if_match: IfMatch
) -> Response:
    """Change name, birth date, gender or numbers of a patient; what is left out is kept."""
    if body.patient_id is not None and body.patient_id != patient_id:
        raise Unprocessable.at("patient_id", "The id in the body is not the one in the path", kind="id_mismatch")
    patient = await service.edit(unit, actor, PatientId(patient_id), body.changes(), if_match=if_match)
    return _as_json(patient.text, patient.version)


@router.get(
    "/{patient_id}/demographics", response_model=DemographicsOut, responses=answers(PatientNotFound, *STORE_ERRORS)
)
async def get_demographics(actor: PatientReader, reader: ReaderDep, patient_id: PatientIdPath) -> Response:
    """Return a patient's FHIR resource in an envelope."""
    return _enveloped(await service.get(reader, actor, PatientId(patient_id)))


@router.put(
    "/{patient_id}/demographics",
    response_model=DemographicsChangedOut,
    responses=answers(*EDIT_ERRORS, *STORE_ERRORS),
)
async def upsert_demographics(
    actor: DemographicsEditor,
    unit: UnitDep,
    patient_id: PatientIdPath,
    body: DemographicsIn,
    exact: Annotated[Document, Depends(exact_body)],
    if_match: IfMatch,
) -> Response:
    """Change a patient's demographics by FHIR elements or flat fields; what is left out is kept. Never creates."""
    patient = await service.edit(unit, actor, PatientId(patient_id), body.changes(exact), if_match=if_match)
    return _enveloped(patient, '"updated":true,')


@router.get("/{patient_id}/metadata", responses=answers(PatientNotFound, ClinicalServicesDisabled))
async def get_patient_metadata(
    actor: PatientReader, reader: ReaderDep, patient_id: PatientIdPath
) -> PatientMetadataOut:
    """Return whether a patient's record is active."""
    is_active = await service.is_active(reader, actor, PatientId(patient_id))
    return PatientMetadataOut(patient_id=patient_id, is_active=is_active)


@router.post("/{patient_id}/deactivate", responses=answers(PatientNotFound, ClinicalServicesDisabled))
async def deactivate_patient(actor: PatientDeactivator, unit: UnitDep, patient_id: PatientIdPath) -> PatientActivityOut:
    """Take a patient's record out of the lists; it takes no entries until it is activated."""
    await service.set_active(unit, actor, PatientId(patient_id), active=False)
    return PatientActivityOut(patient_id=patient_id, is_active=False, message="Patient deactivated successfully")


@router.post("/{patient_id}/activate", responses=answers(PatientNotFound, NhsNumberTaken, ClinicalServicesDisabled))
async def activate_patient(actor: PatientActivator, unit: UnitDep, patient_id: PatientIdPath) -> PatientActivityOut:
    """Bring a patient's record back."""
    await service.set_active(unit, actor, PatientId(patient_id), active=True)
    return PatientActivityOut(patient_id=patient_id, is_active=True, message="Patient activated successfully")
