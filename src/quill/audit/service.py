"""Notes what was done, refused or tried in vain. The rows are written when the unit or reader ends.

A row tells who, what kind of act, about which patient, how it ended and when. It never tells contents: what is not
shaped like an identifier is withheld, so a name or a sentence passed by mistake does not reach the trail.
"""

import re
from enum import StrEnum

from quill.actor import Actor
from quill.audit.models import AuditEvent
from quill.kit import clock
from quill.kit.ids import PatientId
from quill.unit import AuditRow, Reader

ANONYMOUS = "anonymous"
"""Actor name where nobody is signed in."""

WITHHELD = "(withheld)"
"""Stands where something was given that cannot be an identifier."""

# Visible ASCII without spaces: FHIR ids, openEHR uids, numbers, slugs and dotted or coloned pairs of them.
_IDENTIFIER = re.compile(r"[\x21-\x7e]*")

# How many characters each text column takes.
_SIZES: dict[str, int] = {
    column.name: length
    for column in AuditEvent.__table__.columns
    if (length := getattr(column.type, "length", None)) is not None
}


class Outcome(StrEnum):
    """How an act ended."""

    ALLOWED = "allowed"
    REFUSED = "refused"
    FAILED = "failed"


class Act(StrEnum):
    """Every kind of act the trail knows, as ``noun:verb``; how it ended is the outcome.

    A name is never given another meaning.
    """

    SIGN_IN = "sign-in"
    SIGN_OUT = "sign-out"
    LOGIN_READ = "login:read"
    LOGIN_LIST = "login:list"
    LOGIN_END = "login:end"
    TOKEN_REFRESH = "token:refresh"  # noqa: S105 - the name of an act
    TOKEN_REUSE = "token:reuse"  # noqa: S105 - the name of an act
    REQUEST_REFUSE = "request:refuse"
    """A request turned away at the edge: CSRF, foreign origin, throttle."""
    PASSWORD_CHANGE = "password:change"  # noqa: S105 - the name of an act
    PASSWORD_RESET = "password:reset"  # noqa: S105 - the name of an act
    PASSWORD_RESET_REQUEST = "password-reset:request"  # noqa: S105 - the name of an act
    TWO_FACTOR_SET_UP = "two-factor:set-up"
    TWO_FACTOR_ENABLE = "two-factor:enable"
    TWO_FACTOR_DISABLE = "two-factor:disable"
    RECOVERY_CODE_USE = "recovery-code:use"

    USER_REGISTER = "user:register"
    USER_CREATE = "user:create"
    USER_CHANGE = "user:change"
    USER_DISABLE = "user:disable"
    USER_ENABLE = "user:enable"
    USER_READ = "user:read"
    USER_LIST = "user:list"
    USER_LINK_PATIENT = "user:link-patient"
    USER_UNLINK_PATIENT = "user:unlink-patient"
    COMPETENCIES_READ = "competencies:read"
    COMPETENCIES_CHANGE = "competencies:change"
    ROLES_CHANGE = "roles:change"
    REGISTRATIONS_CHANGE = "registrations:change"

    ACCESS_CHECK = "access:check"
    PATIENT_VERIFY = "patient:verify"
    PATIENT_CREATE = "patient:create"
    PATIENT_READ = "patient:read"
    PATIENT_LIST = "patient:list"
    PATIENT_SEARCH = "patient:search"
    PATIENT_CHANGE = "patient:change"
    PATIENT_ACTIVATE = "patient:activate"
    PATIENT_DEACTIVATE = "patient:deactivate"
    PATIENT_IMPORT = "patient:import"
    PATIENT_FOLLOW = "patient:follow"
    LETTER_WRITE = "letter:write"
    LETTER_AMEND = "letter:amend"
    LETTER_READ = "letter:read"
    LETTER_LIST = "letter:list"
    PRESCRIPTION_WRITE = "prescription:write"
    PRESCRIPTION_READ = "prescription:read"
    PRESCRIPTION_LIST = "prescription:list"

    CONVERSATION_CREATE = "conversation:create"
    CONVERSATION_READ = "conversation:read"
    CONVERSATION_LIST = "conversation:list"
    CONVERSATION_CHANGE = "conversation:change"
    CONVERSATION_JOIN = "conversation:join"
    CONVERSATION_LEAVE = "conversation:leave"
    MESSAGE_SEND = "message:send"
    MESSAGE_AMEND = "message:amend"
    MESSAGE_LIST = "message:list"
    MESSAGE_MARK_READ = "message:mark-read"
    PARTICIPANT_ADD = "participant:add"
    PARTICIPANT_REMOVE = "participant:remove"
    PARTICIPANT_LIST = "participant:list"

    INVITE_SEND = "invite:send"
    INVITE_LIST = "invite:list"
    INVITE_WITHDRAW = "invite:withdraw"
    INVITE_ACCEPT = "invite:accept"
    EXTERNAL_ACCESS_LIST = "external-access:list"
    EXTERNAL_ACCESS_REVOKE = "external-access:revoke"

    ORGANISATION_CREATE = "organisation:create"
    ORGANISATION_CHANGE = "organisation:change"
    ORGANISATION_READ = "organisation:read"
    ORGANISATION_LIST = "organisation:list"
    MEMBERSHIP_ADD = "membership:add"
    MEMBERSHIP_REMOVE = "membership:remove"
    MEMBERSHIP_LIST = "membership:list"
    JOIN_REQUEST_CREATE = "join-request:create"
    JOIN_REQUEST_LIST = "join-request:list"
    JOIN_REQUEST_APPROVE = "join-request:approve"
    JOIN_REQUEST_DECLINE = "join-request:decline"
    FEATURE_READ = "feature:read"
    FEATURE_CHANGE = "feature:change"

    PUSH_SUBSCRIBE = "push:subscribe"
    PUSH_UNSUBSCRIBE = "push:unsubscribe"
    PUSH_TEST = "push:test"
    EVENTS_LISTEN = "events:listen"

    INTENT_SWEEP = "intent:sweep"
    INTENT_REFUSE = "intent:refuse"
    PROJECTION_REBUILD = "projection:rebuild"
    STORES_RECONCILE = "stores:reconcile"
    EXPORT_COPY = "export:copy"
    SECRETS_RESEAL = "secrets:reseal"
    DEMO_FILL = "demo:fill"
    AUDIT_VERIFY = "audit:verify"
    AUDIT_EXPORT = "audit:export"


