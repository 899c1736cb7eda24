"""Every table, imported for Alembic and for start-up."""

from quill.adapters import home
from quill.adapters.fhir import models as fhir_models
from quill.adapters.openehr import models as openehr_models
from quill.audit import models as audit_models
from quill.auth import models as auth_models
from quill.conversations import models as conversation_models
from quill.external import models as external_models
from quill.identity import models as identity_models
from quill.intents import models as intent_models
from quill.kit.database import Base
from quill.organisations import models as organisation_models
from quill.outbox import models as outbox_models
from quill.patients import models as patient_models
from quill.prescriptions import models as prescription_models
from quill.push import models as push_models

metadata = Base.metadata

MADE_BY_MIGRATIONS = (
    patient_models.NAME_INDEX,
    patient_models.NAME_SEARCH.name,
    patient_models.NAME_NUMBER.name,
)
"""Indexes and tables of one database or the other that no model can say; tables that SQLite adds begin like theirs."""


def is_compared(name: str | None, kind: str, parents: object) -> bool:
    """Tell whether something found in the database should be what the models say."""
    del parents
    return kind not in {"table", "index"} or name is None or not name.startswith(MADE_BY_MIGRATIONS)


__all__ = [
    "MADE_BY_MIGRATIONS",
    "audit_models",
    "auth_models",
    "conversation_models",
    "external_models",
    "fhir_models",
    "home",
    "identity_models",
    "intent_models",
    "is_compared",
    "metadata",
    "openehr_models",
    "organisation_models",
    "outbox_models",
    "patient_models",
    "prescription_models",
    "push_models",
]
