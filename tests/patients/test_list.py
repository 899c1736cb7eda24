"""The patient list: who sees whom, searching, paging."""

from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from quill.actor import Level
from quill.identity.models import ExternalAccess
from quill.kit import clock
from quill.kit.text import fold
from quill.patients import contact, listing, queries
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, acts, detail


def ids_of(answer: Any) -> list[str]:
    assert answer.status_code == 200, answer.text
    return [patient["id"] for patient in answer.json()["patients"]]


def named(family: str, *given: str) -> dict[str, Any]:
    return {"name": [{"use": "official", "family": family, "given": list(given) or ["Pat"]}]}


def grant(clinic: Clinic, person: Person, patient_id: str, *, revoked: bool = False) -> None:
    async def work(unit: Unit) -> None:
        now = clock.now()
        unit.session.add(
            ExternalAccess(
                user_id=person.id, patient_id=patient_id, granted_at=now, revoked_at=now if revoked else None
            )
        )

    clinic.in_unit(work)


def test_everybody_sees_the_patients_of_their_own_circle(clinic: Clinic) -> None:
    """Gap: a patient user normally gets an empty list, even with a linked record."""
    here, there = clinic.organisation(), clinic.organisation("Hilltop")
    ours, theirs = clinic.patient(here), clinic.patient(there)
    both = clinic.patient(here, there)
    external = clinic.person(level=Level.EXTERNAL_HCP)
    grant(clinic, external, theirs)
    grant(clinic, external, ours, revoked=True)
    own = clinic.person(level=Level.PATIENT, profession="patient", patient_id=theirs)
    admin = clinic.admin()
    assert set(ids_of(clinic.clinician(here).get("/api/patients"))) == {ours, both}
    assert set(ids_of(clinic.clinician(here, there).get("/api/patients"))) == {ours, theirs, both}
    assert ids_of(clinic.clinician().get("/api/patients")) == []
    assert ids_of(external.get("/api/patients")) == [theirs]
    assert ids_of(own.get("/api/patients")) == [theirs]
    assert ids_of(admin.get("/api/patients")) == []
    assert set(ids_of(admin.get("/api/patients?scope=admin"))) == {ours, theirs, both}
    assert set(ids_of(clinic.clinician(here).get("/api/patients?scope=admin"))) == {ours, both}


