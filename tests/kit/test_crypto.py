"""Sealing small secrets."""

import pytest

from quill.kit.crypto import CannotUnseal, Sealer


def test_sealed_text_opens_for_its_owner_alone() -> None:
    sealer = Sealer(["key one"], "purpose")
    sealed = sealer.seal("JBSWY3DP", "user:1")
    assert "JBSWY3DP" not in sealed
    assert sealer.unseal(sealed, "user:1").text == "JBSWY3DP"
    with pytest.raises(CannotUnseal):
        sealer.unseal(sealed, "user:2")


def test_same_text_is_sealed_differently_each_time() -> None:
    sealer = Sealer(["key one"], "purpose")
    assert sealer.seal("text", "user:1") != sealer.seal("text", "user:1")


def test_earlier_key_is_accepted_and_told() -> None:
    sealed = Sealer(["key one"], "purpose").seal("text", "user:1")
    opened = Sealer(["key two", "key one"], "purpose").unseal(sealed, "user:1")
    assert (opened.text, opened.is_current) == ("text", False)
    assert Sealer(["key one", "key two"], "purpose").unseal(sealed, "user:1").is_current


@pytest.mark.parametrize("damage", [lambda s: s[:-4] + "AAA=", lambda s: s[:20], lambda _: "", lambda s: s + "é"])
def test_damaged_text_and_foreign_keys_do_not_open(damage: object) -> None:
    sealer = Sealer(["key one"], "purpose")
    sealed = sealer.seal("text", "user:1")
    with pytest.raises(CannotUnseal):
        sealer.unseal(damage(sealed), "user:1")  # type: ignore[operator]
    for other in (Sealer(["key two"], "purpose"), Sealer(["key one"], "another purpose")):
        with pytest.raises(CannotUnseal):
            other.unseal(sealed, "user:1")
