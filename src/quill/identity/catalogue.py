"""The catalogues of rights: roles, competencies, professions, organisation types and features.

A competency is a kind of act; a profession is a set of competencies. What somebody may do is the profession's set plus
the competencies added to the person, minus those removed; removal wins. Everything written to the database is checked
against these tables, and ``GET /api/cbac/catalogue`` publishes them. Which professions need a registration with a
regulator stands in ``registration``.
"""

from collections.abc import Collection
from dataclasses import dataclass
from typing import Literal

ROLES = (
    "System Administrator",
    "Clinical Administrator",
    "Clinician",
    "Clinical Support Staff",
    "Patient",
    "Patient Advocate",
)
"""Named roles; orthogonal to the permission level."""

CLINICIAN = "Clinician"

ORGANISATION_TYPES = ("hospital_team", "gp_practice", "private_clinic", "department", "teaching_establishment")

FEATURES = ("epr", "teaching", "messaging", "letters")
"""What an organisation's clients may show; features gate no clinical call."""

RiskLevel = Literal["low", "medium", "high"]


@dataclass(frozen=True, slots=True)
class Competency:
    """One kind of act, and how much harm doing it wrongly can do."""

    id: str
    category: str
    risk_level: RiskLevel


COMPETENCIES = {
    competency.id: competency
    for competency in (
        Competency("prescribe_non_controlled", "prescribing", "medium"),
        Competency("prescribe_controlled_schedule_2", "prescribing", "high"),
        Competency("prescribe_controlled_schedule_3_4_5", "prescribing", "medium"),
        Competency("certify_death", "certification", "high"),
        Competency("certify_cremation", "certification", "high"),
        Competency("certify_fitness_to_work", "certification", "low"),
        Competency("certify_fitness_to_drive", "certification", "medium"),
        Competency("perform_venepuncture", "procedures", "low"),
        Competency("perform_cannulation", "procedures", "low"),
        Competency("perform_lumbar_puncture", "procedures", "high"),
        Competency("perform_chest_drain", "procedures", "high"),
        Competency("perform_advanced_airway", "procedures", "high"),
        Competency("discharge_without_review", "patient_management", "high"),
        Competency("admit_patient", "patient_management", "medium"),
        Competency("refer_specialty", "patient_management", "low"),
        Competency("take_informed_consent", "consent", "medium"),
        Competency("assess_mental_capacity", "consent", "high"),
        Competency("apply_deprivation_of_liberty", "consent", "high"),
        Competency("request_plain_xray", "diagnostics", "low"),
        Competency("request_ct_scan", "diagnostics", "medium"),
        Competency("request_mri_scan", "diagnostics", "low"),
        Competency("access_patient_records", "administrative", "low"),
        Competency("modify_patient_records", "administrative", "medium"),
        Competency("access_clinic_admin", "administrative", "low"),
        Competency("approve_clinical_letters", "administrative", "medium"),
        Competency("manage_users", "administrative", "high"),
        Competency("manage_diabetes", "specialty", "medium"),
        Competency("manage_anticoagulation", "specialty", "high"),
        Competency("interpret_ecg", "specialty", "high"),
        Competency("view_teaching_cases", "teaching", "low"),
        Competency("manage_teaching_content", "teaching", "medium"),
        Competency("view_teaching_analytics", "teaching", "low"),
    )
}

ACCESS_PATIENT_RECORDS = "access_patient_records"
MODIFY_PATIENT_RECORDS = "modify_patient_records"
PRESCRIBE_CONTROLLED = "prescribe_controlled_schedule_2"

