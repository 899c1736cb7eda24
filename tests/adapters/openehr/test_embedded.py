"""What only the embedded openEHR store promises: it shares the caller's transaction and tells trouble as trouble."""

import copy
import datetime
from collections.abc import AsyncIterator, Awaitable, Callable
from pathlib import Path

import pytest
import sqlalchemy as sa

from quill.adapters.openehr.embedded import EmbeddedOpenEhrStore
from quill.adapters.openehr.models import Composition
from quill.adapters.openehr.template import check_against, read_template
from quill.errors import InvalidRecord, OpenEhrRefused, OpenEhrUnavailable
from quill.kit.database import Base, Database
from quill.kit.documents import Document
from quill.kit.ids import CompositionUid, new_uuid
from quill.letters.composition import TEMPLATE_ID, compose_letter, operational_template
from quill.ports.openehr import OpenEhrStore

pytestmark = pytest.mark.anyio

LETTER = compose_letter(
    object_id=None,
    title="Clinic letter",
    body="All is well.",
    author_id=7,
    author_name="A. Author",
    started_at=datetime.datetime(2026, 3, 2, 9, 0, tzinfo=datetime.UTC),
)


@pytest.fixture
def anyio_backend() -> str:
    return "asyncio"


@pytest.fixture
async def empty_database(tmp_path: Path) -> AsyncIterator[Database]:
    database = Database(f"sqlite+aiosqlite:///{tmp_path}/embedded.sqlite3")
    yield database
    await database.dispose()


@pytest.fixture
async def database(empty_database: Database) -> Database:
    async with empty_database.engine.begin() as connection:
        await connection.run_sync(Base.metadata.create_all)
    return empty_database


async def prepared(store: OpenEhrStore) -> str:
    await store.ensure_template(TEMPLATE_ID, operational_template())
    return await store.ensure_ehr(new_uuid())


async def test_writes_vanish_with_the_callers_transaction(database: Database) -> None:
    async with database.writing() as session:
        store = EmbeddedOpenEhrStore(session)
        ehr_id = await prepared(store)
        stored = await store.write(ehr_id, LETTER)
        assert await store.find(ehr_id, stored.uid) == stored
        await session.rollback()
    async with database.reading() as session:
        assert EmbeddedOpenEhrStore(session).joins_transaction
        assert await EmbeddedOpenEhrStore(session).find(ehr_id, stored.uid) is None
        assert await EmbeddedOpenEhrStore(session).list_templates() == []


async def test_version_uids_outlive_a_change_of_system_id(database: Database) -> None:
    async with database.writing() as session:
        old = EmbeddedOpenEhrStore(session, "old.name")
        ehr_id = await prepared(old)
        first = await old.write(ehr_id, LETTER)
        new = EmbeddedOpenEhrStore(session, "new.name")
        second = await new.write(ehr_id, LETTER, replacing=first.uid)
        assert await new.find(ehr_id, first.uid) == first
        assert second.uid == first.uid.replace("old.name::1", "new.name::2")


async def test_first_known_template_stays(database: Database) -> None:
    async with database.writing() as session:
        store = EmbeddedOpenEhrStore(session)
        ehr_id = await prepared(store)
        await store.ensure_template(TEMPLATE_ID, operational_template().replace("at0002", "at0099"))
        assert (await store.write(ehr_id, LETTER)).version == 1
        with pytest.raises(InvalidRecord):
            await store.ensure_template("another_template.v1", operational_template())


@pytest.mark.parametrize(
    "call",
    [
        lambda store: store.find_ehr("patient"),
        lambda store: store.ensure_ehr("patient"),
        lambda store: store.ensure_template(TEMPLATE_ID, operational_template()),
        lambda store: store.list_templates(),
        lambda store: store.write(new_uuid(), LETTER),
        lambda store: store.find(new_uuid(), CompositionUid(new_uuid())),
        lambda store: store.versions(new_uuid(), CompositionUid(new_uuid())),
        lambda store: store.list_compositions(new_uuid(), TEMPLATE_ID),
        lambda store: store.ping(),
    ],
)
async def test_database_trouble_never_looks_like_absence(
    empty_database: Database, call: Callable[[OpenEhrStore], Awaitable[object]]
) -> None:
    # The tables are missing, which stands for any statement the database cannot carry out.
    async with empty_database.reading() as session:
        with pytest.raises(OpenEhrUnavailable) as trouble:
            await call(EmbeddedOpenEhrStore(session))
    assert trouble.value.__cause__ is not None


