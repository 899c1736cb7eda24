"""One's own devices, as a browser sees them."""

import datetime
import json
from typing import Any

import pytest
from starlette.testclient import TestClient

from quill.app import create_app
from quill.kit import clock
from quill.push.service import MAXIMUM_DEVICES
from quill.settings import Settings
from tests.clinic import Clinic, Person
from tests.push.conftest import Browser, decoded
from tests.upstreams.push_server import PushService


def subscribe(person: Person, browser: Browser, **changes: Any) -> Any:
    return person.post("/api/push/subscribe", json=browser.subscription | changes)


class TestSubscribe:
    def test_person_subscribes_a_browser(self, clinic: Clinic, push_service: PushService) -> None:
        answer = subscribe(clinic.person(), Browser(f"{push_service.url}/a"))
        assert (answer.status_code, answer.json()) == (200, {"ok": True, "count": 1})

    def test_stranger_and_missing_csrf_are_refused(self, clinic: Clinic, client: TestClient) -> None:
        """Gap: anonymous and unlimited."""
        body = Browser("http://127.0.0.1:1/a").subscription
        assert client.post("/api/push/subscribe", json=body).status_code == 401
        answer = clinic.person().client.post("/api/push/subscribe", json=body)
        assert (answer.status_code, answer.json()["detail"]) == (403, "CSRF failed")

    @pytest.mark.parametrize(
        ("endpoint", "reason"),
        [
            ("http://169.254.169.254/latest/meta-data", "address_not_public"),
            ("https://10.0.0.1/x", "address_not_public"),
            ("https://[fd00::1]/x", "address_not_public"),
            ("http://93.184.216.34/x", "not_https"),
            ("https://u:p@93.184.216.34/x", "not_a_url"),
            ("gopher://93.184.216.34/x", "not_https"),
            ("anything", "not_https"),
        ],
    )
    def test_endpoint_that_leads_inwards_is_refused(self, clinic: Clinic, endpoint: str, reason: str) -> None:
        """Gap: endpoint is an arbitrary URL the server will later POST to (SSRF)."""
        person = clinic.person()
        answer = subscribe(person, Browser(endpoint))
        assert answer.status_code == 422
        (error,) = answer.json()["errors"]
        assert error["loc"] == ["body", "endpoint"]
        assert error["type"] in {reason, "not_a_url"}
        assert person.post("/api/push/send-test").json()["detail"] == "No subscribers yet"

    def test_count_is_of_the_callers_own_devices(self, clinic: Clinic, push_service: PushService) -> None:
        """Gap: count discloses the number of subscribers."""
        first, second = clinic.person(), clinic.person()
        subscribe(first, Browser(f"{push_service.url}/a"))
        subscribe(first, Browser(f"{push_service.url}/b"))
        assert subscribe(second, Browser(f"{push_service.url}/c")).json()["count"] == 1

    @pytest.mark.parametrize("time", [None, 0, 1893456000000, 1893456000000.25, 8.64e15])
    def test_every_time_a_browser_gives_is_taken(
        self, clinic: Clinic, push_service: PushService, time: float | None
    ) -> None:
        """Gap: expirationTime null is typical, fractional values are refused."""
        answer = subscribe(clinic.person(), Browser(f"{push_service.url}/a"), expirationTime=time)
        assert answer.status_code == 200
        assert answer.json()["count"] == (0 if time == 0 else 1)

    def test_time_may_be_left_out(self, clinic: Clinic, push_service: PushService) -> None:
        body = Browser(f"{push_service.url}/a").subscription
        del body["expirationTime"]
        assert clinic.person().post("/api/push/subscribe", json=body).status_code == 200

    def test_same_endpoint_again_takes_the_new_keys(self, clinic: Clinic, push_service: PushService) -> None:
        """A repeat with new keys kept the old keys in the reference; the browser could then read nothing."""
        person, endpoint = clinic.person(), f"{push_service.url}/a"
        subscribe(person, Browser(endpoint))
        renewed = Browser(endpoint)
        assert subscribe(person, renewed).json()["count"] == 1
        assert person.post("/api/push/send-test").json()["sent"] is True
        assert renewed.shown(push_service.received[0].body)["title"]

    def test_browser_that_changes_hands_belongs_to_the_new_person(
        self, clinic: Clinic, push_service: PushService
    ) -> None:
        first, second, browser = clinic.person(), clinic.person(), Browser(f"{push_service.url}/a")
        subscribe(first, browser)
        subscribe(second, browser)
        assert first.post("/api/push/send-test").status_code == 400
        assert second.post("/api/push/send-test").json()["sent"] is True

    def test_devices_beyond_the_limit_replace_the_one_unconfirmed_for_longest(
        self, clinic: Clinic, push_service: PushService
    ) -> None:
        person = clinic.person()
        for number in range(MAXIMUM_DEVICES + 1):
            answer = subscribe(person, Browser(f"{push_service.url}/{number}"))
        assert answer.json()["count"] == MAXIMUM_DEVICES
        person.post("/api/push/send-test")
        reached = {received.path for received in push_service.received}
        assert reached == {f"/{number}" for number in range(1, MAXIMUM_DEVICES + 1)}

    def test_too_many_calls_are_refused(self, clinic: Clinic, push_service: PushService) -> None:
        person, browser = clinic.person(), Browser(f"{push_service.url}/a")
        answers = [subscribe(person, browser).status_code for _ in range(31)]
        assert answers == [200] * 30 + [429]

    @pytest.mark.parametrize(
        "changes",
        [
            {"endpoint": None},
            {"endpoint": ""},
            {"endpoint": 5},
            {"endpoint": "https://93.184.216.34/" + "a" * 2048},
            {"endpoint": "https://93.184.216.34/\x00"},
            {"endpoint": "https://93.184.216.34/\ud800"},
            {"expirationTime": "soon"},
            {"expirationTime": -1},
            {"expirationTime": 1e300},
            {"expirationTime": True},
            {"keys": None},
            {"keys": {}},
            {"keys": {"p256dh": "AAAA", "auth": "AAAA"}},
            {"keys": {"p256dh": "A" * 101, "auth": "AAAA"}},
            {"keys": {"p256dh": "é", "auth": "é"}},
            {"unknown": 1},
        ],
    )
    def test_malformed_subscription_is_refused_and_changes_nothing(
        self, clinic: Clinic, push_service: PushService, changes: dict[str, Any]
    ) -> None:
        """Gap: one malformed subscription makes every call fail with 500."""
        person = clinic.person()
        body = Browser(f"{push_service.url}/a").subscription | changes
        answer = person.client.post(
            "/api/push/subscribe", content=_json(body), headers=person.csrf | {"Content-Type": "application/json"}
        )
        assert answer.status_code == 422
        assert "A" * 50 not in answer.text
        assert person.post("/api/push/send-test").status_code == 400

    def test_unknown_query_is_refused(self, clinic: Clinic, push_service: PushService) -> None:
        body = Browser(f"{push_service.url}/a").subscription
        assert clinic.person().post("/api/push/subscribe?x=1", json=body).status_code == 422


