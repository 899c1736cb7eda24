"""What a slice tells about its kind of record, so that it can be written by way of an intent."""

from typing import Protocol

from quill.actor import Actor
from quill.kit.documents import Document
from quill.unit import Unit


class Kind(Protocol):
    """What writing and projecting mean for one kind of record; a slice provides one per kind."""

    @property
    def name(self) -> str:
        """Return the stable name kept with the intent."""
        ...

    def joins_transaction(self, unit: Unit) -> bool:
        """Tell whether the store this kind writes to shares the unit's transaction."""
        ...

    async def write(self, unit: Unit, payload: Document) -> Document | None:
        """Write the record to its store under the ids in the payload; called when ``has_landed`` did not find it.

        Returns:
            What ``project`` should know of the answer; it finds it in the payload, as ``written``.
        """
        ...

    async def has_landed(self, unit: Unit, payload: Document) -> Document | bool:
        """Tell, by reading the store, whether an earlier ``write`` whose answer was lost arrived.

        Returns:
            What ``write`` would have returned, or plain yes; ``False`` when the store says that it is not there.
        """
        ...

    async def project(self, unit: Unit, actor: Actor, payload: Document) -> Document:
        """Bring SQL up to date with the record, and note the act in the audit trail.

        A sweep calls it with an actor that has a name but no rights: what was allowed was decided before.

        Returns:
            The ids the caller is to be answered with; kept for repeated calls, so nothing else of the patient.
        """
        ...
