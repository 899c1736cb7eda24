"""Recovery codes: each stands in for one TOTP code, once, for somebody who has lost the phone."""

import base64
import hashlib
import secrets

import sqlalchemy as sa

from quill.audit import service as audit
from quill.audit.service import Act
from quill.auth.models import RecoveryCode
from quill.kit import clock
from quill.kit.ids import UserId
from quill.unit import Unit

CODES = 10
CODE_BYTES = 10
"""80 bits: 16 characters of base32, so that a plain digest of one cannot be searched backwards."""
GROUP_CHARACTERS = 4


async def issue(unit: Unit, user_id: UserId) -> list[str]:
    """Return fresh recovery codes, such as ``abcd-efgh-2345-ijkl``; earlier ones are withdrawn."""
    await withdraw(unit, user_id)
    now = clock.now()
    codes = [base64.b32encode(secrets.token_bytes(CODE_BYTES)).decode().lower() for _ in range(CODES)]
    await unit.session.execute(
        sa.insert(RecoveryCode),
        [{"user_id": user_id, "code_digest": _digest(user_id, code), "created_at": now} for code in codes],
    )
    return [_grouped(code) for code in codes]


async def use(unit: Unit, user_id: UserId, code: str) -> bool:
    """Use a recovery code up; of callers at the same moment one succeeds.

    Args:
        unit: the transaction.
        user_id: whose.
        code: without hyphens, in either case.

    Returns:
        Whether it was one of theirs and unused.
    """
    statement = (
        sa.update(RecoveryCode)
        .where(
            RecoveryCode.user_id == user_id,
            RecoveryCode.code_digest == _digest(user_id, code.lower()),
            RecoveryCode.used_at.is_(None),
        )
        .values(used_at=clock.now())
        .returning(RecoveryCode.user_id)
    )
    is_used = await unit.session.scalar(statement) is not None
    if is_used:
        audit.record(unit, None, Act.RECOVERY_CODE_USE, subject=f"user:{user_id}")
    return is_used


async def withdraw(unit: Unit, user_id: UserId) -> None:
    """Make every recovery code of a person worthless."""
    await unit.session.execute(sa.delete(RecoveryCode).where(RecoveryCode.user_id == user_id))


def _digest(user_id: UserId, code: str) -> str:
    return hashlib.sha256(f"recovery code:{user_id}:{code}".encode()).hexdigest()


def _grouped(code: str) -> str:
    return "-".join(code[start : start + GROUP_CHARACTERS] for start in range(0, len(code), GROUP_CHARACTERS))
