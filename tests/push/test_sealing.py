"""Sealing and signing, compared with the RFCs' own examples."""

import jwt
import pytest
from cryptography.hazmat.primitives.asymmetric import ec

from quill.adapters.push.sealing import LONGEST_CONTENT_BYTES, RECORD_BYTES, seal
from quill.adapters.push.vapid import Vapid, new_private_key
from quill.ports.push import Device, UnusableDevice, encode_base64url
from tests.push.conftest import Browser, decoded

# RFC 8291, appendix A.
PLAINTEXT = decoded("V2hlbiBJIGdyb3cgdXAsIEkgd2FudCB0byBiZSBhIHdhdGVybWVsb24")
OUR_PRIVATE = decoded("yfWPiYE-n46HLnH0KqZOF1fJJU3MYrct3AELtAQ-oRw")
BROWSER_PUBLIC = "BCVxsr7N_eNgVRqvHtD0zTZsEc6-VV-JvLexhqUzORcxaOzi6-AYWXvTBHm4bjyPjs7Vd8pZGH6SRpkNtoIAiw4"
AUTH = "BTBZMqHH6r4Tts7J_aSIgg"
SALT = decoded("DGv6ra1nlYgDCS1FRnbzlw")
BODY = (
    "DGv6ra1nlYgDCS1FRnbzlwAAEABBBP4z9KsN6nGRTbVYI_c7VJSPQTBtkgcy27mlmlMoZIIgDll6e3vCYLocInmYWAmS6TlzAC8wEqKK6PBru3jl7A_y"
    "l95bQpu6cVPTpK4Mqgkf1CXztLVBSt2Ks3oZwbuwXPXLWyouBWLVWGNWQexSgSxsj_Qulcy4a-fN"
)
ENDPOINT = "https://push.example.net/push/JzLQ3raZJfFBR0aqvOMsLrt54w4rJUsV"


def test_body_is_that_of_the_rfc() -> None:
    key = ec.derive_private_key(int.from_bytes(OUR_PRIVATE, "big"), ec.SECP256R1())
    device = Device.parse(ENDPOINT, BROWSER_PUBLIC, AUTH)
    assert encode_base64url(seal(PLAINTEXT, device, salt=SALT, key=key)) == BODY


def test_browser_reads_what_was_sealed_and_no_two_bodies_are_alike() -> None:
    browser = Browser(ENDPOINT)
    first, second = seal(b"hello", browser.device), seal(b"hello", browser.device)
    assert browser.read(first) == browser.read(second) == b"hello"
    assert first[:16] != second[:16]
    assert first[21:86] != second[21:86]


def test_longest_content_fits_the_record_and_a_longer_one_is_refused() -> None:
    browser = Browser(ENDPOINT)
    assert len(seal(b"x" * LONGEST_CONTENT_BYTES, browser.device)) == RECORD_BYTES
    with pytest.raises(ValueError, match="one record"):
        seal(b"x" * (LONGEST_CONTENT_BYTES + 1), browser.device)


def test_signature_names_the_service_and_is_verified_by_the_published_key() -> None:
    vapid = Vapid(new_private_key(), "mailto:noreply@quill.example")
    scheme, _, rest = vapid.authorization("https://push.example.net").partition(" ")
    token, key = (part.partition("=")[2] for part in rest.split(", "))
    assert (scheme, key) == ("vapid", vapid.public_key)
    public = ec.EllipticCurvePublicKey.from_encoded_point(ec.SECP256R1(), decoded(key))
    claims = jwt.decode(token, public, algorithms=["ES256"], audience="https://push.example.net")
    assert claims["sub"] == "mailto:noreply@quill.example"


def test_key_given_as_the_contract_says_has_the_public_key_that_belongs_to_it() -> None:
    # RFC 8291, appendix A again: a raw scalar as unpadded base64url, and its point.
    vapid = Vapid(encode_base64url(OUR_PRIVATE), "mailto:noreply@quill.example")
    assert vapid.public_key == encode_base64url(decoded(BODY)[21:86])


@pytest.mark.parametrize(
    "key", ["", "A", encode_base64url(bytes(32)), "é", encode_base64url(b"\xff" * 32), encode_base64url(b"\x01" * 33)]
)
def test_signing_key_that_is_none_is_refused_without_repeating_it(key: str) -> None:
    with pytest.raises(ValueError, match=r"^QUILL_VAPID_PRIVATE_KEY must be [^:]*$"):
        Vapid(key, "mailto:noreply@quill.example")


@pytest.mark.parametrize(
    ("p256dh", "auth", "field", "reason"),
    [
        (BROWSER_PUBLIC, "AAAA", "auth", "wrong_length"),
        (BROWSER_PUBLIC, "not base64url!", "auth", "not_base64url"),
        (BROWSER_PUBLIC, "A" * 21, "auth", "not_base64url"),
        (BROWSER_PUBLIC[:-4], AUTH, "p256dh", "wrong_length"),
        (BROWSER_PUBLIC.replace("_", "/"), AUTH, "p256dh", "not_base64url"),
        (encode_base64url(b"\x04" + b"\x01" * 64), AUTH, "p256dh", "not_on_curve"),
        (encode_base64url(b"\x02" + b"\x01" * 64), AUTH, "p256dh", "not_on_curve"),
        (encode_base64url(bytes(65)), AUTH, "p256dh", "not_on_curve"),
    ],
)
def test_key_that_is_none_is_refused(p256dh: str, auth: str, field: str, reason: str) -> None:
    with pytest.raises(UnusableDevice) as refusal:
        Device.parse(ENDPOINT, p256dh, auth)
    assert (refusal.value.field, refusal.value.reason) == (field, reason)


def test_padding_of_base64url_is_taken_too() -> None:
    assert Device.parse(ENDPOINT, BROWSER_PUBLIC + "=", AUTH + "==") == Device.parse(ENDPOINT, BROWSER_PUBLIC, AUTH)
