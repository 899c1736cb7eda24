"""Keeping people's registrations with their regulators."""

from collections.abc import Collection

import sqlalchemy as sa
from sqlalchemy.exc import IntegrityError

from quill.errors import RegistrationTaken
from quill.identity.models import ProfessionalRegistration
from quill.identity.registration import Registration
from quill.kit.ids import UserId
from quill.unit import Unit


async def add(unit: Unit, user_id: UserId, gained: Collection[Registration]) -> None:
    """Keep somebody's further registrations.

    Raises:
        RegistrationTaken: 409, a number is another person's.
    """
    if not gained:
        return
    rows = [{"user_id": user_id, "body": found.body, "number": found.number} for found in sorted(gained)]
    try:
        async with unit.session.begin_nested():
            await unit.session.execute(sa.insert(ProfessionalRegistration), rows)
    except IntegrityError as error:
        raise RegistrationTaken from error


async def replace(
    unit: Unit, user_id: UserId, before: Collection[Registration], after: Collection[Registration]
) -> None:
    """Put somebody's registrations in place of those held; ``before`` is what they are, with the account locked.

    Raises:
        RegistrationTaken: 409, a number is another person's.
    """
    lost = {found.body for found in set(before) - set(after)}
    if lost:
        await unit.session.execute(
            sa.delete(ProfessionalRegistration).where(
                ProfessionalRegistration.user_id == user_id, ProfessionalRegistration.body.in_(lost)
            )
        )
    await add(unit, user_id, set(after) - set(before))
