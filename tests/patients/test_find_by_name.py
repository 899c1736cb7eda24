"""Searching by parts of names: whoever is found, whatever was typed and however it is looked up."""

import functools
import random
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import pytest
import sqlalchemy as sa
from sqlalchemy.dialects import sqlite

from quill.actor import Actor
from quill.identity import service as identity
from quill.kit.ids import OrganisationId, UserId, new_uuid
from quill.kit.text import fold
from quill.patients import contact, filling, listing
from quill.patients.listing import ListRequest
from quill.patients.naming import needle, searchable
from quill.patients.queries import Way, lists
from quill.patients.reprojecting import reproject
from quill.ports.fhir import FhirStore
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.patients.helpers import NHS_NUMBER, NHS_SYSTEM, on_sqlite, rows

SYLLABLES = [
    "an",
    "na",
    "ma",
    "ri",
    "o'",
    "ö",
    "łu",
    "ß",
    "ng",
    "-",
    "zz",
    "Æ",
    "ив",
    "ан",
    "王",
    "小",
    "𞤀𞤣",
    "𐐷",
    "x",
    "1",
]
ODD = [
    "Null",
    'O"R',
    "NEAR",
    "AND",
    "a_b",
    "100%",
    "back\\slash",
    "col:umn",
    "^a",
    "*",
    "a*",
    "(b",
    "née",
    "I\N{COMBINING DOT ABOVE}\N{LATIN SMALL LETTER DOTLESS I}",
    "_a_",
]


