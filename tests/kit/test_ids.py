"""Ids that are made: RFC 9562, section 5.7."""

import uuid

from quill.kit.ids import is_fhir_id, new_uuid


def test_new_ids_are_version_7_in_order_of_time_and_never_the_same() -> None:
    made = [new_uuid() for _ in range(2_000)]
    assert len(set(made)) == len(made)
    for text in made:
        parsed = uuid.UUID(text)
        assert (parsed.version, parsed.variant, str(parsed)) == (7, uuid.RFC_4122, text)
        assert is_fhir_id(text)
    moments = [text[:13] for text in made]
    assert moments == sorted(moments)
