"""Letters when the openEHR store is elsewhere, away, or wrong: nothing is lost, doubled or taken for absent."""

import asyncio
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa
from starlette.testclient import TestClient

from quill import app
from quill.errors import InvalidRecord, OpenEhrRefused, OpenEhrUnavailable, QuillError
from quill.identity import service as identity
from quill.intents.models import Intent
from quill.kit.database import Database
from quill.kit.ids import PatientId, UserId
from quill.letters import service as letters
from quill.letters.composition import TEMPLATE_ID
from quill.letters.service import LetterDraft, LetterPath
from quill.settings import Settings
from quill.unit import RequestFacts, Services, Unit, open_unit
from tests.clinic import Clinic, Person
from tests.conftest import cheap_settings
from tests.letters.desk import LETTER, letters_of, put_elsewhere, sweep, trail, uids, use
from tests.remote_like import Line, with_remote_openehr

KEY = {"Idempotency-Key": "letter-1"}


class Crash(BaseException):
    """The process ends here."""


@pytest.fixture
def surgery(clinic: Clinic) -> int:
    return clinic.organisation()


@pytest.fixture
def doctor(clinic: Clinic, surgery: int) -> Person:
    return clinic.clinician(surgery, full_name="Doctor Who")


@pytest.fixture
def patient(clinic: Clinic, surgery: int) -> str:
    return clinic.patient(surgery)


@pytest.fixture
def uid(doctor: Person, patient: str) -> str:
    """Return the uid of a letter that was there before the trouble."""
    answer = doctor.post(letters_of(patient), LETTER)
    assert answer.status_code == 200, answer.text
    return str(answer.json()["composition_uid"])


@pytest.fixture
def line(clinic: Clinic, uid: str) -> Line:
    assert uid
    return put_elsewhere(clinic)


def write(doctor: Person, patient: str, **changes: Any) -> Any:
    return doctor.post(letters_of(patient), LETTER | changes, headers=KEY)


def amend(doctor: Person, patient: str, uid: str, version: int = 1, **changes: Any) -> Any:
    url = f"{letters_of(patient)}/{uid}"
    return doctor.put(url, LETTER | changes, headers=KEY | {"If-Match": f'W/"{version}"'})


def states(clinic: Clinic) -> list[str]:
    async def read(unit: Unit) -> list[str]:
        return list(await unit.session.scalars(sa.select(Intent.state).order_by(Intent.id)))

    found: list[str] = clinic.in_unit(read)
    return found


@pytest.mark.parametrize(
    ("trouble", "told"),
    [(OpenEhrUnavailable, (503, "openehr_unavailable")), (OpenEhrRefused, (502, "openehr_refused"))],
)
def test_trouble_with_the_store_is_told_and_never_looks_like_no_letters(
    clinic: Clinic,
    doctor: Person,
    patient: str,
    uid: str,
    line: Line,
    trouble: type[QuillError],
    told: tuple[int, str],
) -> None:
    """gap: outage looked exactly like 'no letters'; outage reported as absence; exception text in the answer."""
    line.cut(trouble("the store's own words"))
    url = letters_of(patient)
    for answer in (
        doctor.get(url),
        doctor.get(f"{url}/{uid}"),
        doctor.get(f"{url}/{uid}/versions"),
        doctor.post(url, LETTER),
        doctor.put(f"{url}/{uid}", LETTER, headers={"If-Match": 'W/"1"'}),
    ):
        assert (answer.status_code, answer.json()["error_code"]) == told
        assert ("retry-after" in answer.headers) == (answer.status_code == 503)
    failed = [row for row in trail(clinic, doctor, patient) if row[1] == "failed"]
    assert [row[0] for row in failed] == ["letter:list", "letter:read", "letter:read", "letter:write", "letter:amend"]

    line.mend()
    assert uids(doctor, patient) == [uid]
    sweep(clinic)
    assert uids(doctor, patient) == [uid]


