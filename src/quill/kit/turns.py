"""Background work in turns: told to stop, it finishes the turn it is in."""

import asyncio
from collections.abc import Coroutine
from typing import Any

LONGEST_FINISH_SECONDS = 10.0


async def finish_turn(turn: Coroutine[Any, Any, Any]) -> Any:
    """Run one turn to its end, even when this task is cancelled meanwhile; the cancellation is raised afterwards.

    A statement cut off in the middle costs its connection; background work can wait the moment it takes.
    """
    task = asyncio.ensure_future(turn)
    task.set_name(getattr(asyncio.current_task(), "get_name", lambda: "turn")())
    try:
        return await asyncio.shield(task)
    except asyncio.CancelledError:
        await asyncio.wait({task}, timeout=LONGEST_FINISH_SECONDS)
        raise
