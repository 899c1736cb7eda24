"""Moving a practice's records to servers elsewhere and back: nothing is lost, nothing looks different."""

import asyncio
import threading
from typing import Any

import pytest
import sqlalchemy as sa

from quill.adapters.home import RecordsElsewhere
from quill.copying import service as copying
from quill.errors import FhirUnavailable, OpenEhrUnavailable
from quill.kit.database import Database
from quill.settings import Settings
from tests.copying.practice import Elsewhere, Listening, Practice, compare, move, unlike

pytestmark = pytest.mark.thorough


def rows(settings: Settings, statement: str) -> list[tuple[Any, ...]]:
    async def work() -> list[tuple[Any, ...]]:
        database = Database(settings.resolved_database_url)
        async with database.reading() as session:
            found = [tuple(row) for row in await session.execute(sa.text(statement))]
        await database.dispose()
        return found

    return asyncio.run(work())


def change(settings: Settings, *statements: str) -> None:
    async def work() -> None:
        database = Database(settings.resolved_database_url)
        async with database.writing() as session:
            for statement in statements:
                await session.execute(sa.text(statement))
        await database.dispose()

    asyncio.run(work())


STORES = (
    "SELECT resource_type, id, version, last_updated, is_deleted, document FROM fhir_resource_version ORDER BY 1, 2, 3",
    "SELECT resource_type, id, version, last_updated, is_deleted, document, folded_names, birth_date, subject "
    "FROM fhir_resource ORDER BY 1, 2",
    "SELECT * FROM fhir_search_key ORDER BY resource_type, id, parameter, position",
    "SELECT object_id, version, system_id, ehr_id, is_latest, title, started_at, committed_at, content_hash, document "
    "FROM openehr_composition ORDER BY 1, 2",
    "SELECT ehr_id, subject_id FROM openehr_ehr ORDER BY 1",
    "SELECT template_id FROM openehr_template ORDER BY 1",
)
EMPTYING = (
    *("DELETE FROM fhir_search_key", "DELETE FROM fhir_resource_version", "DELETE FROM fhir_resource"),
    *("DELETE FROM openehr_composition", "DELETE FROM openehr_ehr", "DELETE FROM openehr_template"),
)


def stores(settings: Settings) -> list[list[tuple[Any, ...]]]:
    return [rows(settings, statement) for statement in STORES]


def test_practice_looks_the_same_from_the_servers_and_back_again(practice: Practice, elsewhere: Elsewhere) -> None:
    with practice.running(practice.settings):
        before = practice.seen()
    assert all(status == 200 for status, _, _ in before.values())
    kept = stores(practice.settings)
    listening = Listening()
    assert move(practice.settings, elsewhere.settings, listening=listening).troubles == []
    assert any("…::quill.local::n" in note for note in listening.notes)
    with practice.running(elsewhere.settings):
        assert unlike(before, practice.seen()) == []
    with pytest.raises(RecordsElsewhere), practice.running(practice.settings):
        raise AssertionError("started with the settings of before")
    assert move(elsewhere.settings, elsewhere.settings, to_embedded=True).troubles == []
    with practice.running(practice.settings):
        assert unlike(before, practice.seen()) == []
    assert stores(practice.settings) == kept, "what was still there is what there was"
    assert rows(practice.settings, "SELECT place FROM clinical_home") == [("embedded",), ("embedded",)]


def test_way_back_into_an_empty_store_keeps_versions_and_times(practice: Practice, elsewhere: Elsewhere) -> None:
    with practice.running(practice.settings):
        before = practice.seen()
    move(practice.settings, elsewhere.settings)
    change(practice.settings, *EMPTYING)
    with practice.running(elsewhere.settings):
        there = practice.doctor.get(f"/api/patients/{practice.patients[0]}").text
    report = move(elsewhere.settings, elsewhere.settings, to_embedded=True)
    assert (report.troubles, report.systems) == ([], {"ehrbase.test"})
    with practice.running(practice.settings):
        assert unlike(before, practice.seen()) == []
        assert practice.doctor.get(f"/api/patients/{practice.patients[0]}").text == there, "times are kept, too"
    assert set(rows(practice.settings, "SELECT system_id FROM openehr_composition")) == {("ehrbase.test",)}


