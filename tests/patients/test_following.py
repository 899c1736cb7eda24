"""A patient changed straight in the FHIR server is seen in the list, by whichever process follows."""

import asyncio
import datetime
import itertools
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.errors import FhirUnavailable
from quill.kit import clock
from quill.kit.ids import PatientId
from quill.patients import following, queries
from quill.patients.following import follow
from quill.patients.models import PatientFollowing
from tests.clinic import Clinic, Person
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, acts, remote_fhir, rows
from tests.remote_like import Line

pytestmark = pytest.mark.usefixtures("line")


@pytest.fixture
def line(clinic: Clinic) -> Line:
    return remote_fhir(clinic)


@pytest.fixture
def gp(clinic: Clinic) -> Person:
    return clinic.clinician(clinic.organisation())


def straight(clinic: Clinic, work: Any) -> Any:
    """Do something in the FHIR server, past Quill."""

    async def there() -> Any:
        async with clinic.services.database.writing() as session:
            return await work(EmbeddedFhirStore(session))

    return clinic.run(there)


def write(clinic: Clinic, patient_id: str, family: str, **elements: Any) -> None:
    document = {"resourceType": "Patient", "id": patient_id, "name": [{"family": family}], **elements}
    straight(clinic, lambda store: store.write(document))


def follow_now(clinic: Clinic) -> int:
    count: int = clinic.run(follow, clinic.services)
    return count


def families(person: Person, query: str = "") -> list[str]:
    answer = person.get(f"/api/patients{query}")
    assert answer.status_code == 200
    return [patient["name"][0]["family"] for patient in answer.json()["patients"]]


def test_edit_made_elsewhere_shows_in_list_and_search(clinic: Clinic, gp: Person) -> None:
    patient_id = gp.post("/api/patients", {"given_name": "Ann", "family_name": "Archer"}).json()["id"]
    follow_now(clinic)
    write(clinic, patient_id, "Baker")
    assert families(gp) == ["Archer"]
    assert follow_now(clinic) == 1
    assert families(gp) == ["Baker"]
    assert families(gp, "?search=baker") == ["Baker"]
    assert families(gp, "?search=archer") == []
    assert ("patient:follow", "allowed") in acts(clinic, patient_id)
    assert follow_now(clinic) == 0


def test_patient_made_elsewhere_is_everybodys_business_only_once_somebody_says_whose(
    clinic: Clinic, gp: Person
) -> None:
    write(clinic, "made-there", "Carter")
    follow_now(clinic)
    assert families(gp) == []
    assert families(clinic.admin(), "?scope=admin") == ["Carter"]


def test_patient_deleted_elsewhere_leaves_the_lists(clinic: Clinic, gp: Person) -> None:
    patient_id = gp.post("/api/patients", {"given_name": "Ann", "family_name": "Archer"}).json()["id"]
    straight(clinic, lambda store: store.delete("Patient", patient_id))
    assert follow_now(clinic) == 1
    assert families(gp) == []
    assert gp.get(f"/api/patients/{patient_id}/demographics").status_code == 404


def test_many_changes_are_followed_page_by_page(clinic: Clinic, line: Line, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(following, "PAGE", 2)
    for number in range(5):
        write(clinic, f"p{number}", f"Family{number}")
    assert follow_now(clinic) == 5
    assert line.count("changes") >= 3


def test_store_that_is_away_loses_no_change(clinic: Clinic, line: Line) -> None:
    write(clinic, "p", "Before")
    line.cut(FhirUnavailable)
    with pytest.raises(FhirUnavailable):
        follow_now(clinic)
    line.mend()
    # Whoever was at it has ended badly; its lease runs out first.
    clinic.run(_forget_lease, clinic)
    assert follow_now(clinic) == 1


def test_one_process_follows_at_a_time(clinic: Clinic) -> None:
    write(clinic, "p", "Once")

    async def both() -> list[int]:
        return list(await asyncio.gather(follow(clinic.services), follow(clinic.services)))

    assert sorted(clinic.run(both)) == [0, 1]
    assert rows(clinic, "SELECT count(*) FROM audit_event WHERE act = 'patient:follow'") == [(1,)]


def test_record_nobody_checked_keeps_nobody_else_out(clinic: Clinic) -> None:
    """Two live records with one NHS number cannot be made here, but another program may make them."""
    numbered = [{"system": NHS_SYSTEM, "value": NHS_NUMBER}]
    write(clinic, "p1", "One", identifier=numbered)
    write(clinic, "p2", "Two", identifier=numbered)
    write(clinic, "p3", "Three")
    follow_now(clinic)
    assert {family for (family,) in rows(clinic, "SELECT display_name FROM patient_index")} >= {"Three"}
    assert rows(clinic, "SELECT count(*) FROM patient_index WHERE nhs_number IS NOT NULL") == [(1,)]


def test_creator_is_kept_when_the_follower_lists_the_record_first(clinic: Clinic, line: Line, gp: Person) -> None:
    async def overtake() -> None:
        await follow(clinic.services)

    line.after_next("write", overtake)
    made = gp.post("/api/patients", {"given_name": "Ann", "family_name": "Archer"})
    assert made.status_code == 200, made.text
    assert families(gp) == ["Archer"]
    assert rows(clinic, "SELECT created_by_user_id FROM patient_index") == [(gp.id,)]


def test_record_the_follower_lists_at_the_same_moment_is_its_creators_all_the_same(
    clinic: Clinic, line: Line, gp: Person, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On PostgreSQL both may find it missing, and then one waits for the other."""
    look = queries.lock_version
    looks = itertools.count()

    async def look_too_early(session: AsyncSession, patient_id: PatientId) -> int | None:
        found = await look(session, patient_id)
        return None if next(looks) == 0 else found

    async def overtake() -> None:
        await follow(clinic.services)
        monkeypatch.setattr(queries, "lock_version", look_too_early)

    line.after_next("write", overtake)
    identified = {"given_name": "Ann", "family_name": "Archer", "nhs_number": NHS_NUMBER, "mrn": "A1"}
    made = gp.post("/api/patients", identified)
    assert made.status_code == 200, made.text
    assert families(gp) == ["Archer"]
    assert rows(clinic, "SELECT created_by_user_id, nhs_number FROM patient_index") == [(gp.id, NHS_NUMBER)]
    assert rows(clinic, "SELECT count(*) FROM patient_identifier") == [(2,)]
    assert next(looks) == 2


async def _forget_lease(clinic: Clinic) -> None:
    async with clinic.services.database.writing() as session:
        long_ago = clock.now() - datetime.timedelta(seconds=1)
        await session.execute(sa.update(PatientFollowing).values(lease_until=long_ago))
