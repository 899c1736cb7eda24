"""Which addresses the server lets a browser make it connect to."""

import ipaddress
import socket

import pytest

from quill.adapters.push.addresses import LookupFailed, is_public, judge
from quill.adapters.push.vapid import Vapid, new_private_key
from quill.adapters.push.webpush import WebPushSender
from quill.ports.push import UnusableDevice
from tests.push.conftest import Browser
from tests.upstreams.push_server import PushService

pytestmark = pytest.mark.anyio

PUBLIC = "93.184.216.34"
KEY = new_private_key()


async def public_only(host: str, port: int) -> list[str]:
    del host, port
    return [PUBLIC, "2606:2800:220:1:248:1893:25c8:1946"]


async def test_public_name_is_judged_once_and_keeps_its_addresses() -> None:
    place = await judge("https://push.example.net/x", allows_loopback=False, lookup=public_only)
    assert (place.origin, place.host) == ("https://push.example.net", "push.example.net")
    assert str(place.addresses[0]) == PUBLIC


@pytest.mark.parametrize(
    ("endpoint", "reason"),
    [
        ("http://push.example.net/x", "not_https"),
        ("ftp://push.example.net/x", "not_https"),
        ("file:///etc/passwd", "not_a_url"),
        ("https:///x", "not_a_url"),
        ("https://user:pass@push.example.net/x", "not_a_url"),
        ("https://push.example.net@127.0.0.1/x", "not_a_url"),
        ("https://push.example.net:8443/x", "port_not_allowed"),
        ("https://push.example.net:70000/x", "not_a_url"),
        ("https://push.example.net\\@127.0.0.1/", "not_a_url"),
        ("https://push.example.net/ x", "not_a_url"),
        ("https://pusch\u00e9.example/x", "not_a_url"),
        ("https://[::1]/x", "address_not_public"),
        ("https://[::1", "not_a_url"),
        ("https://127.0.0.1/x", "address_not_public"),
        ("https://10.1.2.3/x", "address_not_public"),
        ("https://169.254.169.254/latest/meta-data", "address_not_public"),
        ("https://[::ffff:169.254.169.254]/", "address_not_public"),
        ("https://0.0.0.0/", "address_not_public"),
        ("nonsense", "not_a_url"),
        ("https://" + "a" * 2050, "not_a_url"),
    ],
)
async def test_address_that_must_not_be_sent_to_is_refused(endpoint: str, reason: str) -> None:
    with pytest.raises(UnusableDevice) as refusal:
        await judge(endpoint, allows_loopback=False, lookup=public_only)
    assert refusal.value.reason == reason


INNER = (
    "127.0.0.1 10.0.0.1 172.16.0.1 192.168.1.1 169.254.169.254 100.64.0.1 0.0.0.0 224.0.0.1 255.255.255.255 192.0.2.1 "
    "198.18.0.1 240.0.0.1 :: ::1 fe80::1 fc00::1 ff02::1 ::ffff:10.0.0.1 64:ff9b::a00:1 2002:a00:1:: 2001:db8::1 "
    "::127.0.0.1"
)


@pytest.mark.parametrize("address", INNER.split())
def test_no_inner_address_counts_as_public_however_it_is_wrapped(address: str) -> None:
    assert not is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("address", [PUBLIC, "2606:4700::1", "64:ff9b::5db8:d822", "::ffff:93.184.216.34"])
def test_public_address_counts_as_public(address: str) -> None:
    assert is_public(ipaddress.ip_address(address))


@pytest.mark.parametrize("found", [["127.0.0.1"], [PUBLIC, "10.0.0.1"], ["fe80::1%eth0"], []])
async def test_name_with_any_inner_address_is_refused(found: list[str]) -> None:
    async def lookup(host: str, port: int) -> list[str]:
        del host, port
        return found

    with pytest.raises(UnusableDevice):
        await judge("https://push.example.net/x", allows_loopback=False, lookup=lookup)


async def test_unknown_name_is_refused_and_a_silent_resolver_is_not_the_names_fault() -> None:
    async def unknown(host: str, port: int) -> list[str]:
        del host, port
        raise socket.gaierror(socket.EAI_NONAME, "x")

    async def silent(host: str, port: int) -> list[str]:
        del host, port
        raise socket.gaierror(socket.EAI_AGAIN, "x")

    with pytest.raises(UnusableDevice, match="no_such_host"):
        await judge("https://push.example.net/x", allows_loopback=False, lookup=unknown)
    with pytest.raises(LookupFailed):
        await judge("https://push.example.net/x", allows_loopback=False, lookup=silent)