def record(
    reader: Reader,
    actor: Actor | None,
    act: Act,
    *,
    patient_id: PatientId | None = None,
    subject: str | None = None,
    reason: str = "",
) -> None:
    """Note an act that was allowed. A unit writes the row in its own transaction, a reader before its answer leaves.

    Args:
        reader: the reader or unit the act happens in.
        actor: who acts.
        act: what kind of act.
        patient_id: the patient it is about.
        subject: what else it is about, as ``noun:id``, such as ``letter:…`` or ``user:12``.
        reason: a slug telling why it was allowed, such as ``shared-organisation``.
    """
    reader.audit_rows.append(_row(reader, actor, act, Outcome.ALLOWED, patient_id, subject, reason))


def record_refusal(
    reader: Reader,
    actor: Actor | None,
    act: Act,
    *,
    reason: str,
    patient_id: PatientId | None = None,
    subject: str | None = None,
) -> None:
    """Note an act that was refused; the row is kept whatever becomes of the transaction.

    Args:
        reader: the reader or unit the act was tried in.
        actor: who tried; ``None`` where nobody is signed in.
        act: what kind of act.
        reason: a slug telling why, such as an error's ``code``.
        patient_id: the patient named, whether there is one or not.
        subject: what else it is about, as ``noun:id``; never a username somebody typed, which may be a password.
    """
    reader.refusal_rows.append(_row(reader, actor, act, Outcome.REFUSED, patient_id, subject, reason))


def record_failure(
    reader: Reader,
    actor: Actor | None,
    act: Act,
    *,
    reason: str,
    patient_id: PatientId | None = None,
    subject: str | None = None,
) -> None:
    """Note an act that was allowed and did not come about, such as for a store that did not answer.

    The row is kept whatever becomes of the transaction; the arguments are those of :func:`record_refusal`.
    """
    reader.refusal_rows.append(_row(reader, actor, act, Outcome.FAILED, patient_id, subject, reason))


def _row(
    reader: Reader,
    actor: Actor | None,
    act: Act,
    outcome: Outcome,
    patient_id: str | None,
    subject: str | None,
    reason: str,
) -> AuditRow:
    return {
        "occurred_at": clock.now(),
        "request_id": _identifier("request_id", reader.facts.request_id),
        "actor_user_id": actor.user_id if actor else None,
        "actor_name": _printable("actor_name", actor.name if actor else ANONYMOUS),
        "login_id": _identifier("login_id", actor.login_id) if actor and actor.login_id else None,
        "source": _identifier("source", reader.facts.source),
        "act": act.value,
        "outcome": outcome.value,
        "reason": _identifier("reason", reason),
        "patient_id": None if patient_id is None else _identifier("patient_id", patient_id),
        "subject": None if subject is None else _identifier("subject", subject),
    }


def _identifier(column: str, text: str) -> str:
    return text[: _SIZES[column]] if _IDENTIFIER.fullmatch(text) else WITHHELD


def _printable(column: str, text: str) -> str:
    # Control characters would forge lines where the trail is printed, and PostgreSQL refuses NUL.
    return "".join(character if character.isprintable() else "?" for character in text[: _SIZES[column]])