async def test_document_damaged_at_rest_is_trouble(database: Database) -> None:
    async with database.writing() as session:
        store = EmbeddedOpenEhrStore(session)
        ehr_id = await prepared(store)
        stored = await store.write(ehr_id, LETTER)
        await session.execute(sa.update(Composition).values(document='{"_type": "COMPOS'))
        with pytest.raises(OpenEhrRefused):
            await store.find(ehr_id, stored.uid)
        with pytest.raises(OpenEhrRefused):
            await store.versions(ehr_id, stored.uid)


async def test_list_walks_its_index(database: Database) -> None:
    statements: list[str] = []
    async with database.writing() as session:
        store = EmbeddedOpenEhrStore(session)
        ehr_id = await prepared(store)
        for _ in range(3):
            await store.write(ehr_id, LETTER)
        connection = await session.connection()

        def note(*event: object) -> None:
            statements.append(str(event[2]))

        sa.event.listen(connection.sync_connection, "before_cursor_execute", note)
        page = await store.list_compositions(ehr_id, TEMPLATE_ID, limit=1)
        await store.list_compositions(ehr_id, TEMPLATE_ID, limit=1, cursor=page.next_cursor)
        sa.event.remove(connection.sync_connection, "before_cursor_execute", note)
        assert len(statements) == 2
        for statement in statements:
            plan = await connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {statement}", (None,) * statement.count("?"))
            steps = " ".join(str(row) for row in plan)
            assert "USING INDEX ix_openehr_composition" in steps
            assert "TEMP B-TREE" not in steps


def changed(change: Callable[[Document], object]) -> Document:
    document = copy.deepcopy(LETTER)
    change(document)
    return document


@pytest.mark.parametrize(
    ("document", "place"),
    [
        (
            changed(lambda it: it.update(archetype_node_id="openEHR-EHR-COMPOSITION.encounter.v1")),
            ["archetype_node_id"],
        ),
        (changed(lambda it: it["category"]["defining_code"].update(code_string="431")), ["category", "defining_code"]),
        (changed(lambda it: it.pop("context")), ["context"]),
        (changed(lambda it: it.update(content=[])), ["content"]),
        (changed(lambda it: it["content"].append(it["content"][0])), ["content"]),
        (changed(lambda it: it["content"][0].update(_type="OBSERVATION")), ["content"]),
        (changed(lambda it: it["content"][0].pop("data")), ["content", 0, "data"]),
        (changed(lambda it: it["content"][0]["data"].update(archetype_node_id="at0008")), ["content", 0, "data"]),
        (changed(lambda it: it["content"][0]["data"].pop("_type")), ["content", 0, "data"]),
        (changed(lambda it: it["content"][0]["data"].update(items=[])), ["content", 0, "data", "items"]),
        (changed(lambda it: it["content"][0]["data"].update(items=[1])), ["content", 0, "data", "items"]),
        (
            changed(lambda it: it["content"][0]["data"]["items"][0].update(archetype_node_id="at0009")),
            ["content", 0, "data", "items"],
        ),
        (
            changed(
                lambda it: it["content"][0]["data"]["items"][0].update(value={"_type": "DV_COUNT", "magnitude": 1})
            ),
            ["content", 0, "data", "items", 0, "value"],
        ),
        (
            changed(lambda it: it["content"][0]["data"]["items"][0]["value"].update(value=" ")),
            ["content", 0, "data", "items", 0, "value", "value"],
        ),
    ],
)
async def test_composition_beside_its_template_is_refused_at_its_place(
    document: Document, place: list[str | int]
) -> None:
    with pytest.raises(InvalidRecord) as refusal:
        check_against(read_template(operational_template()), document)
    assert place in [each["loc"][1 : len(place) + 1] for each in refusal.value.errors]


@pytest.mark.parametrize(
    "document",
    [
        LETTER,
        changed(lambda it: it["content"][0]["data"]["items"][0]["value"].update(_type="DV_CODED_TEXT")),
        changed(lambda it: it["context"].pop("_type")),
        changed(lambda it: it["name"].update(_type="DV_CODED_TEXT")),
        changed(
            lambda it: it["content"][0]["data"]["items"].append({"_type": "CLUSTER", "archetype_node_id": "at0005"})
        ),
    ],
)
async def test_composition_within_its_template_is_accepted(document: Document) -> None:
    check_against(read_template(operational_template()), document)


@pytest.mark.parametrize(
    "text",
    [
        '<!DOCTYPE t [<!ENTITY a "aaaa">]>' + operational_template().partition("?>")[2],
        operational_template().replace("<rm_type_name>COMPOSITION<", "<rm_type_name>EVALUATION<"),
        operational_template().replace("<upper>1</upper>", "<upper>many</upper>"),
        operational_template().replace("schemas.openehr.org/v1", "schemas.openehr.org/v2"),
        operational_template() + "\ud800",
    ],
)
async def test_unreadable_template_is_refused(text: str) -> None:
    with pytest.raises(InvalidRecord):
        read_template(text)