async def test_name_that_turns_inwards_after_it_was_checked_is_not_connected_to(push_service: PushService) -> None:
    answers = [[PUBLIC], ["127.0.0.1"]]

    async def rebinding(host: str, port: int) -> list[str]:
        del host, port
        return answers.pop(0)

    sender = WebPushSender(Vapid(KEY, "mailto:a@example.org"), allows_loopback=False, lookup=rebinding)
    endpoint = "https://rebind.example/x"
    await sender.check_endpoint(endpoint)
    delivery = await sender.send(Browser(endpoint).device, b"{}")
    assert (delivery.outcome, delivery.reason) == ("refused", "address_not_public")
    assert push_service.received == []


async def test_connection_goes_to_the_address_judged_under_the_name_given(push_service: PushService) -> None:
    """No second look-up: the only one is ours, and the host named does not exist anywhere else."""
    lookups: list[str] = []

    async def once(host: str, port: int) -> list[str]:
        lookups.append(f"{host}:{port}")
        return ["127.0.0.1"]

    port = push_service.url.rpartition(":")[2]
    browser = Browser(f"http://push.invalid:{port}/a?b=c")
    sender = WebPushSender(Vapid(KEY, "mailto:a@example.org"), allows_loopback=True, lookup=once)
    delivery = await sender.send(browser.device, b"{}")
    await sender.close()
    assert delivery.outcome == "delivered"
    assert lookups == [f"push.invalid:{port}"]
    (received,) = push_service.received
    assert (received.path, received.headers["host"]) == ("/a?b=c", f"push.invalid:{port}")


async def test_redirect_is_not_followed(push_service: PushService) -> None:
    push_service.answer("/a", 307, location=f"{push_service.url}/inner")
    sender = WebPushSender(Vapid(KEY, "mailto:a@example.org"), allows_loopback=True)
    delivery = await sender.send(Browser(f"{push_service.url}/a").device, b"{}")
    await sender.close()
    assert (delivery.outcome, delivery.reason) == ("refused", "push_307")
    assert [received.path for received in push_service.received] == ["/a"]


@pytest.mark.parametrize(
    ("status", "outcome", "pause"),
    [
        (200, "delivered", None),
        (201, "delivered", None),
        (404, "gone", None),
        (410, "gone", None),
        (400, "refused", None),
        (413, "refused", None),
        (429, "retry", 120),
        (500, "retry", 120),
        (503, "retry", 120),
    ],
)
async def test_answer_of_the_push_service_decides(
    push_service: PushService, status: int, outcome: str, pause: int | None
) -> None:
    push_service.answer("/a", status, retry_after="120")
    sender = WebPushSender(Vapid(KEY, "mailto:a@example.org"), allows_loopback=True)
    delivery = await sender.send(Browser(f"{push_service.url}/a").device, b"{}")
    await sender.close()
    assert (delivery.outcome, delivery.retry_after_seconds) == (outcome, pause)
    headers = push_service.received[0].headers
    assert headers["content-encoding"] == "aes128gcm"
    assert headers["authorization"].startswith("vapid t=")
    assert int(headers["ttl"]) > 0


async def test_push_service_that_is_away_is_tried_again() -> None:
    sender = WebPushSender(Vapid(KEY, "mailto:a@example.org"), allows_loopback=True)
    delivery = await sender.send(Browser("http://127.0.0.1:9/a").device, b"{}")
    await sender.close()
    assert (delivery.outcome, delivery.reason) == ("retry", "push_unavailable")


async def test_development_lets_this_machine_be_sent_to_and_no_other_inner_one() -> None:
    await judge("http://127.0.0.1:8080/x", allows_loopback=True)
    for endpoint in (
        "http://10.0.0.1/x",
        "https://10.0.0.1/x",
        "http://93.184.216.34/x",
        "https://93.184.216.34:8443/",
    ):
        with pytest.raises(UnusableDevice):
            await judge(endpoint, allows_loopback=True)
