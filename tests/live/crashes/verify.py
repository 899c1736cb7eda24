"""The comparison: what the clients were told against what is there, by every way there is to read it."""

from collections import Counter
from collections.abc import Iterator, Mapping, Sequence

from quill.conversations.appending import PREVIEW_CHARACTERS
from tests.live.crashes.ledger import Kind, Ledger, Operation, Outcome
from tests.live.crashes.reading import Found, Index, Row, Shown, Tables
from tests.live.crashes.stores import Held

ONLY_IN_STORE = {Kind.PATIENT, Kind.EDIT}
"""Marks of which only the store keeps every version; ``patients`` compares what the others show."""
LETTERS = {Kind.LETTER, Kind.LETTER_AMENDMENT}
"""Read from their store alone; the trail is their projection."""


def operations(ledger: Ledger, ways: Sequence[Index], *, is_settled: bool) -> Iterator[str]:
    """Tell of every operation that is not there exactly as often as it must be, the same by every way of reading.

    Args:
        ledger: what the clients know.
        ways: what each way of reading found.
        is_settled: whether everything a crash cut off had the time to be finished.
    """
    for operation in ledger:
        its_ways = [index for index in ways if _shows(index, operation.kind)]
        found = {index.name: index.by_mark.get(operation.mark, []) for index in its_ways}
        yield from _compare(operation, found, is_settled)
    for index in ways:
        yield from (f"{index.name} shows {record}, which nobody sent" for record in index.unmarked)
        strays = (found for mark, found in index.by_mark.items() if mark not in ledger)
        yield from (f"{index.name} shows {found}, which nobody sent" for found in strays)


def _shows(index: Index, kind: Kind) -> bool:
    if kind in ONLY_IN_STORE:
        return index.name == "store"
    return kind not in LETTERS or index.name != "projection"


def _compare(operation: Operation, found: Mapping[str, list[Found]], is_settled: bool) -> Iterator[str]:
    facts = f"{operation.told()}; found {found}"
    if operation.outcome is Outcome.ACKNOWLEDGED:
        if any([one.record for one in records] != [operation.record] for records in found.values()):
            yield f"acknowledged, and not there exactly once: {facts}"
    elif operation.outcome in {Outcome.REFUSED, Outcome.UNHEARD}:
        if any(found.values()):
            yield f"{operation.outcome}, and there all the same: {facts}"
    elif is_settled and (len(next(iter(found.values()))) > 1 or len(set(map(tuple, found.values()))) > 1):
        yield f"cut off, and half there or there twice: {facts}"
    if any(one.text != operation.text for records in found.values() for one in records):
        yield f"there with another text: {facts}"


def patients(ledger: Ledger, shown: Shown, tables: Tables, held: Held) -> Iterator[str]:
    """Tell of every patient of whom the list, the tables and the store show different versions.

    Quill follows a FHIR server, so the tables may list patients that others put there; they bear none of our marks.
    """
    listed = {row.patient_id: row for row in tables.patients if row.display_name.rpartition(" ")[2] in ledger}
    documents = {row.patient_id: row.document for row in tables.documents if row.patient_id in listed}
    for patient_id in held.patients.keys() | listed.keys() | shown.patients.keys() | documents.keys():
        current = held.patients.get(patient_id)
        row, document = listed.get(patient_id), documents.get(patient_id, "")
        seen = shown.patients.get(patient_id)
        names = current[1:] if current is not None else ()
        is_whole = row is not None and all(name in row.display_name and name in document for name in names)
        if current is None or seen != current or row is None or row.version != current[0] or not is_whole:
            yield f"patient {patient_id}: the store holds {current}, HTTP shows {seen}, the tables {row}"


def counters(shown: Shown, tables: Tables) -> Iterator[str]:
    """Tell of every counter, preview or order that does not follow from the messages."""
    messages: dict[int, list[Row]] = {row.id: [] for row in tables.conversations}
    for row in sorted(tables.messages, key=lambda row: (row.created_at, row.id)):
        messages.setdefault(row.conversation_id, []).append(row)
    for conversation in tables.conversations:
        yield from _conversation(conversation, messages[conversation.id])
    times = {row.id: row.updated_at for row in tables.conversations}
    for row in (*tables.participants, *tables.organisations):
        if row.active_at != times.get(row.conversation_id):
            yield f"lists order conversation {row.conversation_id} by {row.active_at}, which is not when it was active"
    yield from _unread(shown, tables, messages)
    yield from _order(shown, tables)


def _conversation(conversation: Row, messages: Sequence[Row]) -> Iterator[str]:
    if not messages:
        yield f"conversation {conversation.id} has no message"
        return
    newest = messages[-1]
    shown = (conversation.last_message_at, conversation.last_message_preview)
    if shown != (newest.created_at, newest.body[:PREVIEW_CHARACTERS]):
        yield f"conversation {conversation.id} does not show its newest message, {newest.id}"
    if conversation.updated_at < newest.created_at:
        yield f"conversation {conversation.id} was updated before its newest message, {newest.id}"
    if len({row.created_at for row in messages}) < len(messages):
        yield f"conversation {conversation.id} has two messages of one instant"
    is_answered = any(row.sender_id != conversation.created_by_user_id for row in messages)
    if conversation.status != ("active" if is_answered else "new"):
        yield f"conversation {conversation.id} is {conversation.status}"


