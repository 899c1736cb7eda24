"""Time that can be moved, and a mailbox."""

from collections.abc import Iterator

import pytest
import time_machine

from quill.kit import clock
from tests.accounts.browsers import Mailbox


@pytest.fixture(autouse=True)
def later() -> Iterator[time_machine.Traveller]:
    """Return a clock that runs on, and can be shifted by seconds.

    It starts early in a TOTP step for every test, so that none stumbles over the end of one.
    """
    start = int(clock.now().timestamp()) // 30 * 30 + 5
    with time_machine.travel(start, tick=True) as traveller:
        yield traveller


@pytest.fixture(autouse=True)
def mailbox(monkeypatch: pytest.MonkeyPatch) -> Mailbox:
    """Return where the application's mails arrive."""
    return Mailbox(monkeypatch)