@pytest.fixture(params=["a large circle", "so many hits", "more hits than are sorted out", "everybody"])
def large(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> dict[str, str]:
    """Have everybody's circle be large, and in turn hits be many."""
    monkeypatch.setattr(listing, "LARGE_CIRCLE", 0)
    if request.param == "so many hits":
        monkeypatch.setattr(lists, "FEW", 1)
    if request.param == "more hits than are sorted out":
        monkeypatch.setattr(lists, "TIMES_A_PAGE", 1)
    return {"scope": "admin"} if request.param == "everybody" else {}


@pytest.fixture
def large_circles(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(listing, "LARGE_CIRCLE", 0)


@pytest.fixture
def here(clinic: Clinic) -> int:
    return clinic.organisation()


def add(clinic: Clinic, organisation: int, names: dict[str, list[str]]) -> None:
    """Add patients by id with so many names each."""
    documents = [
        {"resourceType": "Patient", "id": patient_id, "name": [{"text": name} for name in their]}
        for patient_id, their in names.items()
    ]

    async def work(unit: Unit) -> None:
        await filling.add_many(unit, Actor.job("test"), documents, organisation_id=OrganisationId(organisation))

    clinic.in_unit(work)


def found_by(person: Person, scope: dict[str, str] | None = None, **query: str) -> list[str]:
    answer = person.get("/api/patients", params=(scope or {}) | query)
    assert answer.status_code == 200, answer.text
    body = answer.json()
    assert body["total"] in {len(body["patients"]), None}
    return [patient["id"] for patient in body["patients"]]


def invent(dice: random.Random) -> str:
    return " ".join("".join(dice.choices(SYLLABLES, k=dice.randint(1, 4))) for _ in range(dice.randint(1, 3)))


def pieces(dice: random.Random, names: list[str]) -> list[str]:
    """Return parts of one to five characters of some names, and others that are probably none."""
    chosen = [dice.choice(names) for _ in range(40)]
    starts = [dice.randrange(len(name)) for name in chosen]
    parts = [name[start : start + dice.randint(1, 5)] for name, start in zip(chosen, starts, strict=True)]
    return [part for part in parts if part.strip()] + [invent(dice)[:4] for _ in range(10)]


def test_as_many_are_found_as_when_every_name_is_looked_at(clinic: Clinic, here: int, large: dict[str, str]) -> None:
    dice = random.Random(4)  # noqa: S311 - names are no secrets
    names = {new_uuid(): [invent(dice) for _ in range(dice.randint(1, 2))] for _ in range(60)}
    names |= {new_uuid(): [odd] for odd in ODD}
    strangers = {new_uuid(): list(their) for their in list(names.values())[:20]}
    add(clinic, here, names)
    add(clinic, clinic.organisation("Hilltop"), strangers)
    everybody = bool(large)
    person = clinic.admin() if everybody else clinic.clinician(here)
    seen = names | strangers if everybody else names
    folded = {patient_id: [fold(name) for name in their] for patient_id, their in seen.items()}
    typed = [*pieces(dice, [name for their in names.values() for name in their]), *ODD, "a " * 100, "an " * 80]
    for text in typed:
        words = fold(text).split()
        expected = {
            patient_id
            for patient_id, their in folded.items()
            if words and all(any(word in name for name in their) for word in words)
        }
        for parameter in ("name", "search"):
            assert set(found_by(person, large, **{parameter: text})) == expected, (text, parameter)


def test_pages_of_a_search_hold_everybody_once(clinic: Clinic, here: int, large: dict[str, str]) -> None:
    names = {new_uuid(): [f"Anna{'abcdefg'[number % 7]} {number}"] for number in range(9)}
    add(clinic, here, names)
    person = clinic.admin() if large else clinic.clinician(here)
    for word in ("anna", "an"):
        whole = found_by(person, large, search=word)
        seen: list[str] = []
        cursor: str | None = ""
        while cursor is not None:
            query = large | {"limit": "2", "search": word} | ({"cursor": cursor} if cursor else {})
            page = person.get("/api/patients", params=query).json()
            seen, cursor = seen + [patient["id"] for patient in page["patients"]], page["next_cursor"]
        assert len(whole) == 9
        assert seen == whole


@pytest.mark.usefixtures("large_circles")
def test_identifier_and_name_are_found_together_and_nobody_twice(clinic: Clinic, here: int) -> None:
    numbers = [{"system": NHS_SYSTEM, "value": NHS_NUMBER}, {"value": "ash"}]
    both = clinic.patient(here, name=[{"family": "Ash"}], identifier=numbers)
    by_number = clinic.patient(here, name=[{"family": "Birch"}], identifier=[{"value": "ASH"}])
    by_name = clinic.patient(here, name=[{"family": "Cash"}], birthDate="1999")
    clinic.patient(clinic.organisation("Hilltop"), name=[{"family": "Ash"}], identifier=[{"value": "ash"}])
    gp = clinic.clinician(here)
    assert found_by(gp, search="ash") == [both, by_number, by_name]
    assert found_by(gp, search="as") == [both, by_name]
    assert found_by(gp, search="ash", name="ash") == [both, by_name]
    assert found_by(gp, search="ash", name="bir") == [by_number]
    assert found_by(gp, search="ash", identifier=f"{NHS_SYSTEM}|{NHS_NUMBER}") == [both]
    assert found_by(gp, search="ash", birth_date="1999") == [by_name]
    assert found_by(gp, search=NHS_NUMBER) == [both]
    assert gp.get("/api/patients?search=ash&limit=1").json()["total"] == 3


@pytest.mark.usefixtures("large_circles")
def test_former_name_is_not_found_once_it_is_gone(clinic: Clinic, here: int) -> None:
    gp = clinic.clinician(here)
    patient_id = clinic.patient(here, name=[{"family": "Ash"}])
    other = clinic.patient(here, name=[{"family": "Ashton"}])
    answer = gp.patch(f"/api/patients/{patient_id}", {"family_name": "Oak"})
    assert answer.status_code == 200, answer.text
    assert found_by(gp, search="ash") == [other]
    assert found_by(gp, search="as") == [other]
    assert found_by(gp, search="oak") == found_by(gp, search="k") == [patient_id]


@pytest.mark.usefixtures("large_circles")
def test_deactivated_is_not_found_and_found_again_later(clinic: Clinic, here: int) -> None:
    gp, admin = clinic.clinician(here), clinic.admin()
    patient_id = clinic.patient(here, name=[{"family": "Ash"}])
    for verb, expected in (("deactivate", []), ("activate", [patient_id])):
        assert admin.post(f"/api/patients/{patient_id}/{verb}").status_code == 200
        assert found_by(gp, search="ash") == found_by(gp, search="as") == expected
        assert found_by(admin, {"scope": "admin", "include_inactive": "true"}, name="ash") == [patient_id]


@pytest.mark.usefixtures("large_circles")
def test_list_made_anew_finds_by_the_names_there_are_now(clinic: Clinic, here: int) -> None:
    gp = clinic.clinician(here)
    patient_id = clinic.patient(here, name=[{"family": "Ash"}])

    async def spoil(unit: Unit) -> None:
        wrong = {"text": searchable(["Birch"]), "of": patient_id}
        await unit.session.execute(
            sa.text("UPDATE patient_index SET search_text = :text, version = 0 WHERE patient_id = :of"), wrong
        )

    @asynccontextmanager
    async def embedded() -> AsyncIterator[FhirStore]:
        async with clinic.services.database.reading() as session:
            yield clinic.services.fhir_for(session)

    clinic.in_unit(spoil)
    assert found_by(gp, search="birch") == [patient_id]
    assert clinic.run(reproject, clinic.services, embedded) == 1
    assert found_by(gp, search="birch") == found_by(gp, search="bi") == []
    assert found_by(gp, search="ash") == found_by(gp, search="sh") == [patient_id]


@pytest.mark.usefixtures("large_circles")
def test_total_is_told_as_far_as_it_is_counted(clinic: Clinic, here: int, monkeypatch: pytest.MonkeyPatch) -> None:
    add(clinic, here, {new_uuid(): ["Ash"] for _ in range(4)})
    gp = clinic.clinician(here)
    totals = []
    for most in (3, 4):
        monkeypatch.setattr(lists, "MOST_COUNTED", most)
        totals += [gp.get(f"/api/patients?limit=2&{query}").json()["total"] for query in ("search=ash", "name=a")]
    monkeypatch.setattr(lists, "FEW", 3)
    totals += [gp.get(f"/api/patients?limit=2&name={word}").json()["total"] for word in ("ash", "a")]
    assert totals == [None, None, 4, 4, 4, None]
    assert gp.get("/api/patients?limit=4&name=a").json()["total"] == 4
    assert gp.get("/api/patients?limit=2&birth_date=1980").json()["total"] == 0


@pytest.mark.usefixtures("large_circles")
def test_search_sends_no_more_selects_than_the_list(clinic: Clinic, here: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(contact, "GOOD_SECONDS", 0.0)
    add(clinic, here, {new_uuid(): ["Ash"] for _ in range(4)})
    gp = clinic.clinician(here)
    sent = [clinic.selects(functools.partial(gp.get, f"/api/patients?limit=1&search={word}")) for word in ("ash", "a")]
    # Who asks, how the store is, how large the circle is, the page, the total; of a letter, how common it is.
    assert sent == [5, 6]


@pytest.mark.parametrize(("word", "looked_for"), [("ash", "ash"), ("as", "_as_"), ("𐐷", "_𐐷_")])
def test_short_words_are_looked_for_between_underscores(word: str, looked_for: str) -> None:
    assert needle(word) == looked_for
    assert looked_for in searchable(["Ash", f"x{word}y"])
    assert looked_for not in searchable(["A S H"])


def test_nobody_without_a_name_is_found_by_one() -> None:
    assert searchable([]) == searchable(["!"]).strip() == ""


@on_sqlite
@pytest.mark.usefixtures("large_circles")
def test_numbers_that_sqlite_gives_anew_confuse_nobody(clinic: Clinic, here: int) -> None:
    first, second = (clinic.patient(here, name=[{"family": name}]) for name in ("Ash", "Birch"))

    async def vacuum() -> None:
        async with clinic.services.database.writing() as session:
            await session.execute(sa.text("DELETE FROM patient_identifier WHERE patient_id = :of"), {"of": first})
            await session.execute(sa.text("DELETE FROM patient_index WHERE patient_id = :of"), {"of": first})
        async with clinic.services.database.reading() as session:
            await session.execute(sa.text("VACUUM"))

    clinic.run(vacuum)
    gp = clinic.clinician(here)
    assert (found_by(gp, name="birch"), found_by(gp, name="ash")) == ([second], [])
    assert rows(clinic, "SELECT rowid FROM patient_name_search WHERE names MATCH '\"ash\"'") == []


@on_sqlite
@pytest.mark.parametrize("scope", [lists.everybody, lists.related_one_by_one])
def test_names_are_looked_up_and_no_table_is_walked(clinic: Clinic, here: int, scope: lists.Scope) -> None:
    person = clinic.clinician(here)

    async def plans(request: ListRequest) -> list[str]:
        async with clinic.services.database.reading() as session:
            actor = await identity.find_actor(session, clinic.services.settings, UserId(person.id))
            assert actor is not None
            filters = listing._filters(actor, request)
            assert filters is not None
            assert await lists.way_to(session, scope, filters) is Way.BY_NAME
            shape = lists._Shape.of(actor, scope, filters, "full text")
            values = lists._values(actor, filters) | {"most": 51, "after_name": "a", "after_id": "a"}
            connection, found = await session.connection(), []
            for statement in (
                lists._page(shape, is_continued=False),
                lists._page(shape, is_continued=True),
                lists._count(shape),
            ):
                compiled = statement.params(**values).compile(
                    dialect=sqlite.dialect(), compile_kwargs={"render_postcompile": True}
                )
                given = tuple(compiled.params[name] for name in compiled.positiontup or ())
                plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {compiled}", given)
                found += [row.detail for row in plan]
            return found

    for request in (ListRequest(name="ash"), ListRequest(search="ash o"), ListRequest(search="a")):
        plan = clinic.run(plans, request)
        # A full-text table is always said to be scanned; what follows the colon is by what.
        scans = [line for line in plan if line.startswith("SCAN ") and "VIRTUAL TABLE INDEX 0:M" not in line]
        assert [line for line in scans if "patient_" in line] == []
        assert any(line.startswith("SCAN patient_name_search VIRTUAL TABLE INDEX 0:M") for line in plan)
        assert any("SEARCH patient_index USING INDEX" in line and "(patient_id=?)" in line for line in plan)
