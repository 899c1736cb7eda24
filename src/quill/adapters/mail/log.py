"""What stands behind the mail port when no mail server is set: a line that says so."""

import structlog

from quill.ports.delivery import Delivery
from quill.ports.mail import MailMessage

log = structlog.get_logger()


class LogMailer:
    """Sends nothing and says so; the recipient is never shown.

    Args:
        shows_links: whether the log holds the link a mail would have carried; for development alone, because such a
            link is as good as a password.
    """

    def __init__(self, *, shows_links: bool) -> None:
        self._shows_links = shows_links

    async def send(self, message: MailMessage) -> Delivery:
        """Log that a mail was not sent; refused, because waiting will not help."""
        if self._shows_links and message.link is not None:
            log.warning("mail_not_sent", template=message.template, entry=message.id, link=message.link)
        else:
            log.warning("mail_not_sent", template=message.template, entry=message.id)
        return Delivery.refused("mail_not_configured")
