"""Which patient record is an account's own."""

from quill.actor import Actor
from quill.errors import ExternalAccountNotLinked, PatientNotFound, Unprocessable
from quill.identity import service as identity
from quill.kit.ids import PatientId, UserId, is_fhir_id
from quill.patients import service as patients
from quill.staff.service import rules
from quill.unit import Unit


async def link_patient(unit: Unit, actor: Actor, user_id: UserId, patient_id: str | None) -> PatientId:
    """Tie an account to a patient record as the person's own, in place of an earlier one.

    People of every level may be patients, staff too, and then read their own record as patients do. External accounts
    are not linked: they see the patients who granted them access.

    Returns:
        The patient's id.

    Raises:
        Unprocessable: 422, no id was given.
        UserNotFound: 404.
        SuperadminMissing: 403, an admin wants to link an admin's account.
        ExternalAccountNotLinked: 409.
        PatientNotFound: 404, there is no such patient.
        PatientDeactivated: 409.
        PatientAlreadyLinked: 409, the record is another account's.
    """
    if patient_id is None:
        raise Unprocessable.at("fhir_patient_id", "fhir_patient_id is required", kind="missing")
    person = await rules.lock(unit, user_id)
    rules.check_may_administer(unit, actor, user_id, person.level)
    if person.level.is_external:
        raise ExternalAccountNotLinked
    if not is_fhir_id(patient_id):
        raise PatientNotFound
    patient = PatientId(patient_id)
    await patients.check_takes_entries(unit, patient)
    await identity.link_patient(unit, actor, user_id, patient)
    return patient


async def unlink_patient(unit: Unit, actor: Actor, user_id: UserId) -> None:
    """Untie an account from its patient record: from the next request on it is a stranger there. Twice is once.

    Raises:
        UserNotFound: 404.
        SuperadminMissing: 403, an admin wants to unlink an admin's account.
    """
    person = await rules.lock(unit, user_id)
    rules.check_may_administer(unit, actor, user_id, person.level)
    if person.patient_id is not None:
        await identity.link_patient(unit, actor, user_id, None)
