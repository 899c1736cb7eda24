"""What carries one kind of entry: handed to the worker by the assembly."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Protocol

from quill.kit.documents import Document
from quill.outbox import templates
from quill.ports.delivery import Delivery
from quill.ports.mail import Mailer, MailMessage


@dataclass(frozen=True, slots=True)
class Task:
    """An entry in hand; ``id`` stays the same at every attempt."""

    id: str
    payload: Document
    attempts: int


@dataclass(frozen=True, slots=True)
class Settlement:
    """How an attempt ended, and what is to be delivered instead, in entries of their own."""

    delivery: Delivery
    follow_ups: Sequence[Document] = ()


class Carrier(Protocol):
    """Delivers the entries of one channel."""

    async def deliver(self, task: Task) -> Settlement:
        """Try once, within less than a lease; whatever it raises counts as an attempt to be repeated."""
        ...


class MailCarrier:
    """Writes mails from their templates and hands them to the mailer."""

    def __init__(self, mailer: Mailer) -> None:
        self._mailer = mailer

    async def deliver(self, task: Task) -> Settlement:
        """Send one mail."""
        template = task.payload["template"]
        words = templates.render(template, task.payload["facts"])
        message = MailMessage(
            id=task.id,
            to=task.payload["to"],
            subject=words.subject,
            text=words.text,
            html=words.html,
            template=template,
            link=words.link,
        )
        return Settlement(await self._mailer.send(message))