PROFESSIONS: dict[str, frozenset[str]] = {
    "patient": frozenset(
        {
            "access_patient_records",
        }
    ),
    "foundation_year_1": frozenset(
        {
            "access_patient_records",
            "certify_fitness_to_work",
            "modify_patient_records",
            "perform_cannulation",
            "perform_venepuncture",
            "prescribe_non_controlled",
            "refer_specialty",
            "request_plain_xray",
            "take_informed_consent",
        }
    ),
    "foundation_year_2": frozenset(
        {
            "access_patient_records",
            "admit_patient",
            "certify_death",
            "certify_fitness_to_work",
            "modify_patient_records",
            "perform_cannulation",
            "perform_venepuncture",
            "prescribe_controlled_schedule_3_4_5",
            "prescribe_non_controlled",
            "refer_specialty",
            "request_ct_scan",
            "request_mri_scan",
            "request_plain_xray",
            "take_informed_consent",
        }
    ),
    "specialty_trainee_1_2": frozenset(
        {
            "access_patient_records",
            "admit_patient",
            "assess_mental_capacity",
            "certify_death",
            "certify_fitness_to_drive",
            "certify_fitness_to_work",
            "interpret_ecg",
            "modify_patient_records",
            "perform_cannulation",
            "perform_venepuncture",
            "prescribe_controlled_schedule_3_4_5",
            "prescribe_non_controlled",
            "refer_specialty",
            "request_ct_scan",
            "request_mri_scan",
            "request_plain_xray",
            "take_informed_consent",
        }
    ),
    "specialty_trainee_3_plus": frozenset(
        {
            "access_patient_records",
            "admit_patient",
            "approve_clinical_letters",
            "assess_mental_capacity",
            "certify_death",
            "certify_fitness_to_drive",
            "certify_fitness_to_work",
            "discharge_without_review",
            "interpret_ecg",
            "manage_anticoagulation",
            "manage_diabetes",
            "modify_patient_records",
            "perform_cannulation",
            "perform_lumbar_puncture",
            "perform_venepuncture",
            "prescribe_controlled_schedule_2",
            "prescribe_controlled_schedule_3_4_5",
            "prescribe_non_controlled",
            "refer_specialty",
            "request_ct_scan",
            "request_mri_scan",
            "request_plain_xray",
            "take_informed_consent",
        }
    ),
    "consultant": frozenset(
        {
            "access_patient_records",
            "admit_patient",
            "apply_deprivation_of_liberty",
            "approve_clinical_letters",
            "assess_mental_capacity",
            "certify_cremation",
            "certify_death",
            "certify_fitness_to_drive",
            "certify_fitness_to_work",
            "discharge_without_review",
            "interpret_ecg",
            "manage_anticoagulation",
            "manage_diabetes",
            "modify_patient_records",
            "perform_advanced_airway",
            "perform_cannulation",
            "perform_chest_drain",
            "perform_lumbar_puncture",
            "perform_venepuncture",
            "prescribe_controlled_schedule_2",
            "prescribe_controlled_schedule_3_4_5",
            "prescribe_non_controlled",
            "refer_specialty",
            "request_ct_scan",
            "request_mri_scan",
            "request_plain_xray",
            "take_informed_consent",
        }
    ),
    "general_practitioner": frozenset(
        {
            "access_patient_records",
            "approve_clinical_letters",
            "assess_mental_capacity",
            "certify_death",
            "certify_fitness_to_drive",
            "certify_fitness_to_work",
            "interpret_ecg",
            "modify_patient_records",
            "perform_cannulation",
            "perform_venepuncture",
            "prescribe_controlled_schedule_2",
            "prescribe_controlled_schedule_3_4_5",
            "prescribe_non_controlled",
            "refer_specialty",
            "request_ct_scan",
            "request_mri_scan",
            "request_plain_xray",
            "take_informed_consent",
        }
    ),
    "registered_nurse": frozenset(
        {
            "access_patient_records",
            "certify_fitness_to_work",
            "modify_patient_records",
            "perform_cannulation",
            "perform_venepuncture",
            "refer_specialty",
            "take_informed_consent",
        }
    ),
    "advanced_nurse_practitioner": frozenset(
        {
            "access_patient_records",
            "approve_clinical_letters",
            "assess_mental_capacity",
            "certify_fitness_to_work",
            "modify_patient_records",
            "perform_cannulation",
            "perform_venepuncture",
            "prescribe_controlled_schedule_3_4_5",
            "prescribe_non_controlled",
            "refer_specialty",
            "request_plain_xray",
            "take_informed_consent",
        }
    ),
    "healthcare_assistant": frozenset(
        {
            "access_patient_records",
            "perform_venepuncture",
        }
    ),
    "pharmacist": frozenset(
        {
            "access_patient_records",
            "certify_fitness_to_work",
            "modify_patient_records",
            "prescribe_controlled_schedule_3_4_5",
            "prescribe_non_controlled",
        }
    ),
    "pharmacy_technician": frozenset(
        {
            "access_patient_records",
        }
    ),
    "physiotherapist": frozenset(
        {
            "access_patient_records",
            "certify_fitness_to_work",
            "modify_patient_records",
            "refer_specialty",
            "request_plain_xray",
            "take_informed_consent",
        }
    ),
    "occupational_therapist": frozenset(
        {
            "access_patient_records",
            "modify_patient_records",
            "refer_specialty",
            "take_informed_consent",
        }
    ),
    "paramedic": frozenset(
        {
            "access_patient_records",
            "certify_fitness_to_work",
            "modify_patient_records",
            "perform_cannulation",
            "perform_venepuncture",
            "prescribe_non_controlled",
            "refer_specialty",
            "take_informed_consent",
        }
    ),
    "medical_secretary": frozenset(
        {
            "access_clinic_admin",
            "access_patient_records",
        }
    ),
    "receptionist": frozenset(
        {
            "access_clinic_admin",
        }
    ),
    "clinic_manager": frozenset(
        {
            "access_clinic_admin",
            "access_patient_records",
            "manage_users",
        }
    ),
    "system_administrator": frozenset(
        {
            "access_clinic_admin",
            "access_patient_records",
            "manage_users",
        }
    ),
    "learner": frozenset(
        {
            "view_teaching_cases",
        }
    ),
    "educator": frozenset(
        {
            "manage_teaching_content",
            "view_teaching_analytics",
            "view_teaching_cases",
        }
    ),
}


NOT_CLINICAL = frozenset(
    competency.id for competency in COMPETENCIES.values() if competency.category in {"administrative", "teaching"}
)
"""Competencies that may be granted by hand to somebody whose profession does not count for lack of a registration."""


def resolve(
    profession: str, additional: Collection[str], removed: Collection[str], *, is_registered: bool = True
) -> frozenset[str]:
    """Return the competencies somebody holds: the profession's and the additional ones, minus the removed ones.

    Args:
        profession: of the catalogue.
        additional: granted by hand.
        removed: taken away by hand; wins.
        is_registered: whether the profession counts. Without the registration it needs, nothing of it is held, and of
            the additional ones only those that are not clinical.
    """
    if is_registered:
        return (PROFESSIONS.get(profession, frozenset()) | frozenset(additional)) - frozenset(removed)
    return (frozenset(additional) & NOT_CLINICAL) - frozenset(removed)
