"""What only the remote store promises: how documents travel, what a server hears, and what another server may do."""

import asyncio
import re

import httpx2
import pytest

from quill.adapters.fhir.remote import RemoteFhirStore
from quill.adapters.fhir.remote_documents import inward, other_id, outward
from quill.adapters.upstream import Troubles, Upstream
from quill.errors import FhirRefused, FhirUnavailable, InvalidRecord, StaleEdit
from quill.kit.documents import Document, dumps, loads
from quill.kit.ids import is_fhir_id, new_uuid
from quill.ports.fhir import ChangePage, FhirStore, SearchQuery
from tests.contracts.fhir_records import communication, identified, patient
from tests.upstreams.fhir_server import FhirServer

pytestmark = [pytest.mark.anyio, pytest.mark.thorough]


def raw(server: FhirServer, path: str, document: Document | None = None) -> Document:
    """Ask the server as somebody else would; with a document, put it there."""
    url = f"{server.address}/{path}"
    if document is None:
        return loads(httpx2.get(url, trust_env=False).content)
    return loads(httpx2.put(url, content=dumps(document), trust_env=False).content)


async def test_it_keeps_the_port_and_stands_by_itself(direct: RemoteFhirStore) -> None:
    store: FhirStore = direct
    assert not store.joins_transaction


async def test_what_must_not_be_held_is_let_go_before_each_call(server: FhirServer) -> None:
    asked_before: list[int] = []

    async def let_go() -> None:
        asked_before.append(len(server.requests))

    upstream = Upstream("fhir", server.address, Troubles(FhirUnavailable, FhirRefused))
    store, document = RemoteFhirStore(upstream, let_go=let_go), patient()
    await store.write(document)
    await store.write({**document, "active": True}, if_match=1)
    await store.create_unless(patient(), identifier=new_uuid())
    await store.search("Patient", SearchQuery())
    await store.history("Patient", document["id"])
    await store.delete("Patient", document["id"])
    await store.changes("Patient")
    await store.ping()
    await upstream.close()
    assert asked_before == list(range(len(server.requests)))


@pytest.mark.parametrize("number", ["0", "123", "00012", "9" * 56])
async def test_ids_of_digits_only_have_another_name_over_there(
    direct: RemoteFhirStore, server: FhirServer, number: str
) -> None:
    """Gap: HAPI refuses purely numeric client-assigned ids."""
    subject = {"reference": f"Patient/{number}"}
    written = await direct.write(patient(id=number), if_match=0)
    message = await direct.write(communication(subject=subject))
    assert (written.document["id"], message.document["subject"]) == (number, subject)
    assert raw(server, f"Patient/numeric-{number}")["id"] == f"numeric-{number}"
    assert raw(server, f"Communication/{message.id}")["subject"] == {"reference": f"Patient/numeric-{number}"}
    await direct.delete("Patient", number)
    assert [version.id for version in await direct.history("Patient", number)] == [number, number]


async def test_two_records_never_share_an_id(direct: RemoteFhirStore) -> None:
    names = ["7", "numeric-7", "numeric-", "numeric-numeric-7", "numeric-x7", "x-7", "7.0", "Numeric-7"]
    assert len({other_id(name) for name in names}) == len(names)
    assert [other_id(other_id(name)) for name in names] == names
    # What has digits only over there was given by the server, so nobody can write it as new from here.
    with pytest.raises(InvalidRecord):
        await direct.write(patient(id="numeric-7"), if_match=0)
    assert await direct.find("Patient", "numeric-7") is None


async def test_id_too_long_to_be_carried_is_refused_and_not_there(direct: RemoteFhirStore) -> None:
    number = "9" * 64
    with pytest.raises(InvalidRecord) as refused:
        await direct.write(patient(id=number))
    assert refused.value.errors[0]["loc"] == ["id"]
    assert await direct.find("Patient", number) is None
    assert await direct.history("Patient", number) == []
    await direct.delete("Patient", number)


@pytest.mark.parametrize(
    "reference",
    ["Patient/12", "Communication/12/_history/3", "MedicationRequest/numeric-12", "Practitioner/12", "#12", "urn:x:12"],
)
def test_references_follow_the_ids_there_and_back(reference: str) -> None:
    document = communication(about=[{"reference": reference, "extension": [{"url": "urn:a", "valueString": "12"}]}])
    sent = outward(document)
    (about,) = sent["about"]
    is_ours = re.match(r"(Patient|Communication|MedicationRequest)/", reference) is not None
    assert (about["reference"] != reference) is is_ours
    assert about["extension"] == document["about"][0]["extension"]
    assert is_fhir_id(sent["id"])
    assert inward(sent) == document


async def test_search_tells_names_and_numbers_in_no_address(direct: RemoteFhirStore, server: FhirServer) -> None:
    number = new_uuid()
    document = patient(name=[{"family": "Qwertz"}], birthDate="1931-03-07", **identified(number))
    query = SearchQuery(identifier=number, name="qwertz")
    await direct.create_unless(document, identifier=number)
    assert [found.id for found in (await direct.search("Patient", query)).resources] == [document["id"]]
    addresses = " ".join(path for _, path, _ in server.requests)
    assert number not in addresses
    assert "wertz" not in addresses


