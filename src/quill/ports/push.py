"""Push notifications as Quill needs them.

Source: Push API (W3C), RFC 8030, RFC 8291, RFC 8292.
"""

import base64
import binascii
import re
from dataclasses import dataclass
from typing import Protocol

from cryptography.hazmat.primitives.asymmetric import ec

from quill.ports.delivery import Delivery

AUTH_SECRET_BYTES = 16
"""RFC 8291, section 3.2."""
PUBLIC_KEY_BYTES = 65
"""An uncompressed point of P-256 (RFC 8291, section 3.1)."""

_BASE64URL = re.compile(r"[A-Za-z0-9_-]+={0,2}")


class UnusableDevice(ValueError):
    """A subscription that cannot or must not be sent to.

    Args:
        field: the field of the subscription that is wrong.
        reason: a slug.
    """

    def __init__(self, field: str, reason: str) -> None:
        super().__init__(reason)
        self.field = field
        self.reason = reason


@dataclass(frozen=True, slots=True)
class Device:
    """Where a notification goes, and for whose eyes it is sealed.

    Attributes:
        endpoint: address at the browser maker's push service.
        p256dh: the browser's public key, an uncompressed point of P-256.
        auth: the secret it shares with us, 16 bytes.
    """

    endpoint: str
    p256dh: bytes
    auth: bytes

    @classmethod
    def parse(cls, endpoint: str, p256dh: str, auth: str) -> "Device":
        """Return the device a browser describes, keys in base64url.

        Raises:
            UnusableDevice: a key is not one.
        """
        point, secret = _decoded("p256dh", p256dh), _decoded("auth", auth)
        if len(secret) != AUTH_SECRET_BYTES:
            raise UnusableDevice("auth", "wrong_length")
        if len(point) != PUBLIC_KEY_BYTES:
            raise UnusableDevice("p256dh", "wrong_length")
        try:
            # A point beside the curve would give away bits of our key of the moment.
            ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), point)
        except ValueError as error:
            raise UnusableDevice("p256dh", "not_on_curve") from error
        return cls(endpoint, point, secret)


class PushSender(Protocol):
    """Sends notifications, or says why not."""

    @property
    def public_key(self) -> str:
        """Return the VAPID public key that browsers subscribe with: an uncompressed point, unpadded base64url."""
        ...

    async def check_endpoint(self, endpoint: str) -> None:
        """Return when an address may be sent to.

        Raises:
            UnusableDevice: it is not https, names this machine or a private network, or does not exist.
        """
        ...

    async def send(self, device: Device, content: bytes) -> Delivery:
        """Seal and hand over one notification; checks the address again, and connects to the address checked."""
        ...


def encode_base64url(data: bytes) -> str:
    """Return unpadded base64url (RFC 7515, section 2)."""
    return base64.urlsafe_b64encode(data).decode().rstrip("=")


def _decoded(field: str, text: str) -> bytes:
    if not _BASE64URL.fullmatch(text):
        raise UnusableDevice(field, "not_base64url")
    bare = text.rstrip("=")
    try:
        return base64.urlsafe_b64decode(bare + "=" * (-len(bare) % 4))
    except binascii.Error as error:
        raise UnusableDevice(field, "not_base64url") from error
