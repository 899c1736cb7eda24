"""The mail server or a push service away, slow or wrong: the cause is acknowledged, and what it causes comes once."""

import itertools
import re
from collections.abc import Callable, Iterator
from contextlib import ExitStack
from dataclasses import dataclass
from typing import Any

import pytest
from fastapi import FastAPI

from quill.adapters.mail import smtp
from quill.adapters.push import webpush
from quill.health import service as health
from quill.outbox import worker
from tests.accounts.browsers import stranger
from tests.clinic import Clinic, Person
from tests.conftest import cheap_settings
from tests.databases import Databases, directory_for_files
from tests.faults.house import Call, all_at_once, fresh_database, new_sign_in, started, until
from tests.outbox.conftest import entries
from tests.push.conftest import Browser
from tests.upstreams.faults import FaultyLine, faulty_line
from tests.upstreams.mail_server import Mailbox, serving_mail
from tests.upstreams.push_server import PushService, serving_push

TOO_LONG = 0.3
"""Seconds after which an attempt is given up here; 10 otherwise."""
SLOW_SECONDS = 10.0
sources = (f"10.0.0.{number}" for number in itertools.count(1))


@dataclass(frozen=True)
class House:
    """The application, and the lines to where mails and notifications go."""

    clinic: Clinic
    mail: FaultyLine
    mailbox: Mailbox
    push: FaultyLine
    service: PushService
    surgery: int

    def newest(self) -> dict[str, Any]:
        """Return the newest entry of the queue."""
        found: list[dict[str, Any]] = self.clinic.run(entries, self.clinic.services)
        return found[-1]

    def others(self, person: Person) -> dict[str, Call]:
        """Return calls that have nothing to do with the queue."""
        return {
            "sign-in": new_sign_in(person),
            "me": lambda: person.get("/api/auth/me"),
            "conversations": lambda: person.get("/api/conversations"),
            "health": lambda: person.get("/api/health"),
        }


@pytest.fixture(scope="module")
def house(application: FastAPI, tmp_path_factory: pytest.TempPathFactory, databases: Databases) -> Iterator[House]:
    directory = directory_for_files(tmp_path_factory, "queue-faults")
    with ExitStack() as stack:
        url = stack.enter_context(fresh_database(databases, directory))
        patch = stack.enter_context(pytest.MonkeyPatch.context())
        for module, name, value in (
            (worker, "LOOK_SECONDS", 0.05),
            (worker, "FIRST_PAUSE_SECONDS", 0.1),
            (worker, "LONGEST_PAUSE_SECONDS", 0.1),
            (health, "CACHE_SECONDS", 0.0),
        ):
            patch.setattr(module, name, value)
        mailbox, service = stack.enter_context(serving_mail()), stack.enter_context(serving_push())
        mail = stack.enter_context(faulty_line(f"127.0.0.1:{mailbox.port}"))
        push = stack.enter_context(faulty_line(service.url))
        settings = cheap_settings(directory, database_url=url, smtp_url=f"smtp://127.0.0.1:{mail.port}")
        clinic = Clinic(stack.enter_context(started(application, settings)))
        yield House(clinic, mail, mailbox, push, service, clinic.organisation())


@pytest.fixture(autouse=True)
def everything_mended(house: House) -> Iterator[None]:
    yield
    house.mail.mend()
    house.push.mend()
    house.mailbox.answer, house.mailbox.recipient_answer = "250 OK", None
    house.service.answers.clear()


@pytest.fixture
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(smtp, "STEP_SECONDS", TOO_LONG)
    monkeypatch.setattr(smtp, "DEADLINE_SECONDS", 2 * TOO_LONG)
    monkeypatch.setattr(webpush, "DEADLINE_SECONDS", TOO_LONG)


def forget_password(house: House) -> str:
    """Ask for a reset link as a person new to the house; returns the address it goes to."""
    person = house.clinic.person(is_signed_in=False)
    address = f"{person.username}@example.org"
    answer = stranger(house.clinic, next(sources)).post("/api/auth/forgot-password", json={"email": address})
    assert answer.status_code == 200
    return address


def mails_to(house: House, address: str) -> int:
    return house.mailbox.recipients.count(address)


MAIL_FAULTS: dict[str, Callable[[House], None]] = {
    "refused": lambda house: house.mail.break_with("refuse"),
    "timeout": lambda house: house.mail.break_with("hang"),
    "500": lambda house: house.mail.break_with("speak", b"554 no\r\n"),
    "429": lambda house: setattr(house.mailbox, "recipient_answer", "450 4.2.1 too many"),
    "half": lambda house: house.mail.break_with("speak", b"220 mail.exa"),
    "content-type": lambda house: house.mail.break_with("speak", b"HTTP/1.1 400 Bad Request\r\n\r\n"),
    "restart": lambda house: house.mail.break_with("cut"),
}


