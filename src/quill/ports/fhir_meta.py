"""What a resource's ``meta`` says of where it comes from.

Source: FHIR R4 (4.0.1), ``resource.html#Meta``: ``source`` is a URI that identifies the source system. A HAPI server
adds a fragment of its own to it, the id of the request that wrote the version, so a fragment is never part of a
comparison.
"""

from quill.kit.documents import Document

OF_THE_STORE = frozenset({"versionId", "lastUpdated"})
"""What a store itself puts into ``meta``."""


def with_source(document: Document, source: str) -> Document:
    """Return a resource that names the system it was made or changed by; all else stays."""
    return {**document, "meta": {**document.get("meta", {}), "source": source}}


def comparable_meta(document: Document) -> Document:
    """Return a resource's ``meta`` without what a store adds by itself; empty when nothing remains."""
    meta = {name: value for name, value in document.get("meta", {}).items() if name not in OF_THE_STORE}
    if isinstance(meta.get("source"), str):
        meta["source"] = meta["source"].partition("#")[0]
    return meta
