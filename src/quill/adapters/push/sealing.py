"""A notification sealed for one browser, so that the push service in between reads nothing.

Source: RFC 8291 (keys), RFC 8188 (``aes128gcm`` content coding).
"""

import os

from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from cryptography.hazmat.primitives.kdf.hkdf import HKDF

from quill.ports.push import Device

RECORD_BYTES = 4096
"""RFC 8291, section 4: one record, and push services need take no longer one."""
LONGEST_CONTENT_BYTES = RECORD_BYTES - 86 - 17

_LAST_RECORD = b"\x02"


def uncompressed(key: ec.EllipticCurvePublicKey) -> bytes:
    """Return a public key as the 65 bytes of an uncompressed point (SEC 1, section 2.3.3)."""
    return key.public_bytes(serialization.Encoding.X962, serialization.PublicFormat.UncompressedPoint)


def seal(
    content: bytes, device: Device, *, salt: bytes | None = None, key: ec.EllipticCurvePrivateKey | None = None
) -> bytes:
    """Return the body to send.

    Args:
        content: at most ``LONGEST_CONTENT_BYTES``.
        device: for whom.
        salt: 16 random bytes; fresh ones when left out, given only to compare with the RFC's example.
        key: our key of the moment; a fresh one when left out.

    Raises:
        ValueError: the content is too long for one record.
    """
    if len(content) > LONGEST_CONTENT_BYTES:
        raise ValueError("A notification must fit one record.")
    salt = salt or os.urandom(16)
    key = key or ec.generate_private_key(ec.SECP256R1())
    ours = uncompressed(key.public_key())
    theirs = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), device.p256dh)
    shared = key.exchange(ec.ECDH(), theirs)
    material = _derive(shared, device.auth, b"WebPush: info\x00" + device.p256dh + ours, 32)
    content_key = _derive(material, salt, b"Content-Encoding: aes128gcm\x00", 16)
    nonce = _derive(material, salt, b"Content-Encoding: nonce\x00", 12)
    header = salt + RECORD_BYTES.to_bytes(4, "big") + bytes([len(ours)]) + ours
    return header + AESGCM(content_key).encrypt(nonce, content + _LAST_RECORD, None)


def _derive(material: bytes, salt: bytes, info: bytes, length: int) -> bytes:
    return HKDF(hashes.SHA256(), length, salt, info).derive(material)
