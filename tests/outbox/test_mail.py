"""Mail as it arrives at a server, and what becomes of it when it does not."""

from collections.abc import Iterator

import pytest
import structlog

from quill.adapters.mail import smtp
from quill.adapters.mail.log import LogMailer
from quill.adapters.mail.smtp import SmtpMailer
from quill.outbox import service, templates
from quill.outbox.delivery import MailCarrier
from quill.outbox.worker import Worker
from quill.ports.mail import MailMessage
from quill.unit import Services, Unit
from tests.outbox.conftest import InUnit, entries
from tests.upstreams.mail_server import Mailbox, serving_mail

pytestmark = pytest.mark.anyio

LINK = "https://quill.example/reset-password?token=abc&x=1"


@pytest.fixture
def mailbox() -> Iterator[Mailbox]:
    with serving_mail() as mailbox:
        yield mailbox


def mailer(mailbox: Mailbox) -> SmtpMailer:
    return SmtpMailer(f"smtp://127.0.0.1:{mailbox.port}", "noreply@quill.example")


async def enqueue(in_unit: InUnit, template: str = "password-reset", to: str = "pat@example.org", **facts: str) -> None:
    async def act(unit: Unit) -> None:
        await service.enqueue_mail(unit, to=to, template=template, facts=facts)

    await in_unit(act)


async def test_mail_arrives_with_text_and_html_and_the_link(
    services: Services, in_unit: InUnit, mailbox: Mailbox
) -> None:
    await enqueue(in_unit, link=LINK)
    await Worker(services, {"mail": MailCarrier(mailer(mailbox))}).drain()
    (mail,) = mailbox.mails
    assert mailbox.recipients == ["pat@example.org"]
    assert mail["From"] == "Quill <noreply@quill.example>"
    assert mail["Subject"] == "Reset your Quill password"
    assert mail["Auto-Submitted"] == "auto-generated"
    text, html = mail.get_body(("plain",)), mail.get_body(("html",))
    assert text is not None
    assert html is not None
    assert LINK in text.get_content()
    assert 'href="https://quill.example/reset-password?token=abc&amp;x=1"' in html.get_content()
    (entry,) = await entries(services)
    assert entry["state"] == "sent"
    assert mail["Message-ID"] == f"<{entry['id']}@quill.example>"


@pytest.mark.parametrize(
    ("answer", "state", "reason"),
    [("451 later", "pending", "content_refused"), ("554 no", "failed", "content_refused")],
)
async def test_server_that_refuses_the_content_is_asked_again_only_when_it_may_help(
    services: Services, in_unit: InUnit, mailbox: Mailbox, answer: str, state: str, reason: str
) -> None:
    mailbox.answer = answer
    await enqueue(in_unit, link=LINK)
    await Worker(services, {"mail": MailCarrier(mailer(mailbox))}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"]) == (state, reason)


@pytest.mark.parametrize(("answer", "state"), [("450 full", "pending"), ("550 unknown", "failed")])
async def test_recipient_refused_for_good_is_given_up(
    services: Services, in_unit: InUnit, mailbox: Mailbox, answer: str, state: str
) -> None:
    mailbox.recipient_answer = answer
    await enqueue(in_unit, link=LINK)
    await Worker(services, {"mail": MailCarrier(mailer(mailbox))}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"]) == (state, "recipient_refused")


async def test_server_that_is_away_is_waited_for(services: Services, in_unit: InUnit) -> None:
    await enqueue(in_unit, link=LINK)
    await Worker(services, {"mail": MailCarrier(SmtpMailer("smtp://127.0.0.1:9", "noreply@quill.example"))}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"]) == ("pending", "smtp_unavailable")


@pytest.mark.parametrize("address", ["pat@example.org\r\nBcc: all@example.org", "not an address", "", "a@b@c"])
async def test_address_that_is_none_is_never_sent_to(
    services: Services, in_unit: InUnit, mailbox: Mailbox, address: str
) -> None:
    await enqueue(in_unit, to=address, link=LINK)
    await Worker(services, {"mail": MailCarrier(mailer(mailbox))}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"]) == ("failed", "bad_address")
    assert mailbox.mails == []


async def test_password_is_never_sent_in_clear_to_another_machine(
    mailbox: Mailbox, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(smtp, "_LOOPBACK", frozenset())  # so that this machine counts as another
    sender = SmtpMailer(f"smtp://user:secret@127.0.0.1:{mailbox.port}", "noreply@quill.example")
    delivery = await sender.send(MailMessage("1", "pat@example.org", "s", "t", "<p>t</p>", "invite"))
    assert delivery.outcome == "retry"
    assert mailbox.mails == []


async def test_without_a_server_the_mail_fails_with_the_reason_and_the_log_says_so_without_the_address(
    services: Services, in_unit: InUnit
) -> None:
    await enqueue(in_unit, link=LINK)
    with structlog.testing.capture_logs() as lines:
        await Worker(services, {"mail": MailCarrier(LogMailer(shows_links=True))}).drain()
    (entry,) = await entries(services)
    assert (entry["state"], entry["last_error"]) == ("failed", "mail_not_configured")
    assert any(line["event"] == "mail_not_sent" and line["link"] == LINK for line in lines)
    assert "pat@example.org" not in str(lines)


async def test_in_production_the_log_holds_no_link(services: Services, in_unit: InUnit) -> None:
    await enqueue(in_unit, link=LINK)
    with structlog.testing.capture_logs() as lines:
        await Worker(services, {"mail": MailCarrier(LogMailer(shows_links=False))}).drain()
    assert lines
    assert "token" not in str(lines)


@pytest.mark.parametrize("url", ["http://127.0.0.1", "smtp://", "mail.example.org"])
def test_mail_server_that_is_none_is_refused_at_start_without_repeating_it(url: str) -> None:
    with pytest.raises(ValueError, match="QUILL_SMTP_URL must look like"):
        SmtpMailer(url, "noreply@quill.example")


def test_facts_are_escaped_in_html_and_the_words_are_british() -> None:
    words = templates.render("invite", {"link": 'https://q.example/"><script>', "lifetime": "<b>2</b> days"})
    assert "<script>" not in words.html
    assert "<b>2</b>" not in words.html
    assert 'lang="en-GB"' in words.html


@pytest.mark.parametrize("template", ["password-reset", "password-changed", "password-was-reset", "invite"])
def test_every_mail_says_the_same_in_both_parts(template: str) -> None:
    words = templates.render(template, {"link": "https://quill.example/x"})
    for paragraph in words.text.split("\n\n")[:2]:
        first_line = paragraph.splitlines()[0].rstrip(":")
        assert first_line.replace("'", "&#x27;") in words.html
