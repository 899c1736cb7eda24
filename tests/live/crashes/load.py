"""The work of a clinic at a fixed rate, whether or not the answers keep up."""

import asyncio
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

from tests.live.crashes.client import Client
from tests.live.crashes.ledger import Kind, Ledger, Operation, Outcome, new_mark

SHARES = {
    Kind.MESSAGE: 68,
    Kind.AMENDMENT: 8,
    Kind.LETTER: 8,
    Kind.LETTER_AMENDMENT: 5,
    Kind.PATIENT: 5,
    Kind.EDIT: 5,
    Kind.CONVERSATION: 1,
}
"""Operations of each kind in a hundred."""
PATIENTS_WITH_LETTERS = 12
FIRST_PATIENTS = 4
FIRST_CONVERSATIONS = 8
BUSY_CONVERSATIONS = 20
"""The newest ones, in which messages are sent."""


class Desk:
    """What the clinic has to work on: chooses the next operation, and learns from every answer.

    A patient or letter somebody is changing is set aside until the answer comes, so that of the edits of one thing
    never two are under way and each version has one author. One whose change was not answered stays aside.

    Args:
        ledger: where every operation is noted before it is sent.
        people: user ids of the clients, by their number.
    """

    def __init__(self, ledger: Ledger, people: Sequence[int]) -> None:
        self.ledger = ledger
        self._people = people
        self._conversations: list[int] = []
        self._messages: list[tuple[int, int, int]] = []
        self._patients: dict[str, int] = {}
        self._all_patients: list[str] = []
        self._letters: dict[tuple[str, str], int] = {}

    def patient(self, number: int, sender: int = 0) -> Operation:
        """Return an operation that adds a patient."""
        mark = new_mark()
        body = {"given_name": "First", "family_name": mark, "birth_date": "1980-02-29", "gender": "female"}
        return self._noted(Kind.PATIENT, sender, number, "POST", "/api/patients", body, mark, mark)

    def conversation(self, number: int, sender: int = 0) -> Operation:
        """Return an operation that begins a conversation among all the clients."""
        mark, text = _written()
        others = [person for at, person in enumerate(self._people) if at != sender]
        about = random.choice(self._all_patients)
        body = {"patient_id": about, "subject": mark, "participant_ids": others, "initial_message": text}
        return self._noted(Kind.CONVERSATION, sender, number, "POST", "/api/conversations", body, text, mark)

    def next(self, number: int) -> Operation:
        """Return the next operation of a round; a message where what was drawn has nothing to work on."""
        kind = random.choices(list(SHARES), weights=list(SHARES.values()))[0]
        sender = random.randrange(len(self._people))
        if kind is Kind.PATIENT:
            return self.patient(number, sender)
        if kind is Kind.CONVERSATION:
            return self.conversation(number, sender)
        if kind is Kind.LETTER:
            return self._letter(number, sender)
        if kind is Kind.LETTER_AMENDMENT and self._letters:
            return self._letter_amendment(number, sender)
        if kind is Kind.EDIT and self._patients:
            return self._edit(number, sender)
        return self._message(number, sender, amends=kind is Kind.AMENDMENT)

    def learn(self, operation: Operation) -> None:
        """Take in what the answer to an operation tells."""
        if operation.outcome is Outcome.ACKNOWLEDGED and operation.record is not None:
            self._learn_record(operation, operation.record)
        elif operation.outcome in {Outcome.REFUSED, Outcome.UNHEARD} and operation.if_match is not None:
            if operation.kind is Kind.EDIT:
                self._patients[operation.path.rpartition("/")[2]] = operation.if_match
            else:
                self._letters[_letter_of(operation)] = operation.if_match

    def _learn_record(self, operation: Operation, record: str) -> None:
        if operation.kind in {Kind.PATIENT, Kind.EDIT}:
            patient_id, _, version = record.partition("@")
            self._patients[patient_id] = int(version)
            if operation.kind is Kind.PATIENT:
                self._all_patients.append(patient_id)
        elif operation.kind in {Kind.LETTER, Kind.LETTER_AMENDMENT}:
            object_id, _, version = record.split("::")
            self._letters[operation.path.split("/")[3], object_id] = int(version)
        else:
            conversation, message, _ = record.split("/")
            self._messages.append((operation.sender, int(conversation), int(message)))
            if operation.kind is Kind.CONVERSATION:
                self._conversations.append(int(conversation))

    def _message(self, number: int, sender: int, *, amends: bool) -> Operation:
        mark, text = _written()
        own = [place for place in self._messages[-200:] if place[0] == sender] if amends else []
        if not own:
            path = f"/api/conversations/{random.choice(self._conversations[-BUSY_CONVERSATIONS:])}/messages"
            return self._noted(Kind.MESSAGE, sender, number, "POST", path, {"body": text}, text, mark)
        _, conversation, amended = random.choice(own)
        path, body = f"/api/conversations/{conversation}/messages", {"body": text, "amends_id": amended}
        return self._noted(Kind.AMENDMENT, sender, number, "POST", path, body, text, mark)

    def _letter(self, number: int, sender: int) -> Operation:
        mark, text = _written()
        path = f"/api/patients/{random.choice(self._all_patients[:PATIENTS_WITH_LETTERS])}/letters"
        body = {"title": mark, "body": text}
        return self._noted(Kind.LETTER, sender, number, "POST", path, body, text, mark)

    def _letter_amendment(self, number: int, sender: int) -> Operation:
        mark, text = _written()
        patient_id, object_id = random.choice(list(self._letters))
        path, body = f"/api/patients/{patient_id}/letters/{object_id}", {"title": mark, "body": text}
        made = self._noted(Kind.LETTER_AMENDMENT, sender, number, "PUT", path, body, text, mark)
        made.if_match = self._letters.pop((patient_id, object_id))
        return made

    def _edit(self, number: int, sender: int) -> Operation:
        mark = new_mark()
        patient_id = random.choice(list(self._patients))
        made = self._noted(
            Kind.EDIT, sender, number, "PATCH", f"/api/patients/{patient_id}", {"given_name": mark}, mark, mark
        )
        made.if_match = self._patients.pop(patient_id)
        return made

    def _noted(  # noqa: PLR0917 - the fields of an operation, in their order
        self,
        kind: Kind,
        sender: int,
        number: int,
        method: str,
        path: str,
        body: Mapping[str, object],
        text: str,
        mark: str,
    ) -> Operation:
        return self.ledger.add(Operation(kind, sender, number, method, path, body, text, mark))


