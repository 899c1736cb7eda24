"""Notifications to browsers through their makers' push services.

Source: RFC 8030 (delivery, ``TTL``, ``Urgency``, status codes), RFC 8291, RFC 8292.
"""

import asyncio
from functools import cached_property

import httpx2

from quill.adapters.push.addresses import IpAddress, Lookup, LookupFailed, Place, judge, look_up
from quill.adapters.push.sealing import seal
from quill.adapters.push.vapid import Vapid
from quill.ports.delivery import Delivery
from quill.ports.push import Device, UnusableDevice

CONNECT_SECONDS = 4.0
DEADLINE_SECONDS = 10.0
KEPT_SECONDS = 4 * 3600
"""How long a push service keeps a notification for a device that is off (RFC 8030, ``TTL``)."""
LONGEST_PAUSE_SECONDS = 3600


class WebPushSender:
    """Sends to push services.

    Args:
        vapid: signs.
        allows_loopback: development alone: devices on this machine, by http.
        lookup: how names become addresses.
    """

    def __init__(self, vapid: Vapid, *, allows_loopback: bool, lookup: Lookup = look_up) -> None:
        self._vapid = vapid
        self._allows_loopback = allows_loopback
        self._lookup = lookup

    @property
    def public_key(self) -> str:
        """Return the VAPID public key: an uncompressed point, unpadded base64url."""
        return self._vapid.public_key

    @cached_property
    def _client(self) -> httpx2.AsyncClient:
        # Made when first needed, because reading the machine's certificates takes longer than all else at start-up.
        # No connection is kept: it is known by its address, and two names may share one. No proxy of the environment
        # is used: it would do the connecting, and so undo the judging.
        return httpx2.AsyncClient(
            timeout=httpx2.Timeout(DEADLINE_SECONDS, connect=CONNECT_SECONDS),
            limits=httpx2.Limits(max_connections=20, max_keepalive_connections=0),
            follow_redirects=False,
            trust_env=False,
        )

    async def close(self) -> None:
        """Close what is open."""
        if "_client" in vars(self):
            await self._client.aclose()

    async def check_endpoint(self, endpoint: str) -> None:
        """Return when an address may be sent to; one that cannot be looked up just now is judged when it is used.

        Raises:
            UnusableDevice: it is not https, names this machine or a private network, or does not exist.
        """
        try:
            await judge(endpoint, allows_loopback=self._allows_loopback, lookup=self._lookup)
        except LookupFailed:
            return

    async def send(self, device: Device, content: bytes) -> Delivery:
        """Seal and hand over one notification, to an address judged this very moment."""
        try:
            place = await judge(device.endpoint, allows_loopback=self._allows_loopback, lookup=self._lookup)
        except UnusableDevice as error:
            return Delivery.refused(error.reason)
        except LookupFailed:
            return Delivery.retry("lookup_failed")
        body = seal(content, device)
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                return await self._post(device.endpoint, place, body)
        except TimeoutError:
            return Delivery.retry("push_timeout")
        except (httpx2.TransportError, OSError):
            return Delivery.retry("push_unavailable")
        except httpx2.InvalidURL:
            return Delivery.refused("not_a_url")

    async def _post(self, endpoint: str, place: Place, body: bytes) -> Delivery:
        for address in place.addresses[:-1]:
            try:
                return await self._post_to(address, endpoint, place, body)
            except (httpx2.ConnectError, httpx2.ConnectTimeout):
                continue
        return await self._post_to(place.addresses[-1], endpoint, place, body)

    async def _post_to(self, address: IpAddress, endpoint: str, place: Place, body: bytes) -> Delivery:
        headers = {
            "Host": place.authority,
            "Authorization": self._vapid.authorization(place.origin),
            "Content-Encoding": "aes128gcm",
            "Content-Type": "application/octet-stream",
            "TTL": str(KEPT_SECONDS),
            "Urgency": "high",
        }
        url = httpx2.URL(endpoint).copy_with(host=str(address))
        # The certificate must bear the name the browser gave, although the connection goes to an address.
        extensions = {"sni_hostname": place.host} if place.is_encrypted else {}
        async with self._client.stream("POST", url, content=body, headers=headers, extensions=extensions) as response:
            # The body is not read: it is of no use, and need not end.
            return _judged(response)


def _judged(response: httpx2.Response) -> Delivery:
    status = response.status_code
    if response.is_success:
        return Delivery.delivered()
    if status in {404, 410}:
        return Delivery("gone", f"push_{status}")
    if status == 429 or status >= 500:
        return Delivery.retry(f"push_{status}", _pause(response.headers.get("retry-after", "")))
    return Delivery.refused(f"push_{status}")


def _pause(text: str) -> int | None:
    if not (text.isascii() and text.isdecimal()):
        return None
    return min(int(text[:9]), LONGEST_PAUSE_SECONDS)