class TestUnsubscribe:
    def test_person_forgets_a_device(self, clinic: Clinic, push_service: PushService) -> None:
        """Gap: no unsubscribe."""
        person, browser = clinic.person(), Browser(f"{push_service.url}/a")
        subscribe(person, browser)
        answer = person.post("/api/push/unsubscribe", json={"endpoint": browser.endpoint})
        assert (answer.status_code, answer.json()) == (200, {"ok": True, "count": 0})
        assert person.post("/api/push/send-test").status_code == 400

    def test_device_of_somebody_else_stays(self, clinic: Clinic, push_service: PushService) -> None:
        owner, other, browser = clinic.person(), clinic.person(), Browser(f"{push_service.url}/a")
        subscribe(owner, browser)
        assert other.post("/api/push/unsubscribe", json={"endpoint": browser.endpoint}).status_code == 200
        assert owner.post("/api/push/send-test").json()["sent"] is True

    def test_stranger_and_missing_csrf_are_refused(self, clinic: Clinic, client: TestClient) -> None:
        body = {"endpoint": "https://push.example.net/a"}
        assert client.post("/api/push/unsubscribe", json=body).status_code == 401
        assert clinic.person().client.post("/api/push/unsubscribe", json=body).status_code == 403


class TestVapidKey:
    def test_key_is_published_to_who_is_signed_in_and_stays_the_same(self, clinic: Clinic, client: TestClient) -> None:
        """Gap: there is no endpoint that publishes the VAPID public key."""
        answer = clinic.person().get("/api/push/vapid-public-key")
        assert answer.status_code == 200
        point = decoded(answer.json()["public_key"])
        assert (len(point), point[0]) == (65, 4)
        assert clinic.person().get("/api/push/vapid-public-key").json() == answer.json()
        assert client.get("/api/push/vapid-public-key").status_code == 401

    def test_generated_key_is_private(self, settings: Settings) -> None:
        unset = settings.model_copy(update={"vapid_private_key": None})
        with TestClient(create_app(unset)):
            assert (unset.data_dir / "vapid.key").stat().st_mode & 0o777 == 0o600