async def fill(desk: Desk, clients: Sequence[Client]) -> None:
    """Give the clinic its first patients and conversations."""
    for make, count in ((desk.patient, FIRST_PATIENTS), (desk.conversation, FIRST_CONVERSATIONS)):
        for _ in range(count):
            operation = make(0)
            await clients[0].send(operation)
            if operation.outcome is not Outcome.ACKNOWLEDGED:
                raise RuntimeError(f"The clinic could not be filled: {operation.told()}")
            desk.learn(operation)


@dataclass(frozen=True, slots=True)
class Signals:
    """What a load and whoever kills tell each other."""

    is_under_way: asyncio.Event = field(default_factory=asyncio.Event)
    """The first operation was acknowledged."""
    stop: asyncio.Event = field(default_factory=asyncio.Event)


async def run(desk: Desk, clients: Sequence[Client], *, number: int, rate: float, signals: Signals) -> None:
    """Send operations at a rate (per second) until told to stop; ends when each was answered, or never will be."""

    async def do(operation: Operation) -> None:
        await clients[operation.sender].send(operation)
        desk.learn(operation)
        if operation.outcome is Outcome.ACKNOWLEDGED:
            signals.is_under_way.set()

    began, sent = time.monotonic(), 0
    async with asyncio.TaskGroup() as group:
        while not signals.stop.is_set():
            group.create_task(do(desk.next(number)))
            sent += 1
            await asyncio.sleep(max(0.0, began + sent / rate - time.monotonic()))


def _written() -> tuple[str, str]:
    """Return a mark, and a text that holds it with what a store may stumble over."""
    mark = new_mark()
    return mark, f"{mark}: blood pressure 120/80 — naïve “quotes”, 血圧, 🩺,\n\ttabs and <b>tags</b> & more."


def _letter_of(operation: Operation) -> tuple[str, str]:
    parts = operation.path.split("/")
    return parts[3], parts[5]
