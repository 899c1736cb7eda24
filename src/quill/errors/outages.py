"""When a part of the house does not answer, or answers wrongly: 503 and 502."""

from quill.errors.kinds import Unavailable


class FhirUnavailable(Unavailable):
    """The FHIR store is unreachable, too slow, or known to be down."""

    code, sentence = "fhir_unavailable", "The patient record store is not available right now"


class OpenEhrUnavailable(Unavailable):
    """The openEHR store is unreachable, too slow, or known to be down."""

    code, sentence = "openehr_unavailable", "The letter store is not available right now"


class RecordsMoving(Unavailable):
    """Clinical records are being moved to another store, or have been, and this process still runs on the old one."""

    code, sentence = "records_moving", "Records are being moved to another store; try again in a few minutes"


class DatabaseUnavailable(Unavailable):
    """The application database does not answer."""

    code, sentence = "database_unavailable", "The database is not available right now"


class AuditUnavailable(Unavailable):
    """The audit row could not be written, so the act was not done."""

    code, sentence = "audit_unavailable", "The audit trail is not available right now"


class ServerStopping(Unavailable):
    """This process was told to stop and finishes what it has; another one is to be asked."""

    code, sentence = "stopping", "This server is about to stop; ask another one"


class Overloaded(Unavailable):
    """Too much of this work is waiting already."""

    code, sentence = "overloaded", "The server is busy; try again shortly"


class ClinicalServicesDisabled(Unavailable):
    """This deployment runs without clinical services."""

    code, sentence = "clinical_services_disabled", "Clinical services are not available in this deployment"
    default_retry_after_seconds = None


class FhirRefused(Unavailable):
    """The FHIR store gave a wrong answer."""

    status, code, title = 502, "fhir_refused", "Bad gateway"
    sentence = "Failed to create message in clinical store"
    default_retry_after_seconds = None


class OpenEhrRefused(Unavailable):
    """The openEHR store gave a wrong answer."""

    status, code, title = 502, "openehr_refused", "Bad gateway"
    sentence = "The letter store gave an unexpected answer"
    default_retry_after_seconds = None


class SecondFactorUnreadable(Unavailable):
    """A TOTP secret was sealed under a key the program no longer has; an admin must reset the second factor."""

    code, sentence = (
        "second_factor_unreadable",
        "Your second factor cannot be checked; ask an administrator to reset it",
    )
