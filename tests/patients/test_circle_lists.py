"""The list of a few organisations, walked in the order kept for each: the same people, order, pages and totals."""

import itertools
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import pytest
import sqlalchemy as sa

from quill.actor import Level
from quill.identity import service as identity
from quill.identity.models import ExternalAccess
from quill.kit import clock
from quill.kit.ids import UserId
from quill.patients import contact, listing
from quill.patients.queries import circle_lists
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.databases import POSTGRESQL_URL
from tests.patients.helpers import INDEX, MEMBER, index_row, member_row, rows

NAMES = [("Ash", "Ada"), ("Ash", "Ada"), ("Ash", "Bo"), ("ash", "bo"), ("Birch", "Cy"), ("Öz", "Di"), ("", "")]
MANY = 3000


@dataclass
class World:
    """Patients in and out of three organisations, and what is true of them.

    Attributes:
        clinic: where.
        places: the organisations.
        cared_for: the patients of each.
        inactive: whose records are deactivated.
    """

    clinic: Clinic
    places: list[int]
    cared_for: dict[int, set[str]]
    inactive: set[str] = field(default_factory=set)

    @property
    def patients(self) -> list[str]:
        """Return everybody's id in the order of the list."""
        return [found for (found,) in rows(self.clinic, "SELECT patient_id FROM patient_index ORDER BY sort_name, 1")]

    def seen(self, *places: int, others: Sequence[str] = (), with_inactive: bool = False) -> list[str]:
        """Return who is listed for somebody who works in some places and is tied to others, in order."""
        ids = set(others).union(*(self.cared_for[place] for place in places))
        return [found for found in self.patients if found in ids - (set() if with_inactive else self.inactive)]

    def grant(self, person: Person, *patients: str, revoked: bool = False) -> None:
        """Let somebody see patients by grants."""

        async def work(unit: Unit) -> None:
            now, ended = clock.now(), clock.now() if revoked else None
            unit.session.add_all(
                ExternalAccess(user_id=person.id, patient_id=patient_id, granted_at=now, revoked_at=ended)
                for patient_id in set(patients)
            )

        self.clinic.in_unit(work)


@pytest.fixture
def world(clinic: Clinic) -> World:
    """Every combination of three organisations, each with two patients, names that are equal among them."""
    places = [clinic.organisation(name) for name in ("Riverside", "Hilltop", "Far")]
    world, names = World(clinic, places, {place: set() for place in places}), itertools.cycle(NAMES)
    for combination in itertools.product((False, True), repeat=3):
        care = [place for place, is_in in zip(places, combination, strict=True) if is_in]
        for _ in range(2):
            family, given = next(names)
            patient_id = clinic.patient(*care, name=[{"family": family, "given": [given]} if family else {"text": "!"}])
            for place in care:
                world.cared_for[place].add(patient_id)
    admin = clinic.admin()
    for patient_id in world.patients[::5]:
        assert admin.post(f"/api/patients/{patient_id}/deactivate").status_code == 200
        world.inactive.add(patient_id)
    return world


def pages(person: Person, limit: int, query: str = "") -> list[dict[str, Any]]:
    """Return every page of a list."""
    found: list[dict[str, Any]] = []
    cursor: str | None = ""
    while cursor is not None:
        answer = person.get(f"/api/patients?limit={limit}{query}" + (f"&cursor={cursor}" if cursor else ""))
        assert answer.status_code == 200, answer.text
        found.append(answer.json() | {"as_of": None})
        cursor = found[-1]["next_cursor"]
    return found


def assert_listed(person: Person, expected: list[str], query: str = "") -> None:
    """Hold the list against who should be there, in pages of several sizes."""
    for limit in (1, 2, 3, len(expected) or 1, 1000):
        found = pages(person, limit, query)
        assert [patient["id"] for page in found for patient in page["patients"]] == expected
        assert [page["total"] for page in found] == [len(expected)] + [None] * (len(found) - 1)
        assert all(len(page["patients"]) == limit for page in found[:-1])


