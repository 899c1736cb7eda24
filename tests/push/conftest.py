"""A push service on this machine, and browsers that subscribe at it and read what they are sent."""

import base64
import json
from collections.abc import Iterator
from typing import Any

import pytest
from cryptography.hazmat.primitives import hashes
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from quill.adapters.push.sealing import uncompressed
from quill.ports.push import Device, encode_base64url
from tests.upstreams.push_server import PushService, serving_push


@pytest.fixture
def push_service() -> Iterator[PushService]:
    with serving_push() as service:
        yield service


class Browser:
    """The other end: holds the keys of a subscription."""

    def __init__(self, endpoint: str) -> None:
        self.endpoint = endpoint
        self.key = ec.generate_private_key(ec.SECP256R1())
        self.auth = b"0123456789abcdef"

    @property
    def subscription(self) -> dict[str, Any]:
        """Return what ``PushSubscription.toJSON()`` gives."""
        keys = {"p256dh": encode_base64url(uncompressed(self.key.public_key())), "auth": encode_base64url(self.auth)}
        return {"endpoint": self.endpoint, "expirationTime": None, "keys": keys}

    @property
    def device(self) -> Device:
        """Return this browser as the program knows it."""
        return Device(self.endpoint, uncompressed(self.key.public_key()), self.auth)

    def read(self, body: bytes) -> bytes:
        """Unseal a notification as a browser does (RFC 8291, section 3.4; RFC 8188, section 2)."""
        salt, size, length = body[:16], int.from_bytes(body[16:20], "big"), body[20]
        theirs, sealed = body[21 : 21 + length], body[21 + length :]
        assert len(sealed) <= size
        shared = self.key.exchange(ec.ECDH(), ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), theirs))
        ours = uncompressed(self.key.public_key())
        material = HKDF(hashes.SHA256(), 32, self.auth, b"WebPush: info\x00" + ours + theirs).derive(shared)
        content_key = HKDF(hashes.SHA256(), 16, salt, b"Content-Encoding: aes128gcm\x00").derive(material)
        nonce = HKDF(hashes.SHA256(), 12, salt, b"Content-Encoding: nonce\x00").derive(material)
        padded = AESGCM(content_key).decrypt(nonce, sealed, None).rstrip(b"\x00")
        assert padded[-1:] == b"\x02"
        return padded[:-1]

    def shown(self, body: bytes) -> Any:
        """Return the notification a service worker is handed."""
        return json.loads(self.read(body))


def decoded(text: str) -> bytes:
    """Return the bytes of unpadded base64url."""
    return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4))
