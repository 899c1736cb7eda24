"""How a payload is kept while it waits: a mail's is sealed, because it holds an address and often a link that opens.

A notification's holds ids alone and is kept as it is. A sealed payload opens for its own entry only.
"""

from functools import cached_property

from quill.kit.crypto import Sealer, Unsealed
from quill.kit.documents import Document, dumps, loads
from quill.settings import Settings

PURPOSE = "outbox-mail"
SEALED_CHANNELS = frozenset({"mail"})


class Payloads:
    """Turns payloads into the text of their entries and back.

    Args:
        settings: the keys; the previous one still opens.
    """

    def __init__(self, settings: Settings) -> None:
        self._settings = settings

    @cached_property
    def _sealer(self) -> Sealer:
        return Sealer(self._settings.accepted_keys(), PURPOSE)

    def kept(self, channel: str, entry_id: str, payload: Document) -> str:
        """Return the text to keep."""
        text = dumps(payload)
        return self._sealer.seal(text, _owner(entry_id)) if channel in SEALED_CHANNELS else text

    def opened(self, channel: str, entry_id: str, text: str) -> Document:
        """Return the payload of an entry.

        Raises:
            CannotUnseal: it was sealed under a key that is not known any more, or for another entry.
        """
        return loads(self.unsealed(entry_id, text).text if channel in SEALED_CHANNELS else text)

    def unsealed(self, entry_id: str, text: str) -> Unsealed:
        """Return a sealed payload's text, and whether it was sealed under today's key.

        Raises:
            CannotUnseal: it was sealed under a key that is not known any more, or for another entry.
        """
        return self._sealer.unseal(text, _owner(entry_id))

    def sealed(self, entry_id: str, text: str) -> str:
        """Return a payload's text sealed under today's key."""
        return self._sealer.seal(text, _owner(entry_id))


def _owner(entry_id: str) -> str:
    return f"outbox:{entry_id}"
