"""Questions that many ask at the same time, answered once for all of them.

Nothing is remembered: what is asked while a round is under way waits for the next, so every answer is younger than its
question.
"""

import asyncio
import contextvars
from collections import deque
from collections.abc import Awaitable, Callable
from typing import Generic, TypeVar

from quill.kit.turns import LONGEST_FINISH_SECONDS, end_tasks

QuestionT = TypeVar("QuestionT")
AnswerT = TypeVar("AnswerT")

MOST_AT_ONCE = 2000
"""Questions of one round; databases bound how many values a statement takes (SQLite: 32,766; PostgreSQL: 32,767)."""


class Together(Generic[QuestionT, AnswerT]):
    """Answers questions in rounds, one round at a time.

    Args:
        name: of the task that answers.
        answer: returns one answer for each of some questions, in their order; an exception is an answer that is raised
            to whoever asked, and one that it raises itself is raised to all of them.
    """

    def __init__(self, name: str, answer: Callable[[list[QuestionT]], Awaitable[list[AnswerT | Exception]]]) -> None:
        self._name = name
        self._answer = answer
        self._asked: deque[tuple[QuestionT, asyncio.Future[AnswerT]]] = deque()
        self._task: asyncio.Task[None] | None = None

    async def ask(self, question: QuestionT) -> AnswerT:
        """Return the answer; what it is drawn from is looked up after this was called."""
        asked: asyncio.Future[AnswerT] = asyncio.get_running_loop().create_future()
        self._asked.append((question, asked))
        if self._task is None:
            # Not in the context of whoever happens to be first: the round belongs to nobody's request.
            self._task = asyncio.create_task(self._run(), name=self._name, context=contextvars.Context())
        return await asked

    async def finish(self) -> None:
        """Return when no round is under way any more."""
        if self._task is not None:
            await asyncio.wait({self._task}, timeout=LONGEST_FINISH_SECONDS)
        if self._task is not None:
            await end_tasks([self._task])

    async def _run(self) -> None:
        try:
            while self._asked:
                taken = [self._asked.popleft() for _ in range(min(len(self._asked), MOST_AT_ONCE))]
                # Who has left meanwhile needs no answer.
                await self._answer_round([(question, asked) for question, asked in taken if not asked.done()])
        finally:
            self._task = None

    async def _answer_round(self, round_: list[tuple[QuestionT, asyncio.Future[AnswerT]]]) -> None:
        answers: list[AnswerT | Exception] = [ConnectionAbortedError("The round was broken off.")] * len(round_)
        try:
            answers = await self._answer([question for question, _ in round_])
        except Exception as error:  # noqa: BLE001 - it is raised to everybody who asked
            answers = [error] * len(round_)
        finally:
            for (_, asked), answer in zip(round_, answers, strict=True):
                _give(asked, answer)


def _give(asked: asyncio.Future[AnswerT], answer: AnswerT | Exception) -> None:
    if asked.done():
        return
    if isinstance(answer, Exception):
        asked.set_exception(answer)
    else:
        asked.set_result(answer)
