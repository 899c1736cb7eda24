"""Many new patients at once, for demonstrations and measurements: what one after the other is, in few statements.

Tests hold the rows against those of patients added one by one (``service.create``).
"""

from collections.abc import Sequence
from typing import cast

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from quill.actor import Actor
from quill.audit import service as audit
from quill.audit.service import Act
from quill.errors import NhsNumberTaken, PatientExists, StaleEdit
from quill.identity import service as identity
from quill.kit.documents import Document
from quill.kit.ids import OrganisationId, PatientId
from quill.patients import projection
from quill.patients.models import PatientDocument, PatientIdentifier, PatientIndex
from quill.unit import Unit

# Core tables: through the mapper each row would cost several times as much.
_INDEX = cast("sa.Table", PatientIndex.__table__)
_DOCUMENT = cast("sa.Table", PatientDocument.__table__)
_IDENTIFIER = cast("sa.Table", PatientIdentifier.__table__)


async def add_many(
    unit: Unit, actor: Actor, documents: Sequence[Document], *, organisation_id: OrganisationId
) -> list[PatientId]:
    """Add patients nobody knows yet, in the unit's transaction and in one organisation's care.

    For an embedded FHIR store, which shares the transaction; some hundred patients a unit is a good measure. After a
    refusal the unit holds nothing that could be committed.

    Args:
        unit: the transaction.
        actor: who brings them in.
        documents: FHIR Patients with ``id``.
        organisation_id: who cares for them.

    Returns:
        Their ids, in the same order.

    Raises:
        ValueError: the FHIR store stands by itself.
        PatientExists: 409, an id is in use.
        NhsNumberTaken: 409, a live record holds one of the NHS numbers, or two of these do.
        InvalidRecord: 422, one is no valid Patient.
    """
    if not unit.fhir.joins_transaction:
        raise ValueError("Patients are brought in at once only where the FHIR store shares the transaction.")
    if not documents:
        return []
    try:
        stored = await unit.fhir.write_new(documents)
    except StaleEdit as error:
        raise PatientExists from error
    index = [projection.new_index_row(found.id, projection.index_row(found), actor.user_id) for found in stored]
    texts = [{"patient_id": found.id, "document": projection.listed_text(found)} for found in stored]
    identifiers = [row for found in stored for row in projection.identifier_rows(found)]
    try:
        await unit.session.execute(sa.insert(_INDEX), index)
    except IntegrityError as error:
        raise NhsNumberTaken from error
    await unit.session.execute(sa.insert(_DOCUMENT), texts)
    if identifiers:
        await unit.session.execute(sa.insert(_IDENTIFIER), identifiers)
    patient_ids = [PatientId(found.id) for found in stored]
    await identity.add_new_patients(unit, organisation_id, patient_ids)
    for patient_id in patient_ids:
        audit.record(unit, actor, Act.PATIENT_CREATE, patient_id=patient_id)
    return patient_ids
