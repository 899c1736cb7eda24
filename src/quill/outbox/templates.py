"""The words of mails and notifications: British English, text and HTML, and no patient data anywhere.

A notification is shown on a locked screen and passes through the browser maker's servers (sealed, but its reader may be
anybody), so it never says more than that something is there.
"""

import datetime
import html
from collections.abc import Mapping
from dataclasses import dataclass
from urllib.parse import urlsplit

DAY = datetime.timedelta(days=1)


@dataclass(frozen=True, slots=True)
class Words:
    """A rendered mail."""

    subject: str
    text: str
    html: str
    link: str | None


@dataclass(frozen=True, slots=True)
class Notification:
    """A rendered notification; ``url`` is a path of the client, opened on a tap."""

    title: str
    body: str
    url: str


@dataclass(frozen=True, slots=True)
class _Template:
    subject: str
    paragraphs: tuple[str, ...]
    button: str | None
    lifetime: str
    maximum_age: datetime.timedelta


_IF_NOT_YOU = "If it was not you, reset your password now and tell whoever runs Quill where you work or are cared for."

_TEMPLATES: Mapping[str, _Template] = {
    "password-reset": _Template(
        subject="Reset your Quill password",
        paragraphs=(
            "Somebody asked to reset the password of your Quill account. If it was you, follow the link below.",
            "The link works once and for {lifetime}.",
            "If it was not you, you need not do anything: your password stays as it is.",
        ),
        button="Choose a new password",
        lifetime="30 minutes",
        # Wire contract, password_reset: the link is worth nothing after this, so neither is the mail.
        maximum_age=datetime.timedelta(minutes=30),
    ),
    "password-changed": _Template(
        subject="Your Quill password was changed",
        paragraphs=(
            "The password of your Quill account has just been changed. The device it was changed on stays signed in, "
            "and every other device has been signed out.",
            _IF_NOT_YOU,
        ),
        button=None,
        lifetime="",
        maximum_age=3 * DAY,
    ),
    "password-was-reset": _Template(
        subject="Your Quill password was changed",
        paragraphs=(
            "The password of your Quill account has just been changed by a link sent to this address, and every device "
            "has been signed out.",
            _IF_NOT_YOU,
        ),
        button=None,
        lifetime="",
        maximum_age=3 * DAY,
    ),
    "invite": _Template(
        subject="You are invited to Quill",
        paragraphs=(
            "You are invited to take part in somebody's care through Quill, a service for clinical communication.",
            "The link below is for you alone. It works once and for {lifetime}; please do not pass it on.",
            "If you did not expect this, you can leave it unanswered.",
        ),
        button="Accept the invitation",
        lifetime="7 days",
        maximum_age=3 * DAY,
    ),
}

_SIGNATURE = "This message was sent by Quill. Please do not answer it: nobody reads this address."

_PAGE = """<!doctype html>
<html lang="en-GB"><head><meta charset="utf-8"><title>{subject}</title></head>
<body style="font-family:sans-serif;line-height:1.5;max-width:36rem;margin:2rem auto;color:#212b32">
<h1 style="font-size:1.25rem">{subject}</h1>
{body}
<p style="color:#4c6272;font-size:0.875rem">{signature}</p>
</body></html>
"""


def check(template: str, facts: Mapping[str, str]) -> None:
    """Refuse a mail that could not be written, while its cause can still be told.

    Raises:
        ValueError: no such template, or it lacks a link it needs.
    """
    known = _TEMPLATES.get(template)
    if known is None:
        raise ValueError("There is no such mail template.")
    if known.button is not None and urlsplit(facts.get("link", "")).scheme not in {"http", "https"}:
        raise ValueError("This mail needs a link.")


def maximum_age(template: str) -> datetime.timedelta:
    """Return how long after it was written a mail is still worth sending."""
    return _TEMPLATES[template].maximum_age


def render(template: str, facts: Mapping[str, str]) -> Words:
    """Return the mail of a template with its facts, as text and as HTML.

    Raises:
        ValueError: no such template, or it lacks a link it needs.
    """
    check(template, facts)
    chosen = _TEMPLATES[template]
    lifetime = facts.get("lifetime", chosen.lifetime)
    paragraphs = [paragraph.format(lifetime=lifetime) for paragraph in chosen.paragraphs]
    link = facts["link"] if chosen.button is not None else None
    parts = [f"<p>{html.escape(paragraph)}</p>" for paragraph in paragraphs]
    lines = list(paragraphs)
    if link is not None and chosen.button is not None:
        parts.append(f'<p><a href="{html.escape(link)}">{html.escape(chosen.button)}</a></p>')
        lines.append(f"{chosen.button}:\n{link}")
    page = _PAGE.format(subject=html.escape(chosen.subject), body="\n".join(parts), signature=_SIGNATURE)
    text = "\n\n".join([*lines, f"-- \n{_SIGNATURE}"]) + "\n"
    return Words(subject=chosen.subject, text=text, html=page, link=link)


def check_notification(kind: str, facts: Mapping[str, str]) -> None:
    """Refuse a notification that could not be written.

    Raises:
        ValueError: no such kind, or it lacks the id it needs.
    """
    if kind not in {"message", "test"}:
        raise ValueError("There is no such notification.")
    if kind == "message" and not facts.get("conversation_id", "").isdecimal():
        raise ValueError("This notification needs a conversation_id.")


def notification(kind: str, facts: Mapping[str, str]) -> Notification:
    """Return what a device shows.

    Raises:
        ValueError: no such kind, or it lacks the id it needs.
    """
    check_notification(kind, facts)
    if kind == "test":
        return Notification("Quill", "Notifications work on this device", "/app/")
    return Notification(
        "New message in Quill", "Open Quill to read it", f"/app/conversations/{facts['conversation_id']}"
    )
