"""What the clinical stores hold, asked of them directly and not through Quill."""

import json
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from quill.adapters.fhir.models import FhirResource, FhirResourceVersion, FhirSearchKey
from quill.adapters.openehr.models import Composition
from quill.kit.database import Database
from quill.letters.composition import read_letter
from quill.ports.fhir_communication import CONVERSATION_SYSTEM, MESSAGE_SYSTEM
from tests.live.crashes.ledger import Ledger
from tests.live.crashes.reading import Index, Row, rows

Resource = dict[str, Any]


@dataclass(slots=True)
class Held:
    """What the stores hold.

    Attributes:
        index: messages, letters and versions of patients by mark.
        patients: id to (version, family name, given name) of the current version.
        letter_uids: uids of every version of every letter.
        wrong: what does not fit together within a store.
    """

    index: Index = field(default_factory=lambda: Index("store"))
    patients: dict[str, tuple[int, str, str]] = field(default_factory=dict)
    letter_uids: list[str] = field(default_factory=list)
    wrong: list[str] = field(default_factory=list)

    def take_communications(self, resources: Sequence[Resource]) -> None:
        """Take in current Communications: headers of conversations, and messages that are part of them."""
        headers = {found["id"]: _identifier(found, CONVERSATION_SYSTEM) for found in resources if "partOf" not in found}
        with_messages = set()
        for message in (found for found in resources if "partOf" in found):
            header = message["partOf"][0]["reference"].rpartition("/")[2]
            with_messages.add(header)
            text = message["payload"][0]["contentString"]
            number = _identifier(message, MESSAGE_SYSTEM)
            self.index.add(text, f"{headers.get(header, 'nowhere')}/{number}/{message['id']}", text)
            if message["meta"]["versionId"] != "1":
                self.wrong.append(f"message {number} was written {message['meta']['versionId']} times")
        self.wrong += [f"conversation {headers[found]} holds no message" for found in headers.keys() - with_messages]

    def take_patients(self, versions: Sequence[Resource]) -> None:
        """Take in every version of every Patient, the oldest first."""
        for document in versions:
            version, name = int(document["meta"]["versionId"]), document["name"][0]
            family, given = name["family"], name["given"][0]
            marked = family if version == 1 else given
            self.index.add(marked, f"{document['id']}@{version}", marked)
            before = self.patients.get(document["id"])
            if version != (before[0] if before else 0) + 1:
                self.wrong.append(f"patient {document['id']} has no version before {version}")
            self.patients[document["id"]] = (version, family, given)

    def take_letter(self, uid: str, document: Resource) -> None:
        """Take in one version of a letter."""
        content = read_letter(document)
        self.index.add(content.title, uid, content.body)
        self.letter_uids.append(uid)


class Store(Protocol):
    """A way to ask the clinical stores."""

    async def read(self, ledger: Ledger) -> Held:
        """Return everything they hold of this run."""
        ...


class EmbeddedStores:
    """The tables of the embedded stores."""

    def __init__(self, database_url: str) -> None:
        self._database_url = database_url

    async def read(self, ledger: Ledger) -> Held:
        """Return everything they hold, and what in their own tables does not fit together."""
        del ledger  # the database is this run's alone
        held = Held()
        database = Database(self._database_url)
        try:
            async with database.reading() as session:
                current = await rows(session, FhirResource)
                versions = await rows(session, FhirResourceVersion)
                keys = await rows(session, FhirSearchKey)
                compositions = await rows(session, Composition)
        finally:
            await database.dispose()
        held.take_communications([json.loads(row.document) for row in current if row.resource_type == "Communication"])
        patients = [row for row in versions if row.resource_type == "Patient"]
        held.take_patients(
            [json.loads(row.document) for row in sorted(patients, key=lambda row: (row.id, row.version))]
        )
        held.wrong += _misfits(current, versions, keys)
        for row in compositions:
            held.take_letter(f"{row.object_id}::{row.system_id}::{row.version}", json.loads(row.document))
        held.wrong += _letters_without_one_newest(compositions)
        return held


def _misfits(current: Sequence[Row], versions: Sequence[Row], keys: Sequence[Row]) -> list[str]:
    """Return where current resources, their versions and their search keys differ."""
    newest: dict[tuple[str, str], Row] = {}
    for row in sorted(versions, key=lambda row: row.version):
        newest[row.resource_type, row.id] = row
    wrong = []
    for row in current:
        last = newest.pop((row.resource_type, row.id), None)
        if last is None or (last.version, last.document) != (row.version, row.document):
            wrong.append(f"{row.resource_type}/{row.id} is not its own newest version")
    wrong += [f"{name}/{resource_id} has versions and no current one" for name, resource_id in newest]
    parts = {row.id for row in current if row.resource_type == "Communication" and '"partOf"' in row.document}
    found_as_parts = {row.id for row in keys if row.resource_type == "Communication" and row.parameter == "part-of"}
    wrong += [f"Communication/{message} is not found by its header" for message in parts ^ found_as_parts]
    return wrong


def _letters_without_one_newest(compositions: Sequence[Row]) -> list[str]:
    by_object: dict[str, list[Row]] = {}
    for row in compositions:
        by_object.setdefault(row.object_id, []).append(row)
    wrong = []
    for object_id, found in by_object.items():
        versions = sorted(row.version for row in found)
        newest = [row.version for row in found if row.is_latest]
        if versions != list(range(1, len(found) + 1)) or newest != [len(found)]:
            wrong.append(f"letter {object_id} has versions {versions}, of which {newest} pass for the newest")
    return wrong


def _identifier(resource: Resource, system: str) -> str:
    return next(str(found["value"]) for found in resource["identifier"] if found["system"] == system)
