"""Names kept for each organisation: what a join of memberships and patients gives, whatever happens in any order."""

import asyncio
import random
import sqlite3
from collections.abc import Awaitable, Callable
from contextlib import closing
from typing import Any, cast

import pytest
import sqlalchemy as sa
from sqlalchemy.engine import make_url
from sqlalchemy.ext.asyncio import AsyncSession

from quill.actor import Actor
from quill.identity import memberships
from quill.identity import service as identity
from quill.kit import clock
from quill.kit.ids import OrganisationId, PatientId
from quill.organisations.models import Organisation
from quill.organisations.service import members
from quill.patients import service as patients
from quill.unit import RequestFacts, Unit, open_unit
from tests.clinic import Clinic
from tests.patients.helpers import INDEX, MEMBER, index_row, member_row, on_sqlite, rows

KEPT = "SELECT organisation_id, patient_id, is_active, sort_name FROM organisation_patient_name"
JOINED = """
SELECT m.organisation_id, m.patient_id, i.is_active, i.sort_name
FROM organisation_patient_member m JOIN patient_index i ON i.patient_id = m.patient_id
"""
ORGANISATION = cast("sa.Table", Organisation.__table__)
WAITING_SECONDS = 0.1

Act = Callable[[AsyncSession], Awaitable[Any]]


def assert_kept(clinic: Clinic) -> list[tuple[Any, ...]]:
    """Hold what is kept against the join; returns it."""
    kept = sorted(rows(clinic, KEPT))
    assert kept == sorted(rows(clinic, JOINED))
    return kept


def new_patient(patient_id: str, name: str, *, active: bool = True) -> sa.Insert:
    return sa.insert(INDEX).values(index_row(patient_id, name) | {"is_active": active})


def changed(patient_id: str, **values: Any) -> sa.Update:
    return sa.update(INDEX).where(INDEX.c.patient_id == patient_id).values(**values)


def joining(organisation_id: int, patient_id: str) -> sa.Insert:
    return sa.insert(MEMBER).values(member_row(organisation_id, patient_id))


class Life:
    """Does one thing after another to some patients and organisations, by chance."""

    def __init__(self, seed: int, places: list[int]) -> None:
        self._dice = random.Random(seed)  # noqa: S311 - which test data are made is no secret
        self._places = places
        self._people = [f"p{number}" for number in range(12)]

    async def happen(self, unit: Unit) -> None:
        """Do the next thing; what cannot be done by now, such as removing whom nobody knows, does nothing."""
        acts: list[Callable[[Unit, int, str], Awaitable[None]]]
        acts = [self._join, self._join, self._join, self._leave, self._enlist, self._enlist, self._change, self._forget]
        if self._dice.random() < 0.05:
            acts = [self._close]
        await self._dice.choice(acts)(unit, self._dice.choice(self._places), self._dice.choice(self._people))

    async def _join(self, unit: Unit, place: int, person: str) -> None:
        await identity.add_patient_membership(unit, OrganisationId(place), PatientId(person))

    async def _leave(self, unit: Unit, place: int, person: str) -> None:
        await memberships.remove_patient_membership(unit, OrganisationId(place), PatientId(person))

    async def _enlist(self, unit: Unit, _place: int, person: str) -> None:
        if await unit.session.scalar(sa.select(INDEX.c.version).where(INDEX.c.patient_id == person)) is None:
            await unit.session.execute(new_patient(person, self._name(), active=self._dice.random() < 0.5))

    async def _change(self, unit: Unit, _place: int, person: str) -> None:
        values = {"sort_name": self._name(), "is_active": self._dice.random() < 0.5, "version": 7}
        chosen = self._dice.sample(sorted(values), self._dice.randint(1, 3))
        await unit.session.execute(changed(person, **{name: values[name] for name in chosen}))

    async def _forget(self, unit: Unit, _place: int, person: str) -> None:
        await unit.session.execute(sa.delete(INDEX).where(INDEX.c.patient_id == person))

    async def _close(self, unit: Unit, place: int, _person: str) -> None:
        await unit.session.execute(sa.delete(ORGANISATION).where(ORGANISATION.c.id == place))
        now = clock.now()
        another = sa.insert(ORGANISATION).values(name="Another", type="gp_practice", created_at=now, updated_at=now)
        self._places[self._places.index(place)] = await unit.session.scalar(another.returning(ORGANISATION.c.id)) or 0

    def _name(self) -> str:
        return self._dice.choice(["ash", "birch", "cedar"])


