"""Who we are towards push services: a signature that names the service it is for and whom to write to.

Source: RFC 8292 (VAPID).
"""

import base64
import binascii
import datetime
import secrets

import jwt
from cryptography.hazmat.primitives.asymmetric import ec

from quill.adapters.push.sealing import uncompressed
from quill.kit import clock
from quill.ports.push import encode_base64url

LIFETIME = datetime.timedelta(hours=12)
"""RFC 8292, section 2: at most 24 hours."""

_ORDER = 0xFFFFFFFF00000000FFFFFFFFFFFFFFFFBCE6FAADA7179E84F3B9CAC2FC632551
"""Order of P-256 (FIPS 186-5; SP 800-186, section 3.2.1.3)."""


def new_private_key() -> str:
    """Return a fresh private number, unpadded base64url."""
    return encode_base64url((secrets.randbelow(_ORDER - 1) + 1).to_bytes(32, "big"))


class Vapid:
    """Signs requests to push services.

    Args:
        private_key: a P-256 private number, unpadded base64url.
        subject: ``mailto:`` or ``https:`` address of whoever runs this.

    Raises:
        ValueError: the key is not one; the message does not hold it.
    """

    def __init__(self, private_key: str, subject: str) -> None:
        try:
            number = int.from_bytes(base64.urlsafe_b64decode(private_key + "=" * (-len(private_key) % 4)), "big")
        except (binascii.Error, ValueError) as error:
            raise ValueError("QUILL_VAPID_PRIVATE_KEY must be base64url.") from error
        if not 0 < number < _ORDER:
            raise ValueError("QUILL_VAPID_PRIVATE_KEY must be a P-256 private number.")
        self._key = ec.derive_private_key(number, ec.SECP256R1())
        self._subject = subject
        self.public_key = encode_base64url(uncompressed(self._key.public_key()))

    def authorization(self, origin: str) -> str:
        """Return the ``Authorization`` header for a push service, ``https://host[:port]``."""
        claims = {"aud": origin, "exp": clock.now() + LIFETIME, "sub": self._subject}
        token = jwt.encode(claims, self._key, algorithm="ES256")
        return f"vapid t={token}, k={self.public_key}"
