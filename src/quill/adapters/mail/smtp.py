"""Mail through an SMTP server.

Source: RFC 5321 (SMTP; 4yz may work later, 5yz never will), RFC 3207 (STARTTLS), RFC 3834 (``Auto-Submitted``).
"""

import asyncio
from email.errors import HeaderParseError
from email.headerregistry import Address
from email.message import EmailMessage
from email.utils import format_datetime
from urllib.parse import unquote, urlsplit

import aiosmtplib

from quill.kit import clock
from quill.ports.delivery import Delivery
from quill.ports.mail import MailMessage

STEP_SECONDS = 10
"""How long the server may take for one step; well below RFC 5321, section 4.5.3.2, since the queue tries again."""
DEADLINE_SECONDS = 30

_PORTS = {"smtp": 25, "smtps": 465}
_LOOPBACK = frozenset({"localhost", "127.0.0.1", "::1"})


class SmtpMailer:
    """Sends through one server.

    With a user name and a server on another machine, encryption is demanded, since the password would travel in clear;
    otherwise it is used when the server offers it.

    Args:
        url: ``smtp[s]://user:password@host:port``.
        sender: address mail comes from.

    Raises:
        ValueError: the URL or the sender is not one; the message holds neither.
    """

    def __init__(self, url: str, sender: str) -> None:
        parts = urlsplit(url)
        if parts.scheme not in _PORTS or not parts.hostname:
            raise ValueError("QUILL_SMTP_URL must look like smtp[s]://user:password@host:port.")
        self._host = parts.hostname
        self._port = parts.port or _PORTS[parts.scheme]
        self._username = unquote(parts.username) if parts.username else None
        self._password = unquote(parts.password) if parts.password else None
        self._is_tls = parts.scheme == "smtps"
        try:
            self._sender = Address("Quill", addr_spec=sender)
        except (ValueError, IndexError, HeaderParseError) as error:
            raise ValueError("QUILL_MAIL_FROM must be an address.") from error

    async def send(self, message: MailMessage) -> Delivery:
        """Hand one message to the server."""
        try:
            mail = self._written(message)
        except (ValueError, IndexError, HeaderParseError):
            return Delivery.refused("bad_address")
        must_encrypt = self._username is not None and self._host not in _LOOPBACK
        try:
            async with asyncio.timeout(DEADLINE_SECONDS):
                await aiosmtplib.send(
                    mail,
                    hostname=self._host,
                    port=self._port,
                    username=self._username,
                    password=self._password,
                    use_tls=self._is_tls,
                    start_tls=None if self._is_tls or not must_encrypt else True,
                    timeout=STEP_SECONDS,
                )
        except aiosmtplib.SMTPRecipientsRefused as error:
            return _judged("recipient_refused", *(refusal.code for refusal in error.recipients))
        except aiosmtplib.SMTPDataError as error:
            return _judged("content_refused", error.code)
        except aiosmtplib.SMTPResponseException as error:
            # Who may send what here is the operator's mistake to mend, so the mail waits for it. Whoever does not speak
            # SMTP at all has no code.
            return Delivery.retry(f"smtp_{error.code}" if error.code > 0 else "smtp_not_spoken")
        except (aiosmtplib.SMTPException, OSError) as error:
            return Delivery.retry("smtp_timeout" if isinstance(error, TimeoutError) else "smtp_unavailable")
        return Delivery.delivered()

    def _written(self, message: MailMessage) -> EmailMessage:
        mail = EmailMessage()
        mail["From"] = self._sender
        mail["To"] = Address(addr_spec=message.to)
        mail["Subject"] = message.subject
        mail["Date"] = format_datetime(clock.now())
        mail["Message-ID"] = f"<{message.id}@{self._sender.domain}>"
        mail["Auto-Submitted"] = "auto-generated"
        mail.set_content(message.text)
        mail.add_alternative(message.html, subtype="html")
        return mail


def _judged(reason: str, *codes: int) -> Delivery:
    return Delivery.refused(reason) if any(code >= 500 for code in codes) else Delivery.retry(reason)