def test_store_elsewhere_serves_letters_like_one_at_home(doctor: Person, patient: str, uid: str, line: Line) -> None:
    second = write(doctor, patient, title="Second")
    assert second.status_code == 200
    assert write(doctor, patient, title="Second").json() == second.json()
    amended = doctor.put(f"{letters_of(patient)}/{uid}", LETTER, headers={"If-Match": 'W/"1"'})
    assert amended.json()["version"] == 2
    stale = doctor.put(f"{letters_of(patient)}/{uid}", LETTER | {"body": "B"}, headers={"If-Match": 'W/"1"'})
    assert stale.status_code == 412
    assert uids(doctor, patient) == [second.json()["composition_uid"], amended.json()["composition_uid"]]
    assert line.count("write") == 2


def test_letter_that_arrived_without_an_answer_is_found_by_the_sweep(
    clinic: Clinic, doctor: Person, patient: str, uid: str, line: Line
) -> None:
    line.lose_next("write", OpenEhrUnavailable)
    assert write(doctor, patient).status_code == 503
    assert sweep(clinic) == 1
    new, old = uids(doctor, patient)
    assert old == uid
    assert ("letter:write", "allowed", "") in trail(clinic, doctor, patient)
    assert write(doctor, patient).json()["composition_uid"] == new
    assert line.count("write") == 1


def test_letter_that_never_arrived_is_abandoned(
    clinic: Clinic, doctor: Person, patient: str, uid: str, line: Line
) -> None:
    line.refuse_next("write", OpenEhrUnavailable)
    assert write(doctor, patient).status_code == 503
    assert sweep(clinic) == 1
    assert uids(doctor, patient) == [uid]
    assert states(clinic) == ["abandoned"]


@pytest.mark.parametrize("has_arrived", [True, False])
def test_same_call_after_the_outage_writes_the_letter_once(
    clinic: Clinic, doctor: Person, patient: str, uid: str, line: Line, has_arrived: bool
) -> None:
    (line.lose_next if has_arrived else line.refuse_next)("write", OpenEhrUnavailable)
    assert write(doctor, patient).status_code == 503
    answer = write(doctor, patient)
    assert answer.status_code == 200
    assert uids(doctor, patient) == [answer.json()["composition_uid"], uid]
    assert sweep(clinic) == 0
    assert uids(doctor, patient) == [answer.json()["composition_uid"], uid]


def test_refused_letter_leaves_nothing_to_see(
    clinic: Clinic, doctor: Person, patient: str, uid: str, line: Line
) -> None:
    line.refuse_next("write", OpenEhrRefused)
    answer = write(doctor, patient)
    assert (answer.status_code, answer.json()["error_code"]) == (502, "openehr_refused")
    assert uids(doctor, patient) == [uid]
    assert sweep(clinic) == 1
    assert uids(doctor, patient) == [uid]
    assert write(doctor, patient).status_code == 200


def test_amendment_that_arrived_without_an_answer_is_made_once(
    clinic: Clinic, doctor: Person, patient: str, uid: str, line: Line
) -> None:
    line.lose_next("write", OpenEhrUnavailable)
    assert amend(doctor, patient, uid, body="Second").status_code == 503
    third = doctor.put(f"{letters_of(patient)}/{uid}", LETTER | {"body": "Third"}, headers={"If-Match": 'W/"2"'})
    assert third.json()["version"] == 3
    assert sweep(clinic) == 1
    answer = amend(doctor, patient, uid, body="Second")
    assert (answer.status_code, answer.json()["version"]) == (200, 2)
    versions = doctor.get(f"{letters_of(patient)}/{uid}/versions").json()["versions"]
    assert [row["version"] for row in versions] == [3, 2, 1]
    assert trail(clinic, doctor, patient).count(("letter:amend", "allowed", "")) == 2


def test_amendment_somebody_overtook_is_abandoned(
    clinic: Clinic, doctor: Person, patient: str, uid: str, line: Line
) -> None:
    line.refuse_next("write", OpenEhrUnavailable)
    assert amend(doctor, patient, uid, body="Mine").status_code == 503
    overtaking = doctor.put(f"{letters_of(patient)}/{uid}", LETTER | {"body": "Theirs"}, headers={"If-Match": 'W/"1"'})
    assert overtaking.status_code == 200
    assert sweep(clinic) == 1
    assert states(clinic) == ["abandoned", "done"]
    assert amend(doctor, patient, uid, body="Mine").status_code == 412


