"""Small secrets sealed for keeping in the database, under keys derived from the program's own.

Each purpose has a key of its own, derived with HKDF (RFC 5869), so that what one part of the program seals is worth
nothing to another. Sealing is AES-256-GCM (NIST SP 800-38D); what a secret belongs to is authenticated with it, so a
sealed text moved to another row does not open there.
"""

import base64
import binascii
import hashlib
import secrets
from collections.abc import Sequence
from dataclasses import dataclass

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.hashes import SHA256
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

NONCE_BYTES = 12
"""NIST SP 800-38D, section 8.2.2: a random nonce of 96 bits."""
KEY_BYTES = 32


class CannotUnseal(ValueError):
    """The text was sealed under another key, for another owner, or was damaged."""


@dataclass(frozen=True, slots=True)
class Unsealed:
    """An opened secret, and whether it was sealed under today's key; when not, it should be sealed again."""

    text: str
    is_current: bool


@dataclass(frozen=True, slots=True)
class Resealed:
    """How many secrets were sealed under today's key anew, and how many no key opens."""

    count: int
    unreadable: int


class Sealer:
    """Seals with the first key, opens with any.

    Args:
        keys: the program's key, then earlier ones that are still accepted.
        purpose: what the secrets are for; part of the derivation.
    """

    def __init__(self, keys: Sequence[str], purpose: str) -> None:
        derived = [_derive(key, purpose) for key in keys]
        self._ciphers = {_key_id(key): AESGCM(key) for key in derived}
        self._current = _key_id(derived[0])

    def seal(self, text: str, owner: str) -> str:
        """Return a secret as text for the database; it opens for this owner alone."""
        nonce = secrets.token_bytes(NONCE_BYTES)
        sealed = nonce + self._ciphers[self._current].encrypt(nonce, text.encode(), owner.encode())
        return f"{self._current}.{base64.urlsafe_b64encode(sealed).decode()}"

    def unseal(self, sealed: str, owner: str) -> Unsealed:
        """Return the secret that ``seal`` was given.

        Raises:
            CannotUnseal: another key, another owner, or damaged.
        """
        key_id, _, encoded = sealed.partition(".")
        cipher = self._ciphers.get(key_id)
        if cipher is None:
            raise CannotUnseal("The secret was sealed under a key that is not known.")
        try:
            blob = base64.urlsafe_b64decode(encoded)
            text = cipher.decrypt(blob[:NONCE_BYTES], blob[NONCE_BYTES:], owner.encode()).decode()
        except (InvalidTag, binascii.Error, ValueError) as error:
            raise CannotUnseal("The secret is damaged or belongs to another owner.") from error
        return Unsealed(text, is_current=key_id == self._current)


def _derive(key: str, purpose: str) -> bytes:
    return HKDF(algorithm=SHA256(), length=KEY_BYTES, salt=None, info=f"quill:{purpose}".encode()).derive(key.encode())


def _key_id(derived: bytes) -> str:
    return hashlib.sha256(derived).hexdigest()[:16]
