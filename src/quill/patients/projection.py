"""Bringing the patient list up to date with a FHIR Patient, and what an intent of kind ``patient`` does."""

import hashlib
from typing import Any

import sqlalchemy as sa
from sqlalchemy.dialects import postgresql, sqlite
from sqlalchemy.exc import IntegrityError

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import NhsNumberTaken
from quill.identity import service as identity
from quill.kit.documents import Document, dumps
from quill.kit.ids import OrganisationId, PatientId
from quill.kit.text import fold
from quill.patients import naming, nhs_number, queries
from quill.patients.models import PatientDocument, PatientIdentifier, PatientIndex
from quill.ports import fhir_patient
from quill.ports.fhir import ResourceType, StoredResource
from quill.ports.fhir_content import says_the_same
from quill.unit import Unit

LONGEST_KEY = 200
"""Characters of an indexed text kept whole; a PostgreSQL index entry holds about 2,700 bytes (nbtree)."""

_WHOLE_DATE_LENGTH = len("YYYY-MM-DD")


def index_row(stored: StoredResource) -> dict[str, Any]:
    """Return the columns of ``patient_index`` that follow from a Patient resource.

    A remote store may hold what nobody checked: what is not a date or an NHS number is no column's value.
    """
    document = stored.document
    family, given = fhir_patient.family_and_given(document)
    shown = fhir_patient.display_name(document)
    birth_date = document.get("birthDate")
    number = "".join((fhir_patient.nhs_number(document) or "").split())
    return {
        "version": stored.version,
        "last_updated": stored.last_updated,
        "display_name": shown,
        "sort_name": (fold(f"{family} {' '.join(given)}") or fold(shown))[:LONGEST_KEY],
        "search_text": naming.searchable(fhir_patient.all_names(document)),
        "birth_date": birth_date if isinstance(birth_date, str) and len(birth_date) <= _WHOLE_DATE_LENGTH else None,
        "nhs_number": number if nhs_number.is_valid(number) else None,
    }


def fold_identifier(value: str) -> str:
    """Return an identifier for comparing: without case, spaces and punctuation; a very long one by its digest."""
    folded = fold(value).replace(" ", "")
    if len(folded) <= LONGEST_KEY:
        return folded
    return folded[:LONGEST_KEY] + hashlib.sha256(folded.encode()).hexdigest()


def identifier_rows(stored: StoredResource) -> list[dict[str, Any]]:
    """Return the rows of ``patient_identifier`` that follow from a Patient resource."""
    return [
        {
            "patient_id": stored.id,
            "position": position,
            "system": system,
            "value": value,
            "value_folded": fold_identifier(value),
        }
        for position, (system, value) in enumerate(fhir_patient.identifiers(stored.document))
    ]


async def project_patient(unit: Unit, stored: StoredResource, *, created_by: Actor | None = None) -> None:
    """Bring the list up to date with one version of a Patient; an older one than it holds changes nothing.

    Raises:
        NhsNumberTaken: 409, another live record took the NHS number at the same moment, and this one can still be
            undone. Where the store has the resource already, it is listed without that number instead.
    """
    known = await queries.lock_version(unit.session, PatientId(stored.id))
    if known is not None and known > stored.version:
        return
    row = index_row(stored)
    if row["nhs_number"] is None:
        is_new = await _write_index_row(unit, stored.id, row, is_new=known is None, created_by=created_by)
    else:
        try:
            async with unit.session.begin_nested():
                is_new = await _write_index_row(unit, stored.id, row, is_new=known is None, created_by=created_by)
        except IntegrityError as error:
            if unit.fhir.joins_transaction:
                raise NhsNumberTaken from error
            row["nhs_number"] = None
            is_new = await _write_index_row(unit, stored.id, row, is_new=known is None, created_by=created_by)
    if known is None and not is_new:
        # Somebody else listed it after we had looked, the follower most likely; that row is there to be locked now.
        await project_patient(unit, stored, created_by=created_by)
        return
    await _write_details(unit, stored, is_new=is_new)


