"""Background work ends when it is told to, whatever a library makes of a cancellation."""

import asyncio

import pytest

from quill.kit import turns

pytestmark = pytest.mark.anyio


async def replacing_the_cancellation(begun: asyncio.Event) -> None:
    """Do what a client does whose connection cannot be closed in time either."""
    try:
        begun.set()
        await asyncio.sleep(60)
    except asyncio.CancelledError as error:
        raise TimeoutError from error


async def test_task_that_did_not_hear_is_told_again(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(turns, "CANCEL_AGAIN_SECONDS", 0.01)
    begun = asyncio.Event()

    async def deaf_once() -> None:
        with pytest.raises(TimeoutError):
            await replacing_the_cancellation(begun)
        await asyncio.sleep(60)

    task = asyncio.create_task(deaf_once())
    await begun.wait()
    await asyncio.wait_for(turns.end_tasks([task]), 2)
    assert task.cancelled()


async def test_cancellation_that_became_an_error_still_ends_the_loop() -> None:
    begun = asyncio.Event()

    async def for_ever() -> None:
        while True:
            try:
                await replacing_the_cancellation(begun)
            except OSError:
                turns.end_if_cancelled()

    task = asyncio.create_task(for_ever())
    await begun.wait()
    task.cancel()
    await asyncio.wait({task}, timeout=2)
    assert task.cancelled()


async def test_timeout_that_nobody_asked_for_is_waited_out() -> None:
    try:
        async with asyncio.timeout(0.001):
            await asyncio.sleep(60)
    except TimeoutError:
        turns.end_if_cancelled()


async def test_tasks_that_ended_in_an_error_are_no_trouble() -> None:
    async def broken() -> None:
        raise ValueError

    await turns.end_tasks([asyncio.create_task(broken()), asyncio.create_task(asyncio.sleep(60))])
    await turns.end_tasks([])
