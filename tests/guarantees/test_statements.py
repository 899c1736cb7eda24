"""Statements are made once for each shape of an actor: each actor still gets what is theirs, and nothing else."""

from dataclasses import dataclass
from itertools import product
from typing import Any

import pytest
import sqlalchemy as sa
from sqlalchemy.exc import StatementError
from sqlalchemy.ext.asyncio import AsyncSession

from quill.access import service as access
from quill.actor import Actor, Level
from quill.conversations import queries as conversations
from quill.conversations.queries import Wanted
from quill.conversations.visibility import visible_conversations
from quill.identity import queries as ties
from quill.identity import service as identity
from quill.identity.terms import ActorShape, Count, actor_values
from quill.kit.ids import ConversationId, OrganisationId, PatientId, UserId
from quill.patients import queries as patients
from quill.patients.queries import Filters
from tests.clinic import Clinic, Person
from tests.conversations.talk import begin, external, grant, patient_account, revoke

_PATIENT: sa.ColumnElement[str] = sa.column("patient_id", sa.String(64))
_ORGANISATION: sa.ColumnElement[int] = sa.column("organisation_id", sa.Integer())

ACTORS = [
    Actor(
        user_id=UserId(7),
        name="somebody",
        display_name="Somebody",
        level=level,
        organisation_ids=tuple(map(OrganisationId, range(1, count + 1))),
        patient_id=patient_id,
    )
    for level, count, patient_id in product((Level.STAFF, Level.ADMIN), (0, 1, 2, 45), (None, PatientId("p")))
]


def conditions(shape: ActorShape) -> list[sa.ColumnElement[bool]]:
    return [
        visible_conversations(shape),
        access.is_related(shape, _PATIENT),
        access.is_personally_related(shape, _PATIENT),
        _PATIENT.in_(ties.related_patients(shape)),
        shape.works_in(_ORGANISATION),
        shape.is_own_record(_PATIENT),
    ]


@pytest.mark.parametrize("actor", ACTORS, ids=lambda actor: str(ActorShape.of(actor)))
def test_an_actor_has_every_value_that_the_conditions_of_its_shape_ask_for(actor: Actor) -> None:
    given = {name for name, value in actor_values(actor).items() if value is not None}
    for condition in conditions(ActorShape.of(actor)):
        asked = {name for name in condition.compile().params if name.startswith("actor_")}
        assert asked <= given


def test_who_works_nowhere_or_has_no_record_is_asked_for_neither() -> None:
    nobody = ActorShape(is_admin=False, has_record=False, organisations=Count.NONE)
    assert isinstance(nobody.works_in(_ORGANISATION), sa.False_)
    assert isinstance(nobody.is_own_record(_PATIENT), sa.False_)
    for condition in conditions(nobody):
        asked = {name for name in condition.compile().params if name.startswith("actor_")}
        assert asked <= {"actor_user_id"}


@dataclass(frozen=True)
class Seen:
    """What somebody finds."""

    conversations: set[int]
    readable: set[int]
    patients: set[str]
    related: set[str]
    shared: set[int]


@dataclass
class Place:
    """An organisation with a patient, and a conversation in which the patient and a guest take part."""

    organisations: list[int]
    patient: str
    conversation: int
    people: dict[str, Person]

    @classmethod
    def made_in(cls, clinic: Clinic, name: str) -> "Place":
        organisations = [clinic.organisation(f"{name} {number}") for number in range(2)]
        patient = clinic.patient(organisations[0])
        people = {
            "one organisation": clinic.clinician(organisations[0]),
            "two organisations": clinic.clinician(*organisations),
            "own record": patient_account(clinic, patient),
            "grant": external(clinic, patient),
        }
        writer = people["one organisation"]
        made = begin(writer, patient, people["own record"], people["grant"])
        return cls(organisations, patient, made["id"], people)


def actor_of(clinic: Clinic, person: Person) -> Actor:
    async def find() -> Actor | None:
        async with clinic.services.database.reading() as session:
            return await identity.find_actor(session, clinic.services.settings, UserId(person.id))

    actor: Actor | None = clinic.run(find)
    assert actor is not None
    return actor