def _unread(shown: Shown, tables: Tables, messages: Mapping[int, Sequence[Row]]) -> Iterator[str]:
    counted = {}
    for row in tables.participants:
        # Nobody marks anything read in a run: reading the pages of a conversation does not.
        others = sum(message.sender_id != row.user_id for message in messages[row.conversation_id])
        counted[row.conversation_id, row.user_id] = others
        if row.unread_count != others:
            yield f"participant {row.user_id} of {row.conversation_id} has {row.unread_count} unread, not {others}"
    for user_id, listed in shown.conversations.items():
        for conversation in listed:
            seen, others = conversation["unread_count"], counted.get((conversation["id"], user_id))
            if seen != others:
                yield f"HTTP shows {user_id} {seen} unread in conversation {conversation['id']}, not {others}"


def _order(shown: Shown, tables: Tables) -> Iterator[str]:
    wanted = [row.id for row in sorted(tables.conversations, key=lambda row: (row.updated_at, row.id), reverse=True)]
    for listed in shown.conversations.values():
        if [conversation["id"] for conversation in listed] != wanted:
            yield "the list of conversations is not in the order of their activity"
    for conversation, pages in shown.messages.items():
        rows = [row for row in tables.messages if row.conversation_id == conversation]
        if [message["id"] for message in pages] != [row.id for row in sorted(rows, key=lambda row: row.created_at)]:
            yield f"the pages of conversation {conversation} are not its messages in order"


def intents(ledger: Ledger, tables: Tables) -> Iterator[str]:
    """Tell of every write left under way, and of every key that does not lead to its one result."""
    yield from (
        f"intent {row.id} ({row.kind}) is still {row.state}" for row in tables.intents if row.state == "pending"
    )
    yield from (f"claim {row.name.partition(':')[0]} is still held by intent {row.intent_id}" for row in tables.claims)
    yield from (f"intent {row.id} is closed and still holds a payload" for row in tables.intents if row.payload)
    done = Counter(row.idempotency_key for row in tables.intents if row.state == "done")
    for operation in ledger:
        wanted = 1 if operation.has_key and operation.outcome is Outcome.ACKNOWLEDGED else 0
        allowed = {0, 1} if operation.outcome is Outcome.UNKNOWN else {wanted}
        if done[operation.key] not in allowed:
            yield f"its key leads to {done[operation.key]} results: {operation.told()}"


def trail(ledger: Ledger, shown: Shown, tables: Tables, held: Held) -> Iterator[str]:
    """Tell of every write the audit trail does not show exactly once."""
    allowed = [row for row in tables.audit if row.outcome == "allowed"]
    acts = Counter(row.act for row in allowed)
    amendments = sum(row.amends_id is not None for row in tables.messages)
    first_messages = len(tables.conversations)
    versions = sum(version for version, _, _ in held.patients.values())
    letters = sum(uid.endswith("::1") for uid in held.letter_uids)
    wanted = {
        Kind.CONVERSATION: len(tables.conversations),
        Kind.MESSAGE: len(tables.messages) - first_messages - amendments,
        Kind.AMENDMENT: amendments,
        Kind.LETTER: letters,
        Kind.LETTER_AMENDMENT: len(held.letter_uids) - letters,
        Kind.PATIENT: len(shown.patients),
        Kind.EDIT: versions - len(held.patients),
    }
    for kind, count in wanted.items():
        if acts[kind.value] != count:
            yield f"the trail shows {acts[kind.value]} times {kind.value}, and there are {count}"
    told = Counter(row.subject for row in allowed if row.act in {Kind.LETTER.value, Kind.LETTER_AMENDMENT.value})
    for uid in {f"letter:{uid}" for uid in held.letter_uids} ^ told.keys():
        yield f"only one of trail and store knows {uid}"
    yield from _own_rows(ledger, tables, allowed)


def _own_rows(ledger: Ledger, tables: Tables, allowed: Sequence[Row]) -> Iterator[str]:
    """Tell of every acknowledged operation whose own row is missing; a sweep signs with the intent's id."""
    swept = {row.idempotency_key: f"sweep-{row.id}" for row in tables.intents}
    rows = Counter((row.request_id, row.act) for row in allowed)
    for operation in ledger:
        # An edit has no key, so one that a sweep finished cannot be told from here; it is among those counted.
        is_by_sweep = operation.kind is Kind.EDIT and operation.statuses[-1:] == [412]
        if operation.outcome is not Outcome.ACKNOWLEDGED or is_by_sweep:
            continue
        signatures = {*operation.request_ids, swept.get(operation.key, "")}
        count = sum(rows[signature, operation.kind.value] for signature in signatures)
        if count != 1:
            yield f"the trail shows it {count} times: {operation.told()}"


def kept_without_answer(ledger: Ledger, tables: Tables) -> Iterator[Operation]:
    """Yield the operations whose first sending was kept and never answered."""
    rows = {(row.request_id, row.act) for row in tables.audit if row.outcome == "allowed"}
    for operation in ledger:
        if operation.statuses[:1] != [200] and (operation.request_ids[0], operation.kind.value) in rows:
            yield operation