def test_tables_and_servers_agree_and_versions_go_on(practice: Practice, elsewhere: Elsewhere) -> None:
    move(practice.settings, elsewhere.settings)
    patient, letter = practice.patients[0], practice.letter_uids[1]
    with practice.running(elsewhere.settings):
        at = f"/api/patients/{patient}"
        assert practice.doctor.get(at).headers["etag"] == 'W/"3"'
        name = [{"use": "official", "family": "Jones", "given": ["Pat"]}]
        changed = practice.doctor.put(f"{at}/demographics", {"name": name}, headers={"If-Match": 'W/"3"'})
        assert (changed.status_code, changed.headers["etag"]) == (200, 'W/"4"')
        draft = {"title": "First clinic", "body": "Well again"}
        amended = practice.doctor.put(f"{at}/letters/{letter}", draft, headers={"If-Match": '"2"'})
        assert (amended.status_code, amended.json()["version"]) == (200, 3), amended.text
        talk = f"/api/conversations/{practice.conversation}"
        assert practice.doctor.patch(talk, {"status": "closed"}).status_code == 200
    assert {trouble.reason for trouble in compare(practice.settings, elsewhere.settings).troubles} == {"ahead"}
    move(elsewhere.settings, elsewhere.settings, to_embedded=True)
    with practice.running(practice.settings):
        uid = amended.json()["composition_uid"]
        assert practice.doctor.get(f"{at}/letters/{uid}").json()["body"] == "Well again"
        assert practice.doctor.get(f"{at}").headers["etag"] == 'W/"4"'


def test_uid_noted_while_letters_were_elsewhere_is_found_under_the_setting(
    practice: Practice, elsewhere: Elsewhere
) -> None:
    move(practice.settings, elsewhere.settings)
    move(elsewhere.settings, elsewhere.settings, to_embedded=True)
    noted = practice.letter_uids[0].replace("quill.local", "ehrbase.test")
    at = f"/api/patients/{practice.patients[0]}/letters/{noted}"
    with practice.running(practice.settings):
        assert practice.doctor.get(at).status_code == 404
    known = practice.settings.model_copy(update={"openehr_former_systems": ["quill.local", "ehrbase.test"]})
    with practice.running(known):
        answer = practice.doctor.get(at)
        assert (answer.status_code, answer.json()["version"]) == (200, 1)


class Crash(BaseException):
    """The process ends here."""


@pytest.mark.parametrize(("step", "count"), [("Copying FHIR records", 2), ("Copying letters", 1)])
def test_copy_that_was_cut_off_goes_on_when_started_again(
    practice: Practice, elsewhere: Elsewhere, step: str, count: int
) -> None:
    listening = Listening()

    def die(what: str, done: int) -> None:
        if what == step and done >= count:
            raise Crash

    listening.on_step = die
    with pytest.raises(Crash):
        move(practice.settings, elsewhere.settings, listening=listening)
    assert compare(practice.settings, elsewhere.settings).troubles != []
    with practice.running(practice.settings):
        before = practice.seen()
    again = Listening()
    assert move(practice.settings, elsewhere.settings, listening=again).troubles == []
    first = again.reports[0][1]
    assert 0 < first.copied < first.versions
    with practice.running(elsewhere.settings):
        assert unlike(before, practice.seen()) == []


@pytest.mark.parametrize("line", ["fhir_line", "openehr_line"])
def test_server_that_is_lost_in_the_middle_ends_the_copy_and_the_next_one_finishes(
    practice: Practice, elsewhere: Elsewhere, line: str
) -> None:
    listening = Listening()
    broken = getattr(elsewhere, line)

    def cut(what: str, done: int) -> None:
        if what.startswith("Copying") and done == 2:
            # What is asked arrives, and the answer is lost.
            broken.break_with("cut")

    listening.on_step = cut
    with pytest.raises((FhirUnavailable, OpenEhrUnavailable)):
        move(practice.settings, elsewhere.settings, listening=listening)
    broken.mend()
    assert move(practice.settings, elsewhere.settings).troubles == []
    assert compare(practice.settings, elsewhere.settings).troubles == []


def test_what_is_under_an_id_already_is_told_and_never_overwritten(practice: Practice, elsewhere: Elsewhere) -> None:
    move(practice.settings, elsewhere.settings)
    change(
        practice.settings,
        "UPDATE clinical_home SET place = 'embedded'",
        "UPDATE fhir_resource_version SET document = replace(document, 'Smythe', 'Smith-Else') WHERE version = 3",
        "UPDATE openehr_composition SET document = replace(document, 'Not so well', 'Otherwise') WHERE version = 2",
    )
    asked = len(elsewhere.fhir.requests)
    report = move(practice.settings, elsewhere.settings)
    told = {(trouble.record, trouble.reason) for trouble in report.troubles}
    assert (f"Patient/{practice.patients[0]}", "other_content") in told
    assert {f"composition/{letter}" for letter in practice.letters} <= {record for record, _ in told}
    assert {reason for _, reason in told} == {"other_content"}
    assert "PUT" not in {method for method, _, _ in elsewhere.fhir.requests[asked:]}
    assert rows(practice.settings, "SELECT place FROM clinical_home") == [("embedded",), ("embedded",)]


