"""Identifiers, each kind a type of its own so that a letter's id cannot be passed where a patient's is meant."""

import os
import re
from typing import NewType

from quill.kit import clock

UserId = NewType("UserId", int)
OrganisationId = NewType("OrganisationId", int)
ConversationId = NewType("ConversationId", int)
MessageId = NewType("MessageId", int)
PatientId = NewType("PatientId", str)
"""A FHIR logical id (FHIR R4, datatypes, ``id``: 1..64 of letters, digits, ``-`` and ``.``)."""
LoginId = NewType("LoginId", str)
CompositionUid = NewType("CompositionUid", str)
"""An openEHR version uid, ``uuid::system::version``."""

_FHIR_ID = re.compile(r"[A-Za-z0-9\-.]{1,64}")


def new_uuid() -> str:
    """Return a fresh time-ordered UUID (version 7), so that index pages fill in order.

    Source: RFC 9562, section 5.7.
    """
    milliseconds = int(clock.now().timestamp() * 1000) & ((1 << 48) - 1)
    octets = bytearray(milliseconds.to_bytes(6) + os.urandom(10))
    octets[6] = octets[6] & 0x0F | 0x70
    octets[8] = octets[8] & 0x3F | 0x80
    text = octets.hex()
    return f"{text[:8]}-{text[8:12]}-{text[12:16]}-{text[16:20]}-{text[20:]}"


def is_fhir_id(text: str) -> bool:
    """Tell whether a text may be a FHIR logical id (FHIR R4, datatypes, ``id``)."""
    return _FHIR_ID.fullmatch(text) is not None
