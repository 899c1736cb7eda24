"""Who acts: a signed-in person with the rights held at this very request, or a named job of the program itself."""

from dataclasses import dataclass, field
from enum import StrEnum

from quill.kit.ids import LoginId, OrganisationId, PatientId, UserId


class Level(StrEnum):
    """Permission level: whether somebody runs the place, works in it, or is cared for."""

    PATIENT = "patient"
    EXTERNAL_HCP = "external_hcp"
    PATIENT_ADVOCATE = "patient_advocate"
    STAFF = "staff"
    ADMIN = "admin"
    SUPERADMIN = "superadmin"

    @property
    def rank(self) -> int:
        """Return the order of levels; external people rank with patients."""
        return _RANKS.get(self, 0)

    def reaches(self, other: "Level") -> bool:
        """Tell whether this level is at least another; an external level only reaches rank 0."""
        return self.rank >= other.rank

    @property
    def is_external(self) -> bool:
        """Tell whether this is somebody invited from outside for single patients."""
        return self in EXTERNAL_LEVELS


_RANKS = {Level.STAFF: 1, Level.ADMIN: 2, Level.SUPERADMIN: 3}

EXTERNAL_LEVELS = frozenset({Level.EXTERNAL_HCP, Level.PATIENT_ADVOCATE})


@dataclass(frozen=True, slots=True)
class Actor:
    """The person or job behind a request.

    Attributes:
        user_id: ``None`` for a job of the program.
        name: username, or the job's name.
        display_name: what others see.
        level: permission level now.
        roles: role names held now.
        competencies: profession's competencies plus the added, minus the removed ones.
        organisation_ids: organisations this person is staff of; empty below staff level.
        primary_organisation_id: the one whose features apply.
        patient_id: the person's own patient record, if linked.
        login_id: the login the request came with.
    """

    user_id: UserId | None
    name: str
    display_name: str
    level: Level
    email: str = ""
    roles: frozenset[str] = frozenset()
    competencies: frozenset[str] = frozenset()
    organisation_ids: tuple[OrganisationId, ...] = ()
    primary_organisation_id: OrganisationId | None = None
    patient_id: PatientId | None = None
    login_id: LoginId | None = field(default=None)

    @property
    def is_admin(self) -> bool:
        """Tell whether the person is an admin or superadmin."""
        return self.level.reaches(Level.ADMIN)

    @property
    def is_staff(self) -> bool:
        """Tell whether the person is staff, admin or superadmin."""
        return self.level.reaches(Level.STAFF)

    @property
    def person_id(self) -> UserId:
        """Return the user id of an actor who must be a person.

        Raises:
            ValueError: the actor is a job of the program.
        """
        if self.user_id is None:
            raise ValueError("This act needs a person, not a job.")
        return self.user_id

    @classmethod
    def job(cls, name: str) -> "Actor":
        """Return the actor for a job of the program, which must name itself for the audit trail."""
        return cls(user_id=None, name=f"job:{name}", display_name=name, level=Level.SUPERADMIN)
