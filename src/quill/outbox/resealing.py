"""Sealing what waits in the queue under today's key."""

import sqlalchemy as sa

from quill.kit.crypto import CannotUnseal, Resealed
from quill.outbox import queries
from quill.outbox.models import OutboxEntry
from quill.outbox.payloads import SEALED_CHANNELS, Payloads
from quill.unit import Unit


async def reseal(unit: Unit) -> Resealed:
    """Seal every payload that waits under the current key, where it was sealed under the previous one."""
    payloads, count, unreadable = Payloads(unit.settings), 0, 0
    for entry in await queries.lock_sealed(unit.session, SEALED_CHANNELS):
        try:
            opened = payloads.unsealed(entry.id, entry.payload)
        except CannotUnseal:
            unreadable += 1
            continue
        if not opened.is_current:
            renewed = payloads.sealed(entry.id, opened.text)
            await unit.session.execute(sa.update(OutboxEntry).where(OutboxEntry.id == entry.id).values(payload=renewed))
            count += 1
    return Resealed(count, unreadable)