def new_index_row(patient_id: str, row: dict[str, Any], created_by: int | None) -> dict[str, Any]:
    """Return the whole row of a patient who is new to the list."""
    return {"patient_id": patient_id, "is_active": True, "created_by_user_id": created_by, **row}


def listed_text(stored: StoredResource) -> str:
    """Return a resource's text as the list keeps it."""
    # The list adds its own ``is_active``; two members of one name would leave the reader to guess.
    return dumps({name: value for name, value in stored.document.items() if name != "is_active"})


async def _write_index_row(
    unit: Unit, patient_id: str, row: dict[str, Any], *, is_new: bool, created_by: Actor | None
) -> bool:
    """Write a patient's row of the list; tell whether it was added, which a new one is not when it is there already."""
    creator = created_by.user_id if created_by is not None else None
    if is_new:
        whole = new_index_row(patient_id, row, creator)
        is_postgresql = unit.session.get_bind().dialect.name == "postgresql"
        insert = (postgresql.insert if is_postgresql else sqlite.insert)(PatientIndex).values(**whole)
        added = insert.on_conflict_do_nothing(index_elements=["patient_id"]).returning(PatientIndex.patient_id)
        return await unit.session.scalar(added) is not None
    if creator is not None:
        # Whoever follows the server's changes may have seen the new record before its creator came to list it.
        row = row | {"created_by_user_id": sa.func.coalesce(PatientIndex.created_by_user_id, creator)}
    await unit.session.execute(sa.update(PatientIndex).where(PatientIndex.patient_id == patient_id).values(**row))
    return False


async def _write_details(unit: Unit, stored: StoredResource, *, is_new: bool) -> None:
    text = listed_text(stored)
    if is_new:
        await unit.session.execute(sa.insert(PatientDocument), {"patient_id": stored.id, "document": text})
    else:
        its_document = PatientDocument.patient_id == stored.id
        await unit.session.execute(sa.update(PatientDocument).where(its_document).values(document=text))
        await unit.session.execute(sa.delete(PatientIdentifier).where(PatientIdentifier.patient_id == stored.id))
    if rows := identifier_rows(stored):
        await unit.session.execute(sa.insert(PatientIdentifier), rows)


def as_written(stored: StoredResource) -> Document:
    """Return what a store answered to a write, as an intent hands it from writing to projecting."""
    return {"version": stored.version, "last_updated": stored.last_updated, "document": stored.document}


def from_written(resource_type: ResourceType, written: Document) -> StoredResource:
    """Return the resource that ``as_written`` noted."""
    document = written["document"]
    return StoredResource(resource_type, document["id"], written["version"], written["last_updated"], document)


class PatientKind:
    """What writing and projecting mean for a Patient.

    The payload holds ``document``; ``if_match`` (the version it replaces, 0 for a new record); ``organisation_id`` to
    put a new patient into an organisation's care; and the ``act`` for the audit trail.
    """

    name = "patient"

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the FHIR store shares the unit's transaction."""
        return unit.fhir.joins_transaction

    async def write(self, unit: Unit, payload: Document) -> Document:
        """Write the resource under its id.

        Returns:
            The resource as stored, for ``project``.

        Raises:
            StaleEdit: 412, the store holds another version than the one this replaces.
        """
        return as_written(await unit.fhir.write(payload["document"], if_match=payload["if_match"]))

    async def has_landed(self, unit: Unit, payload: Document) -> Document | bool:
        """Return the resource as stored when it says just this, else ``False``."""
        stored = await unit.fhir.find("Patient", payload["document"]["id"])
        if stored is None or not says_the_same(payload["document"], stored.document):
            return False
        return as_written(stored)

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Bring the list up to date, and put a new patient into its organisation's care."""
        stored = from_written("Patient", payload["written"])
        patient_id = PatientId(stored.id)
        await project_patient(unit, stored, created_by=actor if payload["if_match"] == 0 else None)
        if payload.get("organisation_id") is not None:
            await identity.add_patient_membership(unit, OrganisationId(payload["organisation_id"]), patient_id)
        audit.record(unit, actor, Act(payload["act"]), patient_id=patient_id)
        return {"patient_id": patient_id, "version": stored.version}
