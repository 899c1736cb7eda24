"""The actor within a statement: conditions on columns that hold for whoever executes it.

Making a statement costs more than most databases need to answer it, so those of nearly every request are made once and
kept by their shape: what their text depends on, never whose values they are executed with. An actor without
organisations or without a record has another shape, whose statements hold no such condition at all; executing a
statement with the values of an actor of another shape fails, because a value it needs is missing.
"""

from dataclasses import dataclass
from enum import Enum
from typing import Any, Protocol

import sqlalchemy as sa

from quill.actor import Actor

# No other value of a statement may be named like these; whoever adds one stays clear of ``actor_``.
_USER_ID = sa.bindparam("actor_user_id", type_=sa.Integer())
_PATIENT_ID = sa.bindparam("actor_patient_id", type_=sa.String(64))
_ORGANISATION_ID = sa.bindparam("actor_organisation_id", type_=sa.Integer())
_ORGANISATION_IDS = sa.bindparam("actor_organisation_ids", type_=sa.Integer(), expanding=True)


class Count(Enum):
    """How many, as far as a statement's text depends on it."""

    NONE = 0
    ONE = 1
    MANY = 2

    @classmethod
    def of(cls, number: int) -> "Count":
        """Return which of these a number is."""
        return cls(min(number, 2))


class Terms(Protocol):
    """What a rule says of whoever it is about; rules are written in these and hold for one actor and for many."""

    @property
    def is_admin(self) -> bool:
        """Tell whether this is about admins or superadmins."""
        ...

    @property
    def organisations(self) -> Count:
        """Return in how many organisations they work."""
        ...

    @property
    def own_record_id(self) -> sa.ColumnElement[str] | None:
        """Return the id of their own record, as an expression; ``None`` without one."""
        ...

    def is_user(self, user_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds their number."""
        ...

    def is_own_record(self, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds the id of their own record; false without one."""
        ...

    def works_in(self, organisation_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds an organisation they work in; false without any."""
        ...


@dataclass(frozen=True, slots=True)
class ActorShape:
    """What a statement's text depends on of the actor it is executed for.

    Attributes:
        is_admin: admin or superadmin.
        has_record: a patient record is the actor's own.
        organisations: how many the actor works in.
    """

    is_admin: bool
    has_record: bool
    organisations: Count

    @classmethod
    def of(cls, actor: Actor) -> "ActorShape":
        """Return the shape of the statements for an actor."""
        return cls(actor.is_admin, actor.patient_id is not None, Count.of(len(actor.organisation_ids)))

    def is_user(self, user_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds the actor's number; never so for a job of the program."""
        return user_id == _USER_ID

    def is_own_record(self, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds the id of the actor's own record; false without one."""
        return patient_id == _PATIENT_ID if self.has_record else sa.false()

    def works_in(self, organisation_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds an organisation the actor works in; false without any."""
        if self.organisations is Count.NONE:
            return sa.false()
        if self.organisations is Count.ONE:
            return organisation_id == _ORGANISATION_ID
        return organisation_id.in_(_ORGANISATION_IDS)

    @property
    def own_record_id(self) -> sa.ColumnElement[str] | None:
        """Return the id of the actor's own record, as an expression; ``None`` without one."""
        return _PATIENT_ID if self.has_record else None


def actor_values(actor: Actor) -> dict[str, Any]:
    """Return what a statement of the actor's shape is executed with, besides values of its own."""
    values: dict[str, Any] = {_USER_ID.key: actor.user_id}
    if actor.patient_id is not None:
        values[_PATIENT_ID.key] = actor.patient_id
    if len(actor.organisation_ids) == 1:
        values[_ORGANISATION_ID.key] = actor.organisation_ids[0]
    elif actor.organisation_ids:
        values[_ORGANISATION_IDS.key] = list(actor.organisation_ids)
    return values
