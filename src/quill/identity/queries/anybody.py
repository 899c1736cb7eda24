"""People as rows of a statement, to ask of many at once what rules ask of an actor."""

from dataclasses import dataclass
from typing import cast

import sqlalchemy as sa

from quill.actor import Level
from quill.identity.models import OrganisationStaffMember, UserAccount
from quill.identity.terms import Count

_PERSON = cast("sa.Table", UserAccount.__table__).alias("anybody")
_WORK = cast("sa.Table", OrganisationStaffMember.__table__).alias("anybodys_work")


@dataclass(frozen=True, slots=True)
class Anybody:
    """A person as a row of the statement: stands where an actor stands in a rule, to ask about many at once.

    Attributes:
        level: they are all admins (and above), all staff below that, or all below staff, as the level is ``ADMIN``,
            ``STAFF`` or another.
        table: of accounts, what to select from.
    """

    level: Level
    table: sa.FromClause = _PERSON

    @property
    def user_id(self) -> sa.ColumnElement[int]:
        """Return the column to select, and to say by who is meant."""
        return self.table.c.id

    @property
    def is_admin(self) -> bool:
        """Tell whether all of them are admins or superadmins."""
        return self.level.reaches(Level.ADMIN)

    @property
    def organisations(self) -> Count:
        """Return ``NONE`` below staff level, where memberships do not count."""
        return Count.MANY if self.level.reaches(Level.STAFF) else Count.NONE

    @property
    def own_record_id(self) -> sa.ColumnElement[str] | None:
        """Return the column of their own records' ids, which is null for whoever has none."""
        return self.table.c.patient_id

    def is_user(self, user_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds the person's number."""
        return user_id == self.table.c.id

    def is_own_record(self, patient_id: sa.ColumnElement[str]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds the id of the person's own record."""
        return patient_id == self.table.c.patient_id

    def works_in(self, organisation_id: sa.ColumnElement[int]) -> sa.ColumnElement[bool]:
        """Return the condition that a column holds an organisation the person works in; false below staff level."""
        if self.organisations is Count.NONE:
            return sa.false()
        theirs = sa.select(_WORK.c.organisation_id).where(_WORK.c.user_id == self.table.c.id).correlate(self.table)
        return organisation_id.in_(theirs)
