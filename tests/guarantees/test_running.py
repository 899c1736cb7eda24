"""The fixture that starts and stops the application for each test notices what would reach the next one."""

import asyncio
from collections.abc import AsyncIterator, Callable
from contextlib import AbstractAsyncContextManager, asynccontextmanager

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI

from tests.running import LASTING_TASKS, call, running

Lifespan = Callable[[FastAPI], AbstractAsyncContextManager[None]]


def living(*names: str, left_over: str | None = None) -> Lifespan:
    """Return the lifespan of a program with background tasks of these names, of which it forgets one in the end."""

    @asynccontextmanager
    async def lifespan(_app: FastAPI) -> AsyncIterator[None]:
        tasks = [asyncio.create_task(asyncio.sleep(30), name=name) for name in names]
        yield
        ended = [task for task in tasks if task.get_name() != left_over]
        for task in ended:
            task.cancel()
        await asyncio.gather(*ended, return_exceptions=True)

    return lifespan


def test_program_that_ends_what_it_began_is_left_alone(portal: BlockingPortal) -> None:
    with running(FastAPI(lifespan=living(*LASTING_TASKS, "more")), portal):
        pass


def test_background_task_that_died_is_noticed(portal: BlockingPortal) -> None:
    program = FastAPI(lifespan=living(*LASTING_TASKS - {"feed"}))
    with pytest.raises(AssertionError, match="feed"), running(program, portal):
        pass


def test_task_that_is_left_over_is_noticed(portal: BlockingPortal) -> None:
    program = FastAPI(lifespan=living(*LASTING_TASKS, "forgotten", left_over="forgotten"))
    with pytest.raises(AssertionError, match="forgotten"), running(program, portal):
        pass
    call(portal, cancel, "forgotten")


def test_start_that_fails_fails_the_test(portal: BlockingPortal) -> None:
    @asynccontextmanager
    async def lifespan(app: FastAPI) -> AsyncIterator[None]:
        yield app.state.what_is_not_there

    with pytest.raises(AttributeError, match="what_is_not_there"), running(FastAPI(lifespan=lifespan), portal):
        pass


async def cancel(name: str) -> None:
    found = [task for task in asyncio.all_tasks() if task.get_name() == name]
    for task in found:
        task.cancel()
    await asyncio.gather(*found, return_exceptions=True)