@pytest.mark.parametrize("seed", range(3))
def test_kept_is_what_a_join_gives_after_a_long_life(clinic: Clinic, seed: int) -> None:
    life = Life(seed, [clinic.organisation(f"Place {number}") for number in range(6)])
    most = 0

    async def live(unit: Unit) -> None:
        for _ in range(10):
            await life.happen(unit)

    async def live_in_vain(unit: Unit) -> None:
        await unit.session.execute(sa.update(INDEX).values(sort_name="in vain"))
        await unit.session.execute(sa.delete(MEMBER))
        await unit.session.rollback()

    for _ in range(25):
        clinic.in_unit(live)
        clinic.in_unit(live_in_vain)
        most = max(most, len(assert_kept(clinic)))
    assert most > 10


def test_patients_made_and_renamed_as_everybody_does_are_kept(clinic: Clinic) -> None:
    here, there = clinic.organisation(), clinic.organisation("Hilltop")
    first, _ = clinic.patient(here, there), clinic.patient(here)
    clinic.patient()
    assert len(assert_kept(clinic)) == 3
    gp, admin = clinic.clinician(here), clinic.admin()
    assert gp.patch(f"/api/patients/{first}", {"family_name": "Oak"}).is_success
    assert admin.post(f"/api/patients/{first}/deactivate").is_success
    of_first = [(bool(active), name) for _, patient_id, active, name in assert_kept(clinic) if patient_id == first]
    assert of_first == [(False, "oak pat"), (False, "oak pat")]


@on_sqlite
def test_memberships_removed_without_heed_of_foreign_keys_leave_nothing(clinic: Clinic) -> None:
    here = clinic.organisation()
    clinic.patient(here)

    # As the command `sqlite3` does it.
    with closing(
        sqlite3.connect(make_url(clinic.services.settings.resolved_database_url).database or "")
    ) as connection:
        connection.execute("DELETE FROM organisation_patient_member")
        connection.commit()
    assert assert_kept(clinic) == []
    assert clinic.clinician(here).get("/api/patients").json()["patients"] == []


RENAME: Act = lambda session: session.execute(changed("p", sort_name="birch"))  # noqa: E731
DEACTIVATE: Act = lambda session: session.execute(changed("p", is_active=False))  # noqa: E731
FORGET: Act = lambda session: session.execute(sa.delete(INDEX).where(INDEX.c.patient_id == "p"))  # noqa: E731
LEAVE: Act = lambda session: session.execute(sa.delete(MEMBER).where(MEMBER.c.patient_id == "p"))  # noqa: E731


def beside(clinic: Clinic, first: Act, second: Act) -> None:
    """Do one thing, and another before the first is committed; the second has to wait."""

    async def work() -> None:
        database = clinic.services.database
        async with database.session() as one:
            await first(one)

            async def other() -> None:
                async with database.writing() as session:
                    await second(session)

            task = asyncio.create_task(other())
            done, _ = await asyncio.wait({task}, timeout=WAITING_SECONDS)
            assert not done
            await one.commit()
            await task

    clinic.run(work)


