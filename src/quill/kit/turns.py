"""Background work in turns: told to stop, it finishes the turn it is in, and it does stop."""

import asyncio
from collections.abc import Collection, Coroutine
from typing import Any

LONGEST_FINISH_SECONDS = 10.0
CANCEL_AGAIN_SECONDS = LONGEST_FINISH_SECONDS + 2
"""After which a task that still goes on has not heard, rather than that it finishes something."""


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


async def end_tasks(tasks: Collection[asyncio.Task[Any]]) -> None:
    """Cancel tasks and return when every one has ended, however it did.

    One that goes on is cancelled again: a library whose cleaning up fails may put its own error in the place of the
    cancellation, and whoever waits errors out then works on.
    """
    going = set(tasks)
    while going:
        for task in going:
            task.cancel()
        _, going = await asyncio.wait(going, timeout=CANCEL_AGAIN_SECONDS)


def end_if_cancelled() -> None:
    """End this task where it was cancelled and something on the way made an error of that.

    For loops that wait errors out, after each: otherwise a cancellation that met a timeout would be lost.

    Raises:
        asyncio.CancelledError: it was.
    """
    task = asyncio.current_task()
    if task is not None and task.cancelling():
        raise asyncio.CancelledError
