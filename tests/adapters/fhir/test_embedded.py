"""What only the embedded store promises: one transaction, few statements, indexed searches, honest trouble."""

import datetime
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
import time_machine
from sqlalchemy import event

from quill.adapters.fhir import queries
from quill.adapters.fhir.embedded import EmbeddedFhirStore
from quill.errors import FhirUnavailable
from quill.kit.database import Database
from quill.kit.documents import Document, loads
from quill.kit.ids import new_uuid
from quill.ports.fhir import FhirStore, SearchQuery

pytestmark = pytest.mark.anyio

OWN_PATIENTS = Path(__file__).parents[2] / "fixtures" / "patients.ndjson"
PATIENT: Document = {
    "resourceType": "Patient",
    "id": "p-1",
    "identifier": [{"system": "https://quill.example/n", "value": "1"}, {"value": "2"}],
    "name": [{"family": "Ash", "given": ["Jo"]}],
    "birthDate": "1950-01-01",
}


@contextmanager
def counted(database: Database) -> Iterator[list[str]]:
    """Gather every statement sent to the database in a block."""
    statements: list[str] = []

    def note(_connection: object, _cursor: object, statement: str, *_rest: object) -> None:
        statements.append(statement)

    event.listen(database.engine.sync_engine, "before_cursor_execute", note)
    yield statements
    event.remove(database.engine.sync_engine, "before_cursor_execute", note)


@pytest.fixture
async def untabled(tmp_path: Path) -> AsyncIterator[Database]:
    """A database that answers every statement of the store with an error."""
    database = Database(f"sqlite+aiosqlite:///{tmp_path / 'empty.sqlite3'}")
    yield database
    await database.dispose()


async def test_it_keeps_the_port_and_joins_the_transaction(database: Database) -> None:
    async with database.reading() as session:
        store: FhirStore = EmbeddedFhirStore(session)
        assert store.joins_transaction


async def test_writing_takes_few_statements(database: Database) -> None:
    async with database.writing() as session:
        store = EmbeddedFhirStore(session)
        await store.ping()
        with counted(database) as creating:
            await store.write(PATIENT)
        with counted(database) as changing:
            await store.write({**PATIENT, "gender": "other"}, if_match=1)
        with counted(database) as unconditional:
            await store.write({**PATIENT, "gender": "female"})
        with counted(database) as repeating:
            await store.write({**PATIENT, "gender": "female"}, if_match=3)
        with counted(database) as finding:
            await store.find("Patient", "p-1")
    counts = [len(statements) for statements in (creating, changing, unconditional, repeating, finding)]
    assert counts == [3, 3, 4, 1, 1]


async def test_versions_follow_each_other_though_the_clock_stands_or_goes_back(database: Database) -> None:
    async with database.writing() as session:
        store = EmbeddedFhirStore(session)
        noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
        with time_machine.travel(noon, tick=False):
            times = [(await store.write({**PATIENT, "gender": g})).last_updated for g in ("male", "female", "other")]
        with time_machine.travel(noon - datetime.timedelta(hours=1), tick=False):
            times.append((await store.write({**PATIENT, "gender": "unknown"})).last_updated)
    assert times[0] == noon
    assert times == sorted(set(times))


async def test_a_reading_session_sees_what_was_committed(database: Database) -> None:
    async with database.writing() as session:
        written = await EmbeddedFhirStore(session).write(PATIENT)
        async with database.reading() as other:
            assert await EmbeddedFhirStore(other).find("Patient", "p-1") is None
    async with database.reading() as other:
        assert await EmbeddedFhirStore(other).find("Patient", "p-1") == written


@pytest.mark.parametrize(
    "act",
    [
        lambda store: store.find("Patient", "p-1"),
        lambda store: store.write(PATIENT),
        lambda store: store.write(PATIENT, if_match=1),
        lambda store: store.create_unless(PATIENT, identifier="1"),
        lambda store: store.search("Patient", SearchQuery(name="ash")),
        lambda store: store.history("Patient", "p-1"),
        lambda store: store.delete("Patient", "p-1"),
        lambda store: store.changes("Patient"),
        lambda store: store.ping(),
    ],
    ids=["find", "write", "write a version", "create unless", "search", "history", "delete", "changes", "ping"],
)
async def test_trouble_with_the_database_never_looks_like_absence(
    untabled: Database, act: Callable[[FhirStore], Awaitable[Any]]
) -> None:
    async with untabled.reading() as session:
        with pytest.raises(FhirUnavailable) as trouble:
            await act(EmbeddedFhirStore(session))
    assert trouble.value.status == 503
    assert "Ash" not in f"{trouble.value!r}{trouble.value.__cause__!r}"