@pytest.mark.parametrize("is_first", [True, False], ids=["change first", "membership first"])
@pytest.mark.parametrize("change", [RENAME, DEACTIVATE, FORGET], ids=["rename", "deactivate", "forget"])
def test_membership_beside_a_change_of_the_patient_is_kept_as_changed(
    clinic: Clinic, change: Act, is_first: bool
) -> None:
    here, there = clinic.organisation(), clinic.organisation("Hilltop")

    async def add(session: AsyncSession) -> None:
        await session.execute(joining(there, "p"))

    async def prepare(unit: Unit) -> None:
        await unit.session.execute(new_patient("p", "ash"))
        await unit.session.execute(joining(here, "p"))

    clinic.in_unit(prepare)
    beside(clinic, *((change, add) if is_first else (add, change)))
    assert len(assert_kept(clinic)) == (0 if change is FORGET else 2)


@pytest.mark.parametrize("is_first", [True, False], ids=["patient first", "membership first"])
def test_membership_beside_a_patient_who_is_just_being_listed_is_kept(clinic: Clinic, is_first: bool) -> None:
    here = clinic.organisation()

    async def add(session: AsyncSession) -> None:
        await session.execute(joining(here, "p"))

    async def enlist(session: AsyncSession) -> None:
        await session.execute(new_patient("p", "ash"))

    beside(clinic, *((enlist, add) if is_first else (add, enlist)))
    assert len(assert_kept(clinic)) == 1


@pytest.mark.parametrize("is_first", [True, False], ids=["patient first", "leaving first"])
def test_leaving_beside_a_patient_who_is_just_being_listed_leaves_nothing(clinic: Clinic, is_first: bool) -> None:
    here = clinic.organisation()

    async def prepare(unit: Unit) -> None:
        await unit.session.execute(joining(here, "p"))

    async def enlist(session: AsyncSession) -> None:
        await session.execute(new_patient("p", "ash"))

    clinic.in_unit(prepare)
    beside(clinic, *((enlist, LEAVE) if is_first else (LEAVE, enlist)))
    assert assert_kept(clinic) == []


@pytest.mark.parametrize("is_first", [True, False], ids=["rename first", "leaving first"])
def test_leaving_beside_a_rename_leaves_nothing(clinic: Clinic, is_first: bool) -> None:
    here = clinic.organisation()

    async def prepare(unit: Unit) -> None:
        await unit.session.execute(new_patient("p", "ash"))
        await unit.session.execute(joining(here, "p"))

    clinic.in_unit(prepare)
    beside(clinic, *((RENAME, LEAVE) if is_first else (LEAVE, RENAME)))
    assert assert_kept(clinic) == []


@pytest.mark.parametrize("verb", ["add", "remove"])
def test_a_patient_changed_and_joined_at_once_beside_another_member_change_ends_well(clinic: Clinic, verb: str) -> None:
    here, there, far = (clinic.organisation(name) for name in ("Riverside", "Hilltop", "Far"))
    patient_id = PatientId(clinic.patient(here, there))
    job = Actor.job("test")

    async def other() -> None:
        async with open_unit(clinic.services, RequestFacts("other", "test")) as unit:
            if verb == "add":
                await members.add_patient(unit, job, OrganisationId(far), patient_id)
            else:
                await members.remove_patient(unit, job, OrganisationId(there), patient_id)

    async def work() -> None:
        # As an import does: the patient is replaced, and then put into the organisation's care.
        async with open_unit(clinic.services, RequestFacts("one", "test")) as unit:
            await patients.hold(unit, patient_id)
            await unit.session.execute(changed(patient_id, sort_name="birch"))
            task = asyncio.create_task(other())
            done, _ = await asyncio.wait({task}, timeout=WAITING_SECONDS)
            assert not done
            await identity.add_patient_membership(unit, OrganisationId(here), patient_id)
        await task

    clinic.run(work)
    kept = assert_kept(clinic)
    assert [row[0] for row in kept] == ([here, there, far] if verb == "add" else [here])
    assert {row[3] for row in kept} == {"birch"}
