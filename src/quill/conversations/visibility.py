"""Which conversations somebody may read: the one rule, as a condition.

Source: decisions, rules 17 and 24.
"""

from collections.abc import Callable
from typing import TypeAlias, cast

import sqlalchemy as sa

from quill.access import service as access
from quill.conversations.models import Conversation, ConversationOrganisation, ConversationParticipant
from quill.identity import service as identity
from quill.identity.terms import ActorShape, Count, Terms

# Core tables, and aliases made once: ORM attributes cost much more.
CONVERSATION = cast("sa.Table", Conversation.__table__)
PARTICIPANT = cast("sa.Table", ConversationParticipant.__table__)
OWNER = cast("sa.Table", ConversationOrganisation.__table__)
_ANY_PARTICIPANT = PARTICIPANT.alias("any_participant")
_ANY_OWNER = OWNER.alias("any_owner")
_subject: sa.ColumnElement[str] = CONVERSATION.c.patient_id


Rule: TypeAlias = Callable[[ActorShape], sa.ColumnElement[bool]]
"""A condition on a conversation, for actors of a shape."""


def visible_conversations(actor: Terms) -> sa.ColumnElement[bool]:
    """Return the condition that the actor may read a conversation; the only place this is decided.

    The actor must still be tied to the patient, and take part, work in one of the conversation's organisations, or be
    an admin. The patient, and people the patient let in, also read what either of them takes part in, never talk among
    staff.
    """
    if actor.is_admin:
        return sa.true()
    return sa.and_(
        access.is_related(actor, _subject),
        sa.or_(
            _takes_part(actor),
            _works_there(actor),
            sa.and_(access.is_personally_related(actor, _subject), _patient_takes_part()),
        ),
    )


def about_related_patients(actor: ActorShape) -> sa.ColumnElement[bool]:
    """Return the condition that a conversation is about a patient the actor is tied to, readable or not."""
    return access.is_related(actor, _subject)


def everything(actor: ActorShape) -> sa.ColumnElement[bool]:
    """Return the condition that lets every conversation through; for acts whose right was decided elsewhere."""
    del actor
    return sa.true()


def _takes_part(actor: Terms) -> sa.ColumnElement[bool]:
    return sa.exists().where(
        _ANY_PARTICIPANT.c.conversation_id == CONVERSATION.c.id, actor.is_user(_ANY_PARTICIPANT.c.user_id)
    )


def _works_there(actor: Terms) -> sa.ColumnElement[bool]:
    if actor.organisations is Count.NONE:
        return sa.false()
    return sa.exists().where(
        _ANY_OWNER.c.conversation_id == CONVERSATION.c.id, actor.works_in(_ANY_OWNER.c.organisation_id)
    )


def _patient_takes_part() -> sa.ColumnElement[bool]:
    return sa.exists().where(
        _ANY_PARTICIPANT.c.conversation_id == CONVERSATION.c.id,
        _ANY_PARTICIPANT.c.user_id == identity.PERSON_ID,
        _subject == identity.PERSON_PATIENT_ID,
    )