@pytest.mark.thorough
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", MAIL_FAULTS)
def test_mail_waits_for_its_server_and_comes_once(house: House, fault: str) -> None:
    MAIL_FAULTS[fault](house)
    address = forget_password(house)
    until(lambda: house.newest()["attempts"] >= 2)
    outcomes = all_at_once(house.others(house.clinic.clinician(house.surgery)))
    assert {outcome.told for outcome in outcomes.values()} == {(200, "")}
    waiting = house.newest()
    assert waiting["state"] == "pending"
    assert re.fullmatch(r"smtp_\w+|recipient_refused|", waiting["last_error"] or "")
    house.mail.mend()
    house.mailbox.recipient_answer = None
    until(lambda: house.newest()["state"] == "sent", SLOW_SECONDS)
    forget_password(house)
    until(lambda: house.newest()["state"] == "sent", SLOW_SECONDS)
    assert mails_to(house, address) == 1


def test_slow_mail_server_is_given_its_time(house: House) -> None:
    house.mail.break_with("slow")
    address = forget_password(house)
    until(lambda: mails_to(house, address), SLOW_SECONDS)
    until(lambda: house.newest()["state"] == "sent", SLOW_SECONDS)
    assert (mails_to(house, address), house.newest()["attempts"]) == (1, 1)


def test_mail_refused_for_good_is_not_tried_again(house: House) -> None:
    house.mailbox.recipient_answer = "550 5.1.1 nobody of that name"
    address = forget_password(house)
    until(lambda: house.newest()["state"] == "failed")
    assert (house.newest()["attempts"], house.newest()["payload"], mails_to(house, address)) == (1, None, 0)


def send_message(house: House) -> str:
    """Send a message to somebody with a device; returns the path of the device at its push service."""
    sender, receiver = (house.clinic.clinician(house.surgery) for _ in range(2))
    path = f"/{receiver.username}"
    device = Browser(f"http://127.0.0.1:{house.push.port}{path}")
    assert receiver.post("/api/push/subscribe", device.subscription).status_code == 200
    begun = {
        "patient_id": house.clinic.patient(house.surgery),
        "subject": "Tests",
        "initial_message": "Hello",
        "participant_ids": [receiver.id],
    }
    assert sender.post("/api/conversations", begun).status_code == 200
    assert receiver.get("/api/conversations").json()["conversations"][0]["unread_count"] == 1
    return path


def notified(house: House, path: str) -> int:
    return sum(received.path == path for received in house.service.received)


def half_an_answer(line: FaultyLine) -> None:
    line.break_with("answer", b"HTTP/1.1 201 Crea")


PUSH_FAULTS: dict[str, Callable[[House], None]] = {
    "refused": lambda house: house.push.break_with("refuse"),
    "timeout": lambda house: house.push.break_with("hang"),
    "500": lambda house: house.push.answer_http(500),
    "429": lambda house: house.push.answer_http(429, headers=(("Retry-After", "1"),)),
    "half": lambda house: half_an_answer(house.push),
    "restart": lambda house: house.push.answer_http(503),
}


@pytest.mark.thorough
@pytest.mark.usefixtures("impatient")
@pytest.mark.parametrize("fault", PUSH_FAULTS)
def test_notification_waits_for_the_push_service_and_comes_once(house: House, fault: str) -> None:
    PUSH_FAULTS[fault](house)
    path = send_message(house)
    until(lambda: house.newest()["attempts"] >= 2)
    assert house.newest()["state"] == "pending"
    outcomes = all_at_once(house.others(house.clinic.clinician(house.surgery)))
    assert {outcome.told for outcome in outcomes.values()} == {(200, "")}
    house.push.mend()
    until(lambda: house.newest()["state"] == "sent", SLOW_SECONDS)
    assert notified(house, path) == 1


@pytest.mark.parametrize("answer", ["slow", "a page"])
def test_answer_of_a_push_service_counts_by_its_status(house: House, answer: str) -> None:
    """A slow one has its time; of what kind the answer is does not matter, it has no content (RFC 8030, section 5)."""
    if answer == "slow":
        house.push.break_with("slow")
    else:
        house.push.answer_http(201, b"<html>Created</html>", "text/html")
    send_message(house)
    until(lambda: house.newest()["state"] == "sent", SLOW_SECONDS)
    assert house.newest()["attempts"] == 1


def test_notification_whose_answer_was_lost_is_repeated_until_one_arrives(house: House) -> None:
    """The push service took it and nobody knows: it may show twice, and is never lost."""
    house.push.break_with("cut")
    path = send_message(house)
    until(lambda: house.newest()["attempts"] >= 2)
    house.push.mend()
    until(lambda: house.newest()["state"] == "sent", SLOW_SECONDS)
    assert notified(house, path) >= 2


def test_device_that_is_gone_is_not_tried_again(house: House) -> None:
    house.push.answer_http(410)
    path = send_message(house)
    until(lambda: house.newest()["state"] == "failed")
    assert (house.newest()["attempts"], notified(house, path)) == (1, 0)