class TestSendTest:
    def test_only_the_callers_own_devices_are_notified(self, clinic: Clinic, push_service: PushService) -> None:
        """Gap: anyone can notify every subscriber."""
        first, second = clinic.person(), clinic.person()
        browser = Browser(f"{push_service.url}/first")
        subscribe(first, browser)
        subscribe(second, Browser(f"{push_service.url}/second"))
        answer = first.post("/api/push/send-test")
        assert (answer.status_code, answer.json()) == (200, {"sent": True, "removed": []})
        assert [received.path for received in push_service.received] == ["/first"]
        shown = browser.shown(push_service.received[0].body)
        assert set(shown) == {"title", "body", "data"}
        assert shown["data"] == {"url": "/app/"}

    def test_without_a_device_there_is_nothing_to_send(self, clinic: Clinic) -> None:
        answer = clinic.person().post("/api/push/send-test", json={})
        assert (answer.status_code, answer.json()["detail"]) == (400, "No subscribers yet")

    def test_stranger_and_missing_csrf_are_refused(self, clinic: Clinic, client: TestClient) -> None:
        """Gap: anyone can notify."""
        assert client.post("/api/push/send-test").status_code == 401
        assert clinic.person().client.post("/api/push/send-test").status_code == 403

    def test_tests_are_throttled(self, clinic: Clinic, push_service: PushService) -> None:
        """Gap: as often as they like."""
        person = clinic.person()
        subscribe(person, Browser(f"{push_service.url}/a"))
        answers = [person.post("/api/push/send-test") for _ in range(6)]
        assert [answer.status_code for answer in answers] == [200] * 5 + [429]
        assert int(answers[-1].headers["Retry-After"]) > 0

    def test_device_that_cannot_be_reached_does_not_starve_the_others(
        self, clinic: Clinic, push_service: PushService
    ) -> None:
        """Gap: one unreachable subscription makes every call fail and starves those after it."""
        person = clinic.person()
        subscribe(person, Browser("http://127.0.0.1:9/unreachable"))
        subscribe(person, Browser(f"{push_service.url}/a"))
        assert person.post("/api/push/send-test").json() == {"sent": True, "removed": []}

    def test_only_devices_that_no_longer_exist_are_forgotten(self, clinic: Clinic, push_service: PushService) -> None:
        """An error status dropped the subscription in the reference, temporary errors included."""
        person = clinic.person()
        for path, status in (("/gone", 410), ("/unknown", 404), ("/busy", 503), ("/often", 429)):
            push_service.answer(path, status)
            subscribe(person, Browser(f"{push_service.url}{path}"))
        answer = person.post("/api/push/send-test").json()
        assert answer == {"sent": False, "removed": [f"{push_service.url}/gone", f"{push_service.url}/unknown"]}
        push_service.received.clear()
        person.post("/api/push/send-test")
        assert {received.path for received in push_service.received} == {"/busy", "/often"}

    def test_sent_is_false_when_no_device_was_reached(self, clinic: Clinic) -> None:
        """Sent was true even when every delivery failed."""
        person = clinic.person()
        subscribe(person, Browser("http://127.0.0.1:9/unreachable"))
        assert person.post("/api/push/send-test").json() == {"sent": False, "removed": []}

    def test_unknown_field_is_refused(self, clinic: Clinic) -> None:
        assert clinic.person().post("/api/push/send-test", json={"to": "all"}).status_code == 422

    def test_expired_subscription_is_not_used(
        self, clinic: Clinic, push_service: PushService, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        person = clinic.person()
        soon = clock.now().timestamp() * 1000 + 60_000
        subscribe(person, Browser(f"{push_service.url}/a"), expirationTime=soon)
        assert person.post("/api/push/send-test").status_code == 200
        real = clock.now
        monkeypatch.setattr(clock, "now", lambda: real() + datetime.timedelta(minutes=2))
        assert person.post("/api/push/send-test").status_code == 400


def test_devices_outlive_a_restart(clinic: Clinic, push_service: PushService) -> None:
    """Gap: not tied to users, lost on restart, split between the two workers."""
    person = clinic.person()
    subscribe(person, Browser(f"{push_service.url}/a"))
    with TestClient(create_app(clinic.services.settings), cookies=person.client.cookies) as restarted:
        answer = restarted.post("/api/push/send-test", headers=person.csrf)
    assert answer.json() == {"sent": True, "removed": []}


def _json(body: dict[str, Any]) -> bytes:
    return json.dumps(body).encode()