def seen_by(clinic: Clinic, actor: Actor, places: list[Place]) -> Seen:
    async def look(session: AsyncSession) -> Seen:
        readable, related, shared = set[int](), set[str](), set[int]()
        for place in places:
            patient_id, conversation_id = PatientId(place.patient), ConversationId(place.conversation)
            if await conversations.find_where(session, actor, conversation_id, visible_conversations) is not None:
                assert await conversations.may_read(session, actor, conversation_id)
                readable.add(place.conversation)
            if await access.find_relationship(session, actor, patient_id) is not None:
                related.add(place.patient)
            shared.update(await identity.shared_organisations(session, actor, patient_id))
        listed = [
            {row.patient_id for row in await patients.page(session, actor, scope, Filters(), None, 100)}
            for scope in (patients.related_gathered, patients.related_one_by_one)
        ]
        assert listed[0] == listed[1]
        assert await patients.count(session, actor, patients.related_gathered, Filters()) == len(listed[0])
        page = await conversations.visible_page(session, actor, Wanted(limit=100))
        return Seen({row.id for row in page}, readable, listed[0], related, shared)

    async def work() -> Seen:
        async with clinic.services.database.reading() as session:
            return await look(session)

    found: Seen = clinic.run(work)
    return found


def test_actors_of_one_shape_find_their_own_with_the_same_statements(clinic: Clinic) -> None:
    places = [Place.made_in(clinic, "North"), Place.made_in(clinic, "South")]
    for kind in places[0].people:
        actors = [actor_of(clinic, place.people[kind]) for place in places]
        assert len({ActorShape.of(actor) for actor in actors}) == 1
        for _ in range(2):
            for place, actor in zip(places, actors, strict=True):
                works_there = "organisation" in kind
                assert seen_by(clinic, actor, places) == Seen(
                    conversations={place.conversation},
                    readable={place.conversation},
                    patients={place.patient},
                    related={place.patient},
                    shared={place.organisations[0]} if works_there else set(),
                ), kind


def test_who_is_tied_to_nobody_finds_nothing(clinic: Clinic) -> None:
    places = [Place.made_in(clinic, "North")]
    elsewhere = clinic.organisation("Elsewhere")
    nothing = Seen(set(), set(), set(), set(), set())
    for person in (clinic.clinician(), clinic.clinician(elsewhere), external(clinic), patient_account(clinic, "p-0")):
        assert seen_by(clinic, actor_of(clinic, person), places) == nothing


LEVELS = [level for level in Level if not level.reaches(Level.ADMIN)]


@pytest.mark.parametrize("level", LEVELS)
@pytest.mark.parametrize("tie", ["own record", "membership", "other membership", "grant", "grant that ended", "none"])
def test_ties_read_together_with_the_login_are_those_asked_for_alone(clinic: Clinic, level: Level, tie: str) -> None:
    surgery, elsewhere = clinic.organisation(), clinic.organisation("Elsewhere")
    patient = clinic.patient(surgery)
    others = [clinic.patient(surgery), clinic.patient(elsewhere)]
    works_in = {"membership": [surgery], "other membership": [elsewhere]}.get(tie, [])
    person = clinic.person(
        level=level, organisations=works_in, patient_id=patient if tie == "own record" else None, roles=["Clinician"]
    )
    if tie.startswith("grant"):
        grant(clinic, person, patient)
    if tie == "grant that ended":
        revoke(clinic, person)
    for asked in (patient, *others):

        async def alone(asked: str = asked) -> bool:
            async with clinic.services.database.reading() as session:
                actor = await identity.find_actor(session, clinic.services.settings, UserId(person.id))
                assert actor is not None
                return await access.find_relationship(session, actor, PatientId(asked)) is not None

        status = person.get(f"/api/patients/{asked}/letters").status_code
        assert (status != 404) == clinic.run(alone)
    is_tied = tie in {"own record", "grant"} or (tie == "membership" and level is Level.STAFF)
    assert (person.get(f"/api/patients/{patient}/letters").status_code != 404) == is_tied


def test_login_rights_and_ties_are_one_statement(clinic: Clinic) -> None:
    surgery = clinic.organisation()
    doctor, patient = clinic.clinician(surgery), clinic.patient(surgery)
    assert clinic.selects(lambda: doctor.get(f"/api/patients/{patient}")) == 2


def test_the_values_of_another_shape_are_refused(clinic: Clinic) -> None:
    """A mistaken statement asks for a value it does not get, instead of finding somebody else's rows."""
    stranger = actor_of(clinic, external(clinic))
    for other in ACTORS:
        shape = ActorShape.of(other)
        if shape.is_admin or not (shape.has_record or shape.organisations is not Count.NONE):
            continue
        statement = sa.select(sa.literal("p").label("patient_id")).where(ties.is_related(shape, sa.literal("p")))

        async def ask(statement: sa.Select[Any] = statement) -> None:
            async with clinic.services.database.reading() as session:
                await session.execute(statement, actor_values(stranger))

        with pytest.raises(StatementError, match="A value is required for bind parameter 'actor_"):
            clinic.run(ask)