@pytest.mark.parametrize("value", ["a,b", "a|b", "a$b", "a\\b", "a b&c=d+e%25", "ü"])
async def test_search_by_identifier_takes_every_character_for_itself(direct: RemoteFhirStore, value: str) -> None:
    number = f"{value}{new_uuid()}"
    written = await direct.write(patient(**identified(number, system="urn:a,b")))
    page = await direct.search("Patient", SearchQuery(identifier=f"urn:a,b|{number}"))
    assert page.resources == [written]


async def test_next_page_is_asked_for_at_our_own_address(direct: RemoteFhirStore, server: FhirServer) -> None:
    number = new_uuid()
    server.largest_page = 2
    written = [
        await direct.write(patient(name=[{"family": f"Ash{place}"}], **identified(number))) for place in range(7)
    ]
    whole = await direct.search("Patient", SearchQuery(identifier=number))
    assert (whole.resources, whole.next_cursor) == (written, None)
    first = await direct.search("Patient", SearchQuery(identifier=number), limit=3)
    assert first.resources == written[:3]
    rest = await direct.search("Patient", SearchQuery(identifier=number), limit=9, cursor=first.next_cursor)
    assert (rest.resources, rest.next_cursor) == (written[3:], None)
    by_name = await direct.search("Patient", SearchQuery(identifier=number, name="SH5"), limit=1)
    assert by_name.resources == [written[5]]


async def test_history_is_read_to_its_end(direct: RemoteFhirStore, server: FhirServer) -> None:
    server.largest_page = 2
    document = patient()
    for gender in ("male", "female", "other", "unknown", "male"):
        await direct.write({**document, "gender": gender})
    await direct.delete("Patient", document["id"])
    found = await direct.history("Patient", document["id"])
    assert [version.version for version in found] == [6, 5, 4, 3, 2, 1]
    assert found[0].is_deleted
    again = await direct.write(document, if_match=0)
    assert (await direct.history("Patient", document["id"]))[0] == again


async def test_changes_made_straight_at_the_server_are_told(direct: RemoteFhirStore, server: FhirServer) -> None:
    server.largest_page = 3
    document = await direct.write(patient())
    position = (await _last_page(direct, None)).position
    edited = {**document.document, "gender": "female"}
    raw(server, f"Patient/{document.id}", {name: part for name, part in edited.items() if name != "meta"})
    told = [each for each in (await _last_page(direct, position)).resources if each.id == document.id]
    assert [each.document["gender"] for each in told] == ["female"]


async def _last_page(store: RemoteFhirStore, since: str | None) -> ChangePage:
    """Read to the end; return its page with everything before it."""
    page = await store.changes("Patient", since, limit=50)
    told = page.resources
    while page.has_more:
        page = await store.changes("Patient", page.position, limit=50)
        told = told + page.resources
    return ChangePage(told, page.position, has_more=False)


async def test_changes_begin_anew_when_the_server_has_forgotten_the_page(
    direct: RemoteFhirStore, server: FhirServer
) -> None:
    written = [(await direct.write(patient())).id for _ in range(3)]
    first = await direct.changes("Patient", limit=1)
    assert first.has_more
    server.kept_searches.clear()
    told = {each.id for each in (await _last_page(direct, first.position)).resources}
    assert set(written) <= told


async def test_server_that_heeds_conditions_to_the_letter_is_written_to_all_the_same(
    direct: RemoteFhirStore, server: FhirServer
) -> None:
    server.is_strict = True
    document = patient()
    assert (await direct.write(document, if_match=0)).version == 1
    with pytest.raises(StaleEdit):
        await direct.write({**document, "active": False}, if_match=0)
    assert (await direct.write({**document, "active": True}, if_match=1)).version == 2
    with pytest.raises(StaleEdit):
        await direct.write({**document, "active": False}, if_match=1)
    await direct.delete("Patient", document["id"])
    with pytest.raises(StaleEdit):
        await direct.write(document, if_match=2)
    assert (await direct.write(document, if_match=0)).version == 4


async def test_creators_at_once_after_a_deletion_bring_back_one(direct: RemoteFhirStore) -> None:
    document = patient()
    await direct.write(document)
    await direct.delete("Patient", document["id"])
    contenders = [{**document, "gender": gender} for gender in ("male", "female", "other")]
    results = await asyncio.gather(*(direct.write(each, if_match=0) for each in contenders), return_exceptions=True)
    assert sorted(type(result).__name__ for result in results) == ["StaleEdit", "StaleEdit", "StoredResource"]
    assert len(await direct.history("Patient", document["id"])) == 3


async def test_conditional_create_is_not_made_over_another_record(direct: RemoteFhirStore) -> None:
    taken = await direct.write(patient())
    number = new_uuid()
    with pytest.raises(StaleEdit):
        await direct.create_unless(patient(id=taken.id, **identified(number)), identifier=number)
    assert await direct.find("Patient", taken.id) == taken


async def test_xhtml_the_server_writes_anew_is_no_loss(direct: RemoteFhirStore) -> None:
    text = {"status": "generated", "div": '<div xmlns="http://www.w3.org/1999/xhtml">a&nbsp;b</div>'}
    written = await direct.write(patient(text=text))
    assert "\xa0" in written.document["text"]["div"]
