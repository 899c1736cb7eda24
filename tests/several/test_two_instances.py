"""People whose requests reach now one instance, now the other, and both at once."""

from collections import Counter

import pytest
import time_machine

from quill.auth.service import GRACE_SECONDS
from quill.conversations.models import Message
from tests.accounts.browsers import at_once, code_at, enable_totp, is_signed_in, refused, told, tries
from tests.clinic import Person
from tests.conversations.talk import begin, count, surgery
from tests.several.conftest import Instances

pytestmark = pytest.mark.thorough


def signed_out(instances: Instances, person: Person) -> tuple[Person, Person]:
    """Return browsers of a person at both instances, without cookies."""
    here, there = (Person(clinic.client, person.id, person.username) for clinic in (instances.here, instances.there))
    return here, there


def test_code_of_the_second_factor_is_good_once_at_one_of_them(instances: Instances) -> None:
    person = instances.here.person()
    secret, _ = enable_totp(person)
    browsers = signed_out(instances, person)
    code = code_at(secret)
    answers = at_once(lambda browser: browser.sign_in(totp_code=code), browsers)
    assert sorted(answer.status_code for answer in answers) == [200, 400]
    assert [browser.sign_in(totp_code=code).status_code for browser in signed_out(instances, person)] == [400, 400]


def test_tabs_that_refresh_at_both_at_once_stay_signed_in(instances: Instances) -> None:
    here = instances.here.person()
    there = instances.at_the_other(here)
    answers = at_once(lambda browser: browser.client.post("/api/auth/refresh"), (here, there))
    assert [answer.status_code for answer in answers] == [200, 200]
    assert is_signed_in(here)
    assert is_signed_in(there)


def test_stolen_refresh_token_used_at_one_ends_the_login_at_the_other(
    instances: Instances, later: time_machine.Traveller
) -> None:
    here = instances.here.person()
    thief = instances.at_the_other(here)
    assert here.client.post("/api/auth/refresh").status_code == 200
    later.shift(GRACE_SECONDS + 1)
    assert thief.client.post("/api/auth/refresh").status_code == 401
    assert refused(here.get("/api/auth/me")) == (401, "invalid_token")


def test_idempotency_key_sent_to_both_writes_once(instances: Instances) -> None:
    place = surgery(instances.here)
    here = place.doctor
    conversation = begin(here, place.patient)["id"]
    there = instances.at_the_other(here)

    def send(browser: Person) -> tuple[int, int | None]:
        answer = browser.post(
            f"/api/conversations/{conversation}/messages", {"body": "Seen."}, headers={"Idempotency-Key": "send-1"}
        )
        return answer.status_code, answer.json().get("id")

    answers = at_once(send, (here, there, here, there))
    assert {status for status, _ in answers} <= {200, 409}
    repeated = send(there)
    assert repeated[0] == 200
    assert {number for status, number in answers if status == 200} <= {repeated[1]}
    assert count(instances.here, Message) == 2


def test_attempts_at_both_count_together_where_counters_are_shared(instances: Instances) -> None:
    person = instances.here.person(is_signed_in=False)
    instances.share_throttles()
    clients = [instances.here.client, instances.there.client] * 4
    answers = [tries(client, person.username) for client in clients]
    assert Counter(answer.status_code for answer in answers) == {400: 5, 429: 3}
    # The right password is not looked at either, wherever it is tried.
    assert {tries(client, person.username, "correct horse battery").status_code for client in clients[:2]} == {429}


def test_account_disabled_at_one_is_out_at_the_other_at_once(instances: Instances) -> None:
    person, superadmin = instances.here.person(), instances.here.superadmin()
    there = instances.at_the_other(person)
    assert is_signed_in(there)
    assert superadmin.post(f"/api/users/{person.id}/deactivate").status_code == 200
    assert told(there.get("/api/auth/me"))[0] == 401


def test_sending_and_reading_side_by_side_wait_for_one_another_and_never_for_ever(instances: Instances) -> None:
    place = surgery(instances.here)
    conversation = begin(place.doctor, place.patient, place.nurse)["id"]
    path = f"/api/conversations/{conversation}"
    browsers = [
        browser for person in (place.doctor, place.nurse) for browser in (person, instances.at_the_other(person))
    ]

    def talk(browser: Person) -> set[int]:
        answers = []
        for _ in range(6):
            answers += [browser.post(f"{path}/messages", {"body": "Seen."}), browser.get(path)]
        return {answer.status_code for answer in answers}

    assert at_once(talk, browsers * 2) == [{200}] * 8
    assert count(instances.here, Message) == 1 + 8 * 6