@pytest.fixture(params=["walked", "walked in one organisation", "gathered"])
def way(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> str:
    """Have lists be come by in each way: answers are the same."""
    if request.param != "walked":
        most = 1 if request.param == "walked in one organisation" else -1
        monkeypatch.setattr(circle_lists, "MOST_ORGANISATIONS", most)
    return str(request.param)


@pytest.mark.usefixtures("way")
def test_whoever_somebody_is_tied_to_is_listed_once_in_order(clinic: Clinic, world: World) -> None:
    here, there, far = world.places
    nobodys = world.seen(others=world.patients)[::3]
    assert_listed(clinic.clinician(here), world.seen(here))
    assert_listed(clinic.clinician(here, there), world.seen(here, there))
    assert_listed(clinic.clinician(here, there, far), world.seen(here, there, far))
    assert_listed(clinic.clinician(), [])
    tied = clinic.clinician(here, patient_id=world.seen(there)[0])
    world.grant(tied, *nobodys, *world.inactive)
    assert_listed(tied, world.seen(here, others=[*nobodys, world.seen(there)[0]]))
    in_two = clinic.clinician(here, far, patient_id=world.seen(here)[-1])
    world.grant(in_two, *world.seen(here)[:2], *nobodys[:2])
    world.grant(in_two, *world.seen(there), revoked=True)
    assert_listed(in_two, world.seen(here, far, others=nobodys[:2]))


@pytest.mark.usefixtures("way")
def test_whoever_works_nowhere_has_own_record_and_grants(clinic: Clinic, world: World) -> None:
    active = [found for found in world.patients if found not in world.inactive]
    external = clinic.person(level=Level.EXTERNAL_HCP)
    world.grant(external, active[3], active[1], *world.inactive)
    assert_listed(external, world.seen(others=[active[1], active[3]]))
    own = clinic.person(level=Level.PATIENT, profession="patient", patient_id=active[2])
    assert_listed(own, [active[2]])
    closed = clinic.person(level=Level.PATIENT, profession="patient", patient_id=min(world.inactive))
    assert_listed(closed, [])


@pytest.mark.usefixtures("way")
def test_admins_have_their_circle_everybody_and_the_deactivated(clinic: Clinic, world: World) -> None:
    here = world.places[0]
    admin = clinic.person(level=Level.ADMIN, profession="system_administrator", organisations=[here])
    assert_listed(admin, world.seen(here))
    assert_listed(admin, world.seen(here, with_inactive=True), "&include_inactive=true")
    assert_listed(admin, world.seen(others=world.patients), "&scope=admin")
    assert_listed(admin, world.patients, "&scope=admin&include_inactive=true")
    assert_listed(clinic.clinician(here), world.seen(here), "&scope=admin&include_inactive=true")


def test_answers_are_those_of_the_other_ways(clinic: Clinic, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    person = clinic.clinician(*world.places[:2])
    walked = pages(person, 3)
    monkeypatch.setattr(circle_lists, "MOST_ORGANISATIONS", -1)
    assert pages(person, 3) == walked


def test_changes_show_in_the_next_list(clinic: Clinic, world: World) -> None:
    here, admin = world.places[0], clinic.admin()
    gp = clinic.clinician(here)
    first, second = world.seen(here)[:2]
    assert gp.patch(f"/api/patients/{first}", {"family_name": "Zz"}).status_code == 200
    assert_listed(gp, world.seen(here))
    assert world.seen(here)[-1] == first
    assert admin.post(f"/api/patients/{second}/deactivate").status_code == 200
    world.inactive.add(second)
    assert_listed(gp, world.seen(here))
    assert admin.post(f"/api/patients/{second}/activate").status_code == 200
    world.inactive.discard(second)
    assert admin.delete(f"/api/organizations/{here}/patients/{first}").is_success
    world.cared_for[here].discard(first)
    assert_listed(gp, world.seen(here))
    assert admin.post(f"/api/organizations/{here}/patients", {"patient_id": first}).is_success
    world.cared_for[here].add(first)
    assert_listed(gp, world.seen(here))


def test_total_is_null_beyond_what_is_counted(clinic: Clinic, world: World, monkeypatch: pytest.MonkeyPatch) -> None:
    totals = []
    for places in (world.places[:1], world.places):
        person, size = clinic.clinician(*places), len(world.seen(*places))
        for most in (size - 1, size):
            monkeypatch.setattr(listing, "LARGE_CIRCLE", most)
            totals.append(person.get("/api/patients?limit=1").json()["total"])
        totals[-1] -= size
    assert totals == [None, 0, None, 0]


@pytest.mark.parametrize("number", [0, 1, 3])
def test_first_page_takes_two_selects_and_others_one(
    clinic: Clinic, world: World, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(contact, "GOOD_SECONDS", 0.0)
    person = clinic.clinician(*world.places[:number])
    world.grant(person, *(found for found in world.patients if found not in world.inactive))

    def selects(query: str) -> int:
        return clinic.selects(lambda: person.get(f"/api/patients{query}"))

    cursor = person.get("/api/patients?limit=2").json()["next_cursor"]
    # Who asks and how the store is; the page, and where the list goes on the total.
    assert [selects(query) for query in ("?limit=2", "", f"?limit=2&cursor={cursor}")] == [4, 3, 3]


def fill_two_organisations(clinic: Clinic) -> tuple[int, int]:
    """Make two organisations of many patients, some in both."""
    here, there = clinic.organisation("Here"), clinic.organisation("There")
    dice = random.Random(7)  # noqa: S311 - names are no secrets
    people = [index_row(f"p{number}", f"name {dice.random()}") for number in range(MANY)]
    cared_for = [(here, people[: MANY * 2 // 3]), (there, people[MANY // 3 :])]

    async def work(unit: Unit) -> None:
        await unit.session.execute(sa.insert(INDEX), people)
        await unit.session.execute(sa.text("INSERT INTO patient_document SELECT patient_id, '{}' FROM patient_index"))
        for place, share in cared_for:
            await unit.session.execute(sa.insert(MEMBER), [member_row(place, one["patient_id"]) for one in share])
        await unit.session.execute(sa.text("ANALYZE"))

    clinic.in_unit(work)
    return here, there


@dataclass
class Plan:
    """How the database answers: each step with those above it, outermost first."""

    steps: list[list[str]]

    def above(self, step: str) -> set[str]:
        """Return what is above every place where a step is taken."""
        return {word for path in self.steps if path[-1].startswith(step) for word in path[:-1]}

    def takes(self, step: str) -> bool:
        """Tell whether a step is taken."""
        return any(path[-1].startswith(step) for path in self.steps)


def plan_of(clinic: Clinic, person: Person, statement: Callable[..., sa.Select[Any]], **more: Any) -> Plan:
    """Return how a statement of the list is answered for somebody."""

    async def work() -> Plan:
        async with clinic.services.database.reading() as session:
            actor = await identity.find_actor(session, clinic.services.settings, UserId(person.id))
            assert actor is not None
            shape = circle_lists._Shape.of(session, actor, is_continued="after_name" in more)
            connection = await session.connection()
            compiled = statement(shape).compile(dialect=connection.dialect)
            expanded = compiled.construct_expanded_state(circle_lists._values(actor) | more)
            values = tuple(expanded.positional_parameters or ())
            if POSTGRESQL_URL is None:
                found = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {expanded.statement}", values)
                return Plan(_sqlite_steps(found.all()))
            found = await connection.exec_driver_sql(f"EXPLAIN (FORMAT JSON) {expanded.statement}", values)
            return Plan(_postgresql_steps(found.scalar_one()[0]["Plan"], []))

    plan: Plan = clinic.run(work)
    return plan


def _sqlite_steps(found: Sequence[Any]) -> list[list[str]]:
    # A sort stands beside what it sorts, not above it; the outermost puts the rows of the page with their documents.
    sorts = {row.parent for row in found if "TEMP B-TREE" in row.detail} - {0}
    paths: dict[int, list[str]] = {0: []}
    for row in found:
        above = [*paths[row.parent], "SORT"] if row.parent in sorts else paths[row.parent]
        paths[row.id] = [*above, row.detail]
    return [paths[row.id] for row in found if "TEMP B-TREE" not in row.detail]


def _postgresql_steps(node: dict[str, Any], above: list[str]) -> list[list[str]]:
    named = " ".join([node["Node Type"], *([node["Index Name"]] if "Index Name" in node else [])])
    path = [*above, "SORT" if node["Node Type"].endswith("Sort") else named]
    return [path, *(step for child in node.get("Plans", ()) for step in _postgresql_steps(child, path))]


@pytest.mark.parametrize("number", [1, 2])
def test_names_are_read_from_the_index_in_order_and_never_sorted(clinic: Clinic, number: int) -> None:
    person = clinic.clinician(*fill_two_organisations(clinic)[:number])
    walk = "Index Only Scan ix_organisation_patient_name_in_order"
    if POSTGRESQL_URL is None:
        walk = "SEARCH organisation_patient_name USING COVERING INDEX ix_organisation_patient_name_in_order"
    asked: list[tuple[Callable[..., sa.Select[Any]], dict[str, Any]]] = [
        (circle_lists._page, {"most": 51}),
        (circle_lists._page, {"most": 51, "after_name": "name 0.5", "after_id": "p5"}),
    ]
    asked.append((circle_lists._count, {"most": 2001}))
    for statement, values in asked:
        plan = plan_of(clinic, person, statement, **values)
        assert plan.takes(walk), plan
        assert "SORT" not in plan.above(walk), plan