@pytest.mark.parametrize("moment", ["before the write", "after the write"])
@pytest.mark.parametrize("is_amendment", [False, True])
def test_crash_between_two_steps_leaves_a_whole_letter(
    clinic: Clinic, doctor: Person, patient: str, uid: str, line: Line, moment: str, is_amendment: bool
) -> None:
    async def call() -> None:
        async with clinic.services.database.reading() as session:
            actor = await identity.find_actor(session, clinic.services.settings, UserId(doctor.id))
        assert actor is not None
        draft = LetterDraft(LETTER["title"], LETTER["body"])
        async with open_unit(clinic.services, RequestFacts("crashing", "test")) as unit:
            if is_amendment:
                path = LetterPath(PatientId(patient), uid)
                await letters.amend_letter(unit, actor, path, draft, replaces=1, idempotency_key="letter-1")
            else:
                await letters.write_letter(unit, actor, PatientId(patient), draft, "letter-1")

    async def call_and_crash() -> None:
        with pytest.raises(Crash):
            await call()

    (line.refuse_next if moment == "before the write" else line.lose_next)("write", Crash)
    clinic.run(call_and_crash)
    assert sweep(clinic) == 1
    assert sweep(clinic) == 0

    again = amend(doctor, patient, uid) if is_amendment else write(doctor, patient)
    assert again.status_code == 200, again.text
    assert again.json()["composition_uid"] == uids(doctor, patient)[0]
    assert len(uids(doctor, patient)) == (1 if is_amendment else 2)
    act = "letter:amend" if is_amendment else "letter:write"
    assert trail(clinic, doctor, patient).count((act, "allowed", "")) == (1 if is_amendment else 2)


def test_store_that_forgot_the_template_is_taught_it_again(doctor: Person, patient: str, line: Line) -> None:
    line.refuse_next("write", InvalidRecord)
    assert doctor.post(letters_of(patient), LETTER).status_code == 200
    assert line.calls[-3:] == ["write", "ensure_template", "write"]
    for _ in range(2):
        line.refuse_next("write", InvalidRecord)
    answer = doctor.post(letters_of(patient), LETTER)
    assert (answer.status_code, answer.json()["error_code"]) == (502, "openehr_refused")


def test_template_is_there_once_the_program_has_started(clinic: Clinic) -> None:
    async def known(unit: Unit) -> list[str]:
        return await unit.openehr.list_templates()

    clinic.run(letters.ensure_template, clinic.services)
    clinic.run(letters.ensure_template, clinic.services)
    assert clinic.in_unit(known) == [TEMPLATE_ID]


async def forget_templates(settings: Settings) -> None:
    database = Database(settings.resolved_database_url)
    async with database.writing() as session:
        await session.execute(sa.text("DELETE FROM openehr_template"))
    await database.dispose()


def test_program_starts_without_the_store_and_teaches_it_later(
    monkeypatch: pytest.MonkeyPatch, settings: Settings
) -> None:
    line = Line()
    line.cut(OpenEhrUnavailable)
    monkeypatch.setattr(app, "TEMPLATE_RETRY_SECONDS", 0.01)
    asyncio.run(forget_templates(settings))

    def open_services(own: Settings) -> Services:
        return with_remote_openehr(app.build_services(own), line)

    async def known(unit: Unit) -> list[str]:
        return await unit.openehr.list_templates()

    with TestClient(app.create_app(settings, open_services=open_services), raise_server_exceptions=False) as late:
        while not line.count("ensure_template"):
            assert late.get("/api/health/live").status_code == 200
        line.mend()
        # The timeout of the test ends this if nobody asks again.
        while Clinic(late).in_unit(known) != [TEMPLATE_ID]:
            assert late.get("/api/health/live").status_code == 200
    assert line.count("ensure_template") > 1


def test_letters_are_off_with_the_clinical_services(
    tmp_path: Path, clinic: Clinic, doctor: Person, patient: str, uid: str
) -> None:
    settings = cheap_settings(tmp_path, clinical_services_enabled=False)
    use(clinic, replace(clinic.services, settings=settings))
    url = letters_of(patient)
    for answer in (doctor.get(url), doctor.get(f"{url}/{uid}"), doctor.post(url, LETTER)):
        assert answer.status_code == 503
        assert answer.json()["detail"] == "Clinical services are not available in this deployment"
