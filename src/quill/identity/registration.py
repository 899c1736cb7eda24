"""Registrations with professional regulators: which professions need one, and what their numbers look like.

Quill keeps what an admin has looked up; it asks no register itself. The forms follow what the regulators of the United
Kingdom print: the GMC's reference number, the NMC's PIN, the numbers of the GPhC's and the HCPC's registers.
"""

import re
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from types import MappingProxyType

from quill.errors import Unprocessable
from quill.identity import catalogue

FIELD = "professional_registrations"


@dataclass(frozen=True, slots=True)
class Regulator:
    """A body that registers professionals, and the form of its numbers."""

    id: str
    name: str
    number_pattern: str


REGULATORS = MappingProxyType(
    {
        regulator.id: regulator
        for regulator in (
            Regulator("GMC", "General Medical Council", "[0-9]{7}"),
            Regulator("NMC", "Nursing and Midwifery Council", "[0-9]{2}[A-Z][0-9]{4}[A-Z]"),
            Regulator("HCPC", "Health and Care Professions Council", "[A-Z]{2}[0-9]{1,6}"),
            Regulator("GPhC", "General Pharmaceutical Council", "[0-9]{7}"),
        )
    }
)

REQUIRED = MappingProxyType(
    {
        "foundation_year_1": "GMC",
        "foundation_year_2": "GMC",
        "specialty_trainee_1_2": "GMC",
        "specialty_trainee_3_plus": "GMC",
        "consultant": "GMC",
        "general_practitioner": "GMC",
        "registered_nurse": "NMC",
        "advanced_nurse_practitioner": "NMC",
        "pharmacist": "GPhC",
        "pharmacy_technician": "GPhC",
        "physiotherapist": "HCPC",
        "occupational_therapist": "HCPC",
        "paramedic": "HCPC",
    }
)
"""Which profession needs a registration with which regulator; the others need none."""

_SPELLINGS = {name.casefold(): name for name in REGULATORS}


@dataclass(frozen=True, slots=True, order=True)
class Registration:
    """Somebody's number with a regulator, in the regulator's own spelling."""

    body: str
    number: str


def checked(pairs: Iterable[tuple[str, str]]) -> tuple[Registration, ...]:
    """Return registrations as they are kept: sorted, trimmed, in capital letters.

    Args:
        pairs: regulator and number, as typed.

    Raises:
        Unprocessable: 422, no such regulator, a number it does not give, or two numbers of one regulator.
    """
    registrations = tuple(sorted(_checked(body, number) for body, number in pairs))
    if len({registration.body for registration in registrations}) < len(registrations):
        raise Unprocessable.at(FIELD, "Give one registration for each regulator", kind="duplicate")
    return registrations


def _checked(body: str, number: str) -> Registration:
    name = _SPELLINGS.get(body.strip().casefold())
    if name is None:
        raise Unprocessable.at(FIELD, "Unknown regulator", kind="not_in_catalogue")
    normalised = number.strip().upper()
    if not re.fullmatch(REGULATORS[name].number_pattern, normalised):
        raise Unprocessable.at(FIELD, f"This is not a registration number of the {name}", kind="registration_number")
    return Registration(name, normalised)


def is_registered(profession: str, bodies: Collection[str]) -> bool:
    """Tell whether somebody registered with these regulators has the registration the profession needs, if any."""
    required = REQUIRED.get(profession)
    return required is None or required in bodies


def held(
    profession: str,
    additional: Sequence[str],
    removed: Sequence[str],
    bodies: Collection[str],
    *,
    asks_for_registration: bool,
) -> frozenset[str]:
    """Return the competencies somebody holds at this moment, by the rule the operator chose.

    Args:
        profession: of the catalogue.
        additional: granted by hand.
        removed: taken away by hand.
        bodies: the regulators the person is registered with.
        asks_for_registration: whether a profession counts only with the registration it needs.
    """
    counts = not asks_for_registration or is_registered(profession, bodies)
    return catalogue.resolve(profession, additional, removed, is_registered=counts)
