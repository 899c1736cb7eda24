"""Letters for tests of openEHR stores."""

import datetime
from typing import Any

from quill.kit.documents import Document
from quill.kit.ids import CompositionUid
from quill.letters.composition import compose_letter
from quill.ports.openehr import StoredComposition

NINE_O_CLOCK = datetime.datetime(2026, 3, 2, 9, 0, tzinfo=datetime.UTC)


def letter(title: str = "Clinic letter", body: str = "All is well.", **changes: object) -> Document:
    """Return a whole letter; ``changes`` are those of ``compose_letter``."""
    facts: dict[str, Any] = {"object_id": None, "author_id": 7, "author_name": "A. Author", "started_at": NINE_O_CLOCK}
    return compose_letter(title=title, body=body, **(facts | changes))


def object_id_of(stored: StoredComposition) -> CompositionUid:
    return CompositionUid(stored.uid.partition("::")[0])
