"""What the tests about patients share: a FHIR store that stands by itself, and looks into the database."""

from typing import Any, cast

import pytest
import sqlalchemy as sa

from quill.errors import FhirUnavailable
from quill.identity.models import OrganisationPatientMember
from quill.kit import clock
from quill.patients.models import PatientIndex
from tests.clinic import Clinic
from tests.databases import POSTGRESQL_URL
from tests.remote_like import Line, with_remote_fhir

# Made up in the range kept for tests, 999 000 0000 to 999 999 9999.
NHS_NUMBER = "9990527113"
OTHER_NHS_NUMBER = "9991054227"
NHS_SYSTEM = "https://fhir.nhs.uk/Id/nhs-number"

on_sqlite = pytest.mark.skipif(POSTGRESQL_URL is not None, reason="about SQLite's own; `make test` does it")

INDEX = cast("sa.Table", PatientIndex.__table__)
MEMBER = cast("sa.Table", OrganisationPatientMember.__table__)


def index_row(patient_id: str, name: str) -> dict[str, Any]:
    """Return the row of the list of a patient whom no store has."""
    texts = dict.fromkeys(("display_name", "sort_name", "search_text"), name)
    return {"patient_id": patient_id, "version": 1, "last_updated": clock.now(), "is_active": True} | texts


def member_row(organisation_id: int, patient_id: str) -> dict[str, Any]:
    """Return the row of a membership that is not the primary one."""
    row = {"organisation_id": organisation_id, "patient_id": patient_id}
    return row | {"is_primary": False, "joined_at": clock.now()}


def remote_fhir(clinic: Clinic, *, is_away: bool = False) -> Line:
    """Put a FHIR server of its own behind the port of the running application; returns the line to it."""
    line = Line()
    if is_away:
        line.cut(FhirUnavailable)
    state = clinic.client.app.state  # type: ignore[attr-defined]
    state.services = with_remote_fhir(state.services, line)
    return line


def rows(clinic: Clinic, statement: str, **parameters: Any) -> list[tuple[Any, ...]]:
    """Return what a SELECT finds in the application's database."""

    async def work() -> list[tuple[Any, ...]]:
        async with clinic.services.database.reading() as session:
            return [tuple(row) for row in await session.execute(sa.text(statement), parameters)]

    found: list[tuple[Any, ...]] = clinic.run(work)
    return found


def acts(clinic: Clinic, patient_id: str | None = None) -> list[tuple[str, str]]:
    """Return act and outcome of the audit rows, about one patient if given."""
    found = rows(clinic, "SELECT act, outcome, patient_id FROM audit_event ORDER BY id")
    return [(act, outcome) for act, outcome, about in found if patient_id in {None, about}]


def detail(answer: Any) -> tuple[int, str]:
    """Return status and sentence of a problem document, after looking at its shape."""
    assert answer.headers["content-type"] == "application/problem+json", answer.text
    body = answer.json()
    assert body["status"] == answer.status_code
    return answer.status_code, body["detail"]