def test_large_circle_is_the_same_circle(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there = clinic.organisation(), clinic.organisation("Hilltop")
    ours = [clinic.patient(here, **named(name)) for name in ("Ash", "Birch", "Cedar")]
    granted, _ = clinic.patient(there), clinic.patient(there)
    gp = clinic.clinician(here, patient_id=clinic.patient(there, **named("Zed")))
    grant(clinic, gp, granted)
    expected = gp.get("/api/patients")
    monkeypatch.setattr(listing, "LARGE_CIRCLE", 2)
    assert ids_of(gp.get("/api/patients")) == ids_of(expected)
    assert set(ours) < set(ids_of(expected))
    assert gp.get("/api/patients?limit=2").json()["total"] is None
    assert gp.get("/api/patients?limit=2&birth_date=1980").json()["total"] == 5


def test_circle_of_many_among_few_is_the_same_circle(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    here, there, elsewhere = clinic.organisation(), clinic.organisation("Hilltop"), clinic.organisation("Far")
    for name in ("Ash", "Birch", "Cedar", "Ashby"):
        clinic.patient(here, **named(name))
    clinic.patient(here, there, **named("Both"))
    clinic.patient(elsewhere, **named("Ashen"))
    gp = clinic.clinician(here, there, patient_id=clinic.patient(elsewhere, **named("Zed")))
    grant(clinic, gp, clinic.patient(elsewhere, **named("Ashton")))
    clinic.admin().post(f"/api/patients/{clinic.patient(here)}/deactivate")
    clinic.in_unit(_look_at_tables)
    scopes = _scopes_of_pages(monkeypatch)

    def lists() -> list[dict[str, Any]]:
        narrowed = ("", "&search=ash", "&name=ash", "&name=b", "&birth_date=1980", "&identifier=none")
        found = [gp.get(f"/api/patients?limit=2{more}").json() for more in narrowed]
        found.append(gp.get(f"/api/patients?limit=3&cursor={found[0]['next_cursor']}").json())
        return [one | {"as_of": None} for one in found]

    walked = lists()
    assert set(scopes) == {queries.related_one_by_one}
    scopes.clear()
    monkeypatch.setattr(listing, "DENSE", 0)
    assert lists() == walked
    assert set(scopes) == {queries.related_gathered}
    assert [found["total"] for found in walked] == [7, 3, 3, 3, 7, 0, None]


async def _look_at_tables(unit: Unit) -> None:
    # PostgreSQL does so by itself now and then.
    await unit.session.execute(sa.text("ANALYZE"))


def _scopes_of_pages(monkeypatch: pytest.MonkeyPatch) -> list[queries.Scope]:
    """Return a list that grows with the scope of each page."""
    page, scopes = queries.page, list[queries.Scope]()

    async def noted(*args: Any) -> Any:
        scopes.append(args[2])
        return await page(*args)

    monkeypatch.setattr(queries, "page", noted)
    return scopes


def test_without_the_competency_it_is_403_and_never_an_empty_list(clinic: Clinic, client: TestClient) -> None:
    here = clinic.organisation()
    clinic.patient(here)
    receptionist = clinic.person(profession="receptionist", organisations=[here])
    assert detail(receptionist.get("/api/patients"))[0] == 403
    assert detail(client.get("/api/patients")) == (401, "Not authenticated")
    assert ("access:check", "refused") in acts(clinic)


def test_deactivated_records_are_shown_to_admins_who_ask(clinic: Clinic) -> None:
    here = clinic.organisation()
    active, inactive = clinic.patient(here), clinic.patient(here)
    admin, gp = clinic.admin(), clinic.clinician(here)
    admin.post(f"/api/patients/{inactive}/deactivate")
    assert ids_of(gp.get("/api/patients")) == [active]
    assert ids_of(gp.get("/api/patients?include_inactive=true")) == [active]
    assert ids_of(admin.get("/api/patients?scope=admin")) == [active]
    listed = admin.get("/api/patients?scope=admin&include_inactive=true").json()["patients"]
    assert {patient["id"]: patient["is_active"] for patient in listed} == {active: True, inactive: False}


def test_rows_are_the_whole_resource_with_is_active(clinic: Clinic) -> None:
    here = clinic.organisation()
    patient_id = clinic.patient(here, x_unknown={"kept": 1}, is_active="not ours")
    gp = clinic.clinician(here)
    answer = gp.get("/api/patients")
    [row] = answer.json()["patients"]
    assert answer.text.count('"is_active"') == 1
    assert row.pop("is_active") is True
    whole = gp.get(f"/api/patients/{patient_id}").json()
    assert whole.pop("is_active") == "not ours"
    assert row == whole


def test_pages_hold_everybody_once_in_order_of_name(clinic: Clinic) -> None:
    """Gap: the whole patient population is fetched on every call, no paging or search."""
    here = clinic.organisation()
    names = [("ash", "b"), ("Birch", "a"), ("Ash", "A"), ("Öz", "x"), ("birch", "a")]
    for family, given in names:
        clinic.patient(here, **named(family, given))
    gp = clinic.clinician(here)
    first = gp.get("/api/patients?limit=2").json()
    assert first["total"] == 5
    seen, cursor = list(first["patients"]), first["next_cursor"]
    while cursor:
        page = gp.get(f"/api/patients?limit=2&cursor={cursor}").json()
        assert page["total"] is None
        seen, cursor = seen + page["patients"], page["next_cursor"]
    assert [patient["name"][0]["family"].casefold() for patient in seen] == ["ash", "ash", "birch", "birch", "öz"]
    assert len({patient["id"] for patient in seen}) == 5
    assert seen == gp.get("/api/patients").json()["patients"]


@pytest.mark.parametrize(
    ("query", "families"),
    [
        ("search=neil", ["O'Neill"]),
        ("search=oneill", ["O'Neill"]),
        ("search=siân o'ne", ["O'Neill"]),
        ("search=999 052 7113", ["Müller"]),
        ("search=mrn 1", ["Müller"]),
        ("search=%25", []),
        ("search=!!", []),
        ("search=", ["Müller", "O'Neill"]),
        ("name=muller", ["Müller"]),
        ("name=ler jan", ["Müller"]),
        ("name=ler sian", []),
        ("name=9990527113", []),
        ("name=_", []),
        ("name=n mull", ["Müller"]),
        ("identifier=9990527113", ["Müller"]),
        ("identifier=https://fhir.nhs.uk/Id/nhs-number|999 052 7113", ["Müller"]),
        ("identifier=urn:other|9990527113", []),
        ("identifier=999052", []),
        ("identifier=|", []),
        ("birth_date=1980-02-29", ["Müller"]),
        ("birth_date=1980-02", ["Müller"]),
        ("birth_date=1980", ["Müller", "O'Neill"]),
        ("birth_date=1981", []),
        ("birth_date=1980&name=sian", ["O'Neill"]),
    ],
)
def test_search_finds(clinic: Clinic, query: str, families: list[str]) -> None:
    here = clinic.organisation()
    numbers = [{"system": NHS_SYSTEM, "value": NHS_NUMBER}, {"value": "MRN-1"}]
    clinic.patient(here, **named("Müller", "Jan"), birthDate="1980-02-29", identifier=numbers)
    clinic.patient(here, **named("O'Neill", "Siân"), birthDate="1980")
    answer = clinic.clinician(here).get(f"/api/patients?{query}")
    assert answer.status_code == 200
    assert [patient["name"][0]["family"] for patient in answer.json()["patients"]] == families


def test_search_does_not_run_on_from_one_name_into_the_next(clinic: Clinic) -> None:
    here = clinic.organisation()
    clinic.patient(here, name=[{"family": "Ash"}, {"use": "old", "family": "Birch"}])
    gp = clinic.clinician(here)
    assert len(ids_of(gp.get("/api/patients?name=birch"))) == 1
    assert ids_of(gp.get("/api/patients?name=hbi")) == []


def test_search_never_leaves_the_circle(clinic: Clinic) -> None:
    clinic.patient(clinic.organisation(), identifier=[{"system": NHS_SYSTEM, "value": NHS_NUMBER}])
    outsider = clinic.clinician(clinic.organisation("Hilltop"))
    for query in (f"search={NHS_NUMBER}", f"identifier={NHS_NUMBER}", "name=jones", "birth_date=1980"):
        answer = outsider.get(f"/api/patients?{query}")
        assert (ids_of(answer), answer.json()["total"]) == ([], 0)


@pytest.mark.parametrize(
    "query",
    [
        "limit=0",
        "limit=1001",
        "limit=x",
        "cursor=%21",
        "cursor=WzFd",
        "birth_date=1980-02-30",
        "include_inactive=perhaps",
        "colour=blue",
        "search=" + "x" * 256,
        "search=%00",
    ],
)
def test_bad_query_is_422(clinic: Clinic, query: str) -> None:
    assert detail(clinic.admin().get(f"/api/patients?{query}"))[0] == 422


def test_each_list_and_search_leaves_one_row_in_the_trail(clinic: Clinic) -> None:
    gp = clinic.clinician(clinic.organisation())
    gp.get("/api/patients")
    gp.get("/api/patients?search=lee")
    assert [act for act, _ in acts(clinic) if act.startswith("patient:")] == ["patient:list", "patient:search"]


def test_selects_do_not_grow_with_patients(clinic: Clinic, monkeypatch: pytest.MonkeyPatch) -> None:
    # Asked each time how the store is; otherwise it is a matter of time which list is the one that asks.
    monkeypatch.setattr(contact, "GOOD_SECONDS", 0.0)
    here = clinic.organisation()
    gp = clinic.clinician(here)
    counts = []
    for _ in range(2):
        clinic.patient(here)
        clinic.patient(here)
        counts.append(clinic.selects(lambda: gp.get("/api/patients?limit=1")))
    # Who asks, how the store is, the page, the total.
    assert counts == [4, 4]


@pytest.mark.parametrize(
    ("family", "typed"),
    [
        ("Łukaszewski", ["lukaszewski", "Łukaszewski", "ŁUKASZ"]),
        ("Ødegård", ["odegard", "ødegård", "ØDEGARD"]),
        ("Đorđević", ["dordevic", "đorđević"]),
        ("Ħamrun", ["hamrun", "ħamrun"]),
        ("Æsøy", ["aesoy", "Æsøy"]),
        ("Œuvrard", ["oeuvrard", "œuvrard"]),
        ("Þórðardóttir", ["thordardottir", "Þórðar"]),
        ("Strauß", ["strauss", "STRAUSS", "strauß"]),
    ],
)
def test_search_knows_letters_that_are_typed_without_their_key(clinic: Clinic, family: str, typed: list[str]) -> None:
    here = clinic.organisation()
    gp = clinic.clinician(here)
    wanted = clinic.patient(here, name=[{"family": family}])
    clinic.patient(here, name=[{"family": "Ash"}])
    plain = clinic.patient(here, name=[{"family": fold(family)}])
    for text in typed:
        for parameter in ("search", "name"):
            assert set(ids_of(gp.get("/api/patients", params={parameter: text}))) == {wanted, plain}, text