def test_only_comparing_changes_nothing(practice: Practice, elsewhere: Elsewhere) -> None:
    report = compare(practice.settings, elsewhere.settings)
    assert {trouble.reason for trouble in report.troubles} == {"missing"}
    assert {method for method, _, _ in elsewhere.fhir.requests} <= {"GET", "POST"}
    assert not any(call.startswith(("PUT", "POST /ehr", "POST /def")) for call in elsewhere.openehr.calls)
    assert rows(practice.settings, "SELECT place FROM clinical_home") == [("embedded",), ("embedded",)]


def test_messages_written_while_copying_come_along_or_are_refused(practice: Practice, elsewhere: Elsewhere) -> None:
    at = f"/api/conversations/{practice.conversation}"
    taken, refused = [], []
    listening = Listening()

    def write(what: str, done: int) -> None:
        if done > 3:
            return
        answer = practice.doctor.post(f"{at}/messages", {"body": f"While {what}"})
        if answer.status_code == 200:
            taken.append(answer.json())
        else:
            refused.append(answer.json()["error_code"])

    listening.on_step = write
    with practice.running(practice.settings):
        asyncio.run(asyncio.to_thread(move, practice.settings, elsewhere.settings, listening=listening))
        after = practice.doctor.post(f"{at}/messages", {"body": "Too late"})
        assert (after.status_code, after.json()["error_code"]) == (503, "records_moving")
    assert taken
    assert set(refused) == {"records_moving"}
    with practice.running(elsewhere.settings):
        bodies = [message["body"] for message in practice.doctor.get(at).json()["messages"]]
        assert bodies[-len(taken) :] == [message["body"] for message in taken]
        assert practice.doctor.post(f"{at}/messages", {"body": "On we go"}).status_code == 200
    assert {trouble.reason for trouble in compare(practice.settings, elsewhere.settings).troubles} <= {"ahead"}


def test_export_is_in_the_audit_trail_before_anything_leaves(practice: Practice, elsewhere: Elsewhere) -> None:
    elsewhere.fhir_line.break_with("refuse")
    with pytest.raises(FhirUnavailable):
        move(practice.settings, elsewhere.settings)
    elsewhere.fhir_line.mend()
    move(practice.settings, elsewhere.settings)
    trail = "SELECT outcome, subject, reason FROM audit_event WHERE act = 'export:copy' ORDER BY occurred_at"
    assert [row[:2] for row in rows(practice.settings, trail)][-2:] == [
        ("allowed", "begin:fhir+openehr:to-remote"),
        ("allowed", "end:fhir+openehr:to-remote"),
    ]


def test_second_copy_waits_and_gives_up_while_the_first_is_at_it(
    practice: Practice, elsewhere: Elsewhere, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(copying, "DRAIN_SECONDS", 0.3)
    change(practice.settings, "UPDATE clinical_home SET mover = 'another', moving_until = '2999-01-01 00:00:00.000000'")
    with pytest.raises(copying.NotMoved, match="Another copy"):
        move(practice.settings, elsewhere.settings)
    change(practice.settings, "UPDATE clinical_home SET moving_until = '2001-01-01 00:00:00.000000'")
    assert move(practice.settings, elsewhere.settings).troubles == []


def test_lease_that_ran_out_keeps_the_home_where_it_was(practice: Practice, elsewhere: Elsewhere) -> None:
    listening = Listening()

    def stall(what: str, _done: int) -> None:
        if what.startswith("Bringing"):
            statement = "UPDATE clinical_home SET moving_until = '2001-01-01 00:00:00.000000'"
            worker = threading.Thread(target=change, args=(practice.settings, statement))
            worker.start()
            worker.join()

    listening.on_step = stall
    with pytest.raises(copying.NotMoved, match="so long"):
        move(practice.settings, elsewhere.settings, listening=listening)
    assert rows(practice.settings, "SELECT place, mover FROM clinical_home") == [("embedded", None)] * 2
