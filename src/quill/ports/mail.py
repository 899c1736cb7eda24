"""Mail as Quill needs it: one message to one address.

Source: RFC 5322 (message), RFC 2046 section 5.1.4 (``multipart/alternative``).
"""

from dataclasses import dataclass
from typing import Protocol

from quill.ports.delivery import Delivery


@dataclass(frozen=True, slots=True)
class MailMessage:
    """One mail.

    Attributes:
        id: stays the same when it is sent again, so that a mailbox can tell a repetition.
        to: one address.
        subject: one line.
        text: the plain part.
        html: the same, for readers who see more.
        template: which kind of mail, for the log.
        link: the link it carries, if any; the development log shows it.
    """

    id: str
    to: str
    subject: str
    text: str
    html: str
    template: str
    link: str | None = None


class Mailer(Protocol):
    """Sends mail, or says why not."""

    async def send(self, message: MailMessage) -> Delivery:
        """Hand one message over; returns within a deadline and raises nothing for trouble on the other side."""
        ...