@pytest.mark.parametrize(
    ("query", "index"),
    [
        (
            SearchQuery(identifier="https://quill.example/n|1"),
            "ix_fhir_search_key_value_system_parameter_resource_type",
        ),
        (SearchQuery(identifier="1"), "ix_fhir_search_key_value_system_parameter_resource_type"),
        (SearchQuery(part_of="c-1"), "ix_fhir_search_key_value_system_parameter_resource_type"),
        (
            SearchQuery(birth_date=datetime.date(1950, 1, 1)),
            "ix_fhir_resource_birth_date_resource_type_last_updated_id",
        ),
        (SearchQuery(subject="p-1"), "ix_fhir_resource_subject_resource_type_last_updated_id"),
        (
            SearchQuery(last_updated_from=datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)),
            "ix_fhir_resource_resource_type_last_updated_id",
        ),
    ],
)
async def test_a_search_uses_its_index(database: Database, query: SearchQuery, index: str) -> None:
    plan = await plan_of(database, queries.page(queries.matching("Patient", query), None, 100))
    assert index in plan
    assert "SCAN" not in plan
    if query.identifier is None and query.part_of is None:
        assert "TEMP B-TREE" not in plan


async def test_changes_use_an_index(database: Database) -> None:
    since = datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC)
    after = queries.Position(since, "p-1")
    plan = await plan_of(database, queries.page(queries.changed("Patient", since), after, 100))
    assert "ix_fhir_resource_resource_type_last_updated_id" in plan
    assert "SCAN" not in plan
    assert "TEMP B-TREE" not in plan


async def plan_of(database: Database, statement: queries.Rows) -> str:
    """Return how SQLite would run a statement."""
    async with database.reading() as session:
        compiled = statement.compile(session.get_bind(), compile_kwargs={"literal_binds": True})
        return str((await session.execute(sa.text(f"EXPLAIN QUERY PLAN {compiled}"))).all())


async def test_changes_are_told_again_for_a_while_and_then_no_more(database: Database) -> None:
    noon = datetime.datetime(2026, 1, 1, 12, tzinfo=datetime.UTC)
    position: str | None = None
    told: list[int] = []
    async with database.writing() as session:
        store = EmbeddedFhirStore(session)
        for after in (0, 1, 29, 60, 120):
            with time_machine.travel(noon + datetime.timedelta(seconds=after), tick=False):
                if after == 0:
                    await store.write(PATIENT)
                page = await store.changes("Patient", position)
                told.append(len(page.resources))
                position = page.position
    assert told == [1, 1, 1, 1, 0]


async def test_every_patient_of_our_own_is_kept_as_it_came(database: Database) -> None:
    documents = [loads(line) for line in OWN_PATIENTS.read_bytes().splitlines()]
    async with database.writing() as session:
        for document in documents:
            await EmbeddedFhirStore(session).write(document)
    async with database.reading() as session:
        page = await EmbeddedFhirStore(session).search("Patient", SearchQuery())
    kept = {found.id: found.document for found in page.resources}
    assert len(kept) == len(documents)
    for document in documents:
        assert {k: v for k, v in kept[document["id"]].items() if k != "meta"} == {
            k: v for k, v in document.items() if k != "meta"
        }


async def test_many_resources_written_in_one_transaction_have_distinct_places(database: Database) -> None:
    with time_machine.travel(datetime.datetime(2026, 1, 1, tzinfo=datetime.UTC), tick=False):
        async with database.writing() as session:
            store = EmbeddedFhirStore(session)
            ids = sorted([(await store.write({**PATIENT, "id": new_uuid()})).id for _ in range(7)])
            first = await store.search("Patient", SearchQuery(), limit=4)
            second = await store.search("Patient", SearchQuery(), limit=4, cursor=first.next_cursor)
    assert [found.id for found in (*first.resources, *second.resources)] == ids
