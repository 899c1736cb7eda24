"""Reading everything back: through HTTP as the clients do, and from Quill's own tables."""

import re
from collections import defaultdict
from collections.abc import Collection, Sequence
from dataclasses import dataclass, field
from typing import Any, TypeAlias

import sqlalchemy as sa
from sqlalchemy.ext.asyncio import AsyncSession

from quill.audit.models import AuditEvent
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant, Message
from quill.intents.models import Intent, IntentClaim
from quill.kit.database import Database
from quill.patients.models import PatientDocument, PatientIndex
from tests.live.crashes.client import Client

Row: TypeAlias = sa.Row[Any]

_MARK = re.compile(r"mark[0-9a-f]{16}")


@dataclass(frozen=True, slots=True)
class Found:
    """A record that holds a mark; ``record`` as in ``client.record_of``, ``text`` as in ``ledger.Operation``."""

    record: str
    text: str


@dataclass(slots=True)
class Index:
    """Every record one way of reading found, by the mark it holds; what holds none is ``unmarked``."""

    name: str
    by_mark: dict[str, list[Found]] = field(default_factory=lambda: defaultdict(list))
    unmarked: list[str] = field(default_factory=list)

    def add(self, marked: str, record: str, text: str) -> None:
        """Add a record under the mark that stands in a text."""
        mark = _MARK.search(marked)
        if mark is None:
            self.unmarked.append(record)
        else:
            self.by_mark[mark[0]].append(Found(record, text))


@dataclass(frozen=True, slots=True)
class Tables:
    """The rows of Quill's own tables."""

    conversations: Sequence[Row]
    participants: Sequence[Row]
    organisations: Sequence[Row]
    messages: Sequence[Row]
    patients: Sequence[Row]
    documents: Sequence[Row]
    audit: Sequence[Row]
    intents: Sequence[Row]
    claims: Sequence[Row]

    def index(self) -> Index:
        """Return the messages by mark; a conversation's first message stands for the conversation."""
        found = Index("projection")
        known = {row.id for row in self.conversations}
        for row in self.messages:
            where = row.conversation_id if row.conversation_id in known else "nowhere"
            found.add(row.body, f"{where}/{row.id}/{row.fhir_communication_id}", row.body)
        return found


async def read_tables(database: Database) -> Tables:
    """Read the tables; nobody may be writing."""
    async with database.reading() as session:
        return Tables(
            await rows(session, Conversation),
            await rows(session, ConversationParticipant),
            await rows(session, ConversationOrganisation),
            await rows(session, Message),
            await rows(session, PatientIndex),
            await rows(session, PatientDocument),
            await rows(session, AuditEvent),
            await rows(session, Intent),
            await rows(session, IntentClaim),
        )


async def rows(session: AsyncSession, model: Any) -> Sequence[Row]:
    """Return every row of a table."""
    found: Sequence[Row] = (await session.execute(sa.select(*model.__table__.columns))).all()
    return found


@dataclass(slots=True)
class Shown:
    """What clients are shown.

    Attributes:
        index: messages and letters by mark.
        conversations: for each client, by user id, its list in the order shown.
        messages: of each conversation, oldest first.
        patients: id to (version, family name, given name), as listed.
    """

    index: Index
    conversations: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    messages: dict[int, list[dict[str, Any]]] = field(default_factory=dict)
    patients: dict[str, tuple[int, str, str]] = field(default_factory=dict)


class Reader:
    """Reads everything through HTTP.

    A letter's version never changes, so each is read once until ``forget``; and so are the messages of a conversation
    that is listed as it was.
    """

    def __init__(self, clients: Sequence[Client]) -> None:
        self._clients = clients
        self._letters: dict[str, tuple[str, str]] = {}
        self._conversations: dict[int, tuple[dict[str, Any], list[dict[str, Any]]]] = {}

    def forget(self) -> None:
        """Read everything again at the next reading."""
        self._letters.clear()
        self._conversations.clear()

    async def read(self, with_letters: Collection[str]) -> Shown:
        """Return what the clients are shown now.

        Args:
            with_letters: the patients whose letters are read; a letter elsewhere only the store's reading shows.
        """
        shown = Shown(Index("HTTP"))
        first = self._clients[0]
        for client in self._clients:
            listed = await client.read_all("/api/conversations", "conversations", limit=50)
            shown.conversations[client.user_id] = listed
        for conversation in shown.conversations[first.user_id]:
            number = conversation["id"]
            if self._conversations.get(number, ({}, []))[0] != conversation:
                self._conversations[number] = conversation, await self._messages(number)
            pages = self._conversations[number][1]
            shown.messages[number] = pages
            for message in pages:
                record = f"{number}/{message['id']}/{message['fhir_communication_id']}"
                shown.index.add(message["body"], record, message["body"])
        for patient in await first.read_all("/api/patients", "patients"):
            name = patient["name"][0]
            shown.patients[patient["id"]] = (int(patient["meta"]["versionId"]), name["family"], name["given"][0])
        for patient_id in with_letters:
            for letter in await first.read_all(f"/api/patients/{patient_id}/letters", "letters"):
                await self._read_letter(shown.index, patient_id, letter["composition_uid"])
        return shown

    async def _messages(self, conversation: int) -> list[dict[str, Any]]:
        """Return a conversation's messages, oldest first; pages hold older and older ones."""
        path, query = f"/api/conversations/{conversation}/messages", {"limit": "200"}
        found: list[dict[str, Any]] = []
        while True:
            page = await self._clients[0].read(path, **query)
            found = page["messages"] + found
            if page["next_cursor"] is None:
                return found
            query["cursor"] = page["next_cursor"]

    async def _read_letter(self, index: Index, patient_id: str, newest_uid: str) -> None:
        object_id, system_id, newest = newest_uid.split("::")
        for version in range(1, int(newest) + 1):
            uid = f"{object_id}::{system_id}::{version}"
            if uid not in self._letters:
                letter = await self._clients[0].read(f"/api/patients/{patient_id}/letters/{uid}")
                self._letters[uid] = (letter["title"], letter["body"])
            title, body = self._letters[uid]
            index.add(title, uid, body)
