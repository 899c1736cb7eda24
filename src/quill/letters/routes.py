"""Routes of letters."""

import datetime
from typing import Annotated

from fastapi import APIRouter, Depends, Path, Response

from quill.access.guards import PatientIdPath
from quill.edge.answers import as_json
from quill.edge.inputs import IdempotencyKey, IfMatch, PageQuery, etag, refuse_unknown_query
from quill.edge.problems import answers
from quill.edge.routing import operation_id
from quill.edge.units import ReaderDep, UnitDep
from quill.errors import (
    ClinicalServicesDisabled,
    CompetencyMissing,
    CsrfFailed,
    IdempotencyKeyReused,
    InvalidCursor,
    LetterNotFound,
    OpenEhrRefused,
    OpenEhrUnavailable,
    PatientDeactivated,
    PatientNotFound,
    PreconditionRequired,
    RequestInProgress,
    RoleMissing,
    StaleEdit,
    Unauthenticated,
    Unprocessable,
)
from quill.kit.documents import Document
from quill.kit.ids import PatientId
from quill.letters import service as letters
from quill.letters.guards import LetterReader, LetterWriter
from quill.letters.schemas import (
    LetterIn,
    LetterOut,
    LetterPage,
    LetterRow,
    LetterVersionRow,
    LetterVersions,
    LetterWritten,
)
from quill.letters.service import LetterDraft, LetterPath

router = APIRouter(
    generate_unique_id_function=operation_id,
    prefix="/api/patients/{patient_id}/letters",
    tags=["letters"],
    dependencies=[Depends(refuse_unknown_query)],
)


async def _letter_path(
    patient_id: PatientIdPath,
    composition_uid: Annotated[
        str, Path(max_length=255, description="Version uid, `object::system::version`, or an object id for the newest.")
    ],
) -> LetterPath:
    return LetterPath(PatientId(patient_id), composition_uid)


LetterPathDep = Annotated[LetterPath, Depends(_letter_path)]


_READING = (
    Unauthenticated,
    CompetencyMissing,
    PatientNotFound,
    Unprocessable,
    OpenEhrUnavailable,
    OpenEhrRefused,
    ClinicalServicesDisabled,
)
_WRITING = (*_READING, CsrfFailed, RoleMissing, PatientDeactivated, RequestInProgress, IdempotencyKeyReused)


@router.post("", responses=answers(*_WRITING))
async def write_letter(
    body: LetterIn,
    actor: LetterWriter,
    unit: UnitDep,
    patient_id: PatientIdPath,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> LetterWritten:
    """Write a letter about a patient. The author is whoever is signed in."""
    letters.check_author(actor, name=body.author_name, email=body.author_email)
    draft = LetterDraft(body.title, body.body)
    written = await letters.write_letter(unit, actor, PatientId(patient_id), draft, idempotency_key)
    return _written(response, patient_id, body.title, written)


@router.get("", response_model=LetterPage, responses=answers(*_READING, InvalidCursor))
async def list_letters(actor: LetterReader, reader: ReaderDep, patient_id: PatientIdPath, page: PageQuery) -> Response:
    """List a patient's letters, newest first, each in its newest version."""
    found = await letters.list_letters(reader, actor, PatientId(patient_id), page)
    rows: list[LetterRow] = [
        {
            "composition_uid": summary.uid,
            "title": summary.title,
            "created_at": summary.started_at,
            "author_name": summary.composer_name,
            "version": summary.version,
        }
        for summary in found.summaries
    ]
    shown: LetterPage = {"patient_id": patient_id, "letters": rows, "next_cursor": found.next_cursor}
    return as_json(shown)


@router.get("/{composition_uid}", response_model=LetterOut, responses=answers(*_READING, LetterNotFound))
async def read_letter(actor: LetterReader, reader: ReaderDep, path: LetterPathDep) -> Response:
    """Read one version of a letter, or the newest by object id."""
    letter = await letters.read_letter(reader, actor, path)
    shown: LetterOut = {
        "patient_id": path.patient_id,
        "composition_uid": letter.stored.uid,
        "data": letter.stored.document,
        "title": letter.content.title,
        "body": letter.content.body,
        "author_name": letter.content.author_name,
        "created_at": letter.content.created_at,
        "version": letter.stored.version,
    }
    return as_json(shown, {"ETag": etag(letter.stored.version)})


@router.put("/{composition_uid}", responses=answers(*_WRITING, LetterNotFound, StaleEdit, PreconditionRequired))
async def amend_letter(
    body: LetterIn,
    actor: LetterWriter,
    unit: UnitDep,
    path: LetterPathDep,
    replaces: IfMatch,
    response: Response,
    idempotency_key: IdempotencyKey = None,
) -> LetterWritten:
    """Write the next version of a letter.

    `If-Match` must name the version that was read (428 without it, 412 when it is not the newest any more). Earlier
    versions stay readable, and the letter keeps the time it was first written at.
    """
    letters.check_author(actor, name=body.author_name, email=body.author_email)
    written = await letters.amend_letter(
        unit,
        actor,
        path,
        LetterDraft(body.title, body.body),
        replaces=replaces,
        idempotency_key=idempotency_key,
    )
    return _written(response, path.patient_id, body.title, written)


@router.get("/{composition_uid}/versions", responses=answers(*_READING, LetterNotFound))
async def list_letter_versions(actor: LetterReader, reader: ReaderDep, path: LetterPathDep) -> LetterVersions:
    """List every version of a letter, newest first."""
    versions = await letters.list_letter_versions(reader, actor, path)
    rows = [
        LetterVersionRow(
            version=letter.stored.version,
            composition_uid=letter.stored.uid,
            title=letter.content.title,
            author_name=letter.content.author_name,
            created_at=letter.content.created_at,
            committed_at=letter.stored.committed_at,
        )
        for letter in versions
    ]
    return LetterVersions(patient_id=path.patient_id, versions=rows)


def _written(response: Response, patient_id: str, title: str, written: Document) -> LetterWritten:
    response.headers["ETag"] = etag(written["version"])
    return LetterWritten(
        patient_id=patient_id,
        composition_uid=written["composition_uid"],
        title=title,
        version=written["version"],
        created_at=datetime.datetime.fromisoformat(written["created_at"]),
    )
