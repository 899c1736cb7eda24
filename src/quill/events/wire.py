"""Live updates in the format of server-sent events (HTML Living Standard, section 9.2)."""

from quill.kit.documents import Document, dumps
from quill.outbox.service import KeptEvent, LiveEvent


def written(kind: str, document: Document, number: int | None = None) -> bytes:
    """Return one event; the browser resumes after its number, if it has one."""
    line = f"id: {number}\n" if number is not None else ""
    return f"{line}event: {kind}\ndata: {dumps(document)}\n\n".encode()


def told(kept: KeptEvent) -> bytes:
    """Return something that happened, ids only."""
    return written(kept.event.kind, _document(kept.event), kept.number)


def heartbeat(number: int) -> bytes:
    """Return what no browser shows; the number alone moves its memory on past what was not for its eyes."""
    return f": still here\nid: {number}\n\n".encode()


def _document(event: LiveEvent) -> Document:
    facts = {
        name: int(value) if value.isascii() and value.isdecimal() else value for name, value in event.facts.items()
    }
    return {"patient_id": event.patient_id, "conversation_id": event.conversation_id, **facts}
