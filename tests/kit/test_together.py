"""Questions asked at the same time: one round for all, and never an answer that is older than its question."""

import asyncio

import pytest

from quill.kit import together
from quill.kit.together import Together

pytestmark = pytest.mark.anyio


class Oracle:
    """Answers when it is let, with what is true when a round begins."""

    def __init__(self) -> None:
        self.truth = "first"
        self.rounds: list[list[str]] = []
        self.began = asyncio.Event()
        self.may_answer = asyncio.Event()
        self.may_answer.set()

    async def answer(self, questions: list[str]) -> list[str | Exception]:
        self.rounds.append(questions)
        truth = self.truth
        self.began.set()
        await self.may_answer.wait()
        if "all fail" in questions:
            raise ConnectionError("away")
        return [LookupError() if question == "fail" else f"{question}: {truth}" for question in questions]


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


@pytest.fixture
def asked(oracle: Oracle) -> Together[str, str]:
    return Together("oracle", oracle.answer)


async def test_questions_asked_at_once_are_answered_by_one_round(oracle: Oracle, asked: Together[str, str]) -> None:
    assert await asyncio.gather(*map(asked.ask, "abc")) == ["a: first", "b: first", "c: first"]
    assert oracle.rounds == [["a", "b", "c"]]


async def test_what_is_asked_during_a_round_is_answered_with_what_is_true_afterwards(
    oracle: Oracle, asked: Together[str, str]
) -> None:
    oracle.may_answer.clear()
    early = asyncio.create_task(asked.ask("early"))
    await oracle.began.wait()
    oracle.truth = "second"
    late = asyncio.create_task(asked.ask("late"))
    for _ in range(3):
        await asyncio.sleep(0)
    assert oracle.rounds == [["early"]]
    oracle.may_answer.set()
    assert (await early, await late) == ("early: first", "late: second")


async def test_an_answer_that_is_an_error_is_raised_to_who_asked_alone(asked: Together[str, str]) -> None:
    answers = await asyncio.gather(*map(asked.ask, ["a", "fail"]), return_exceptions=True)
    assert answers[0] == "a: first"
    assert isinstance(answers[1], LookupError)


async def test_a_round_that_fails_fails_for_all_and_the_next_is_not_harmed(asked: Together[str, str]) -> None:
    answers = await asyncio.gather(*map(asked.ask, ["a", "all fail"]), return_exceptions=True)
    assert [type(answer) for answer in answers] == [ConnectionError, ConnectionError]
    assert await asked.ask("b") == "b: first"


async def test_who_leaves_does_not_keep_the_others_waiting(oracle: Oracle, asked: Together[str, str]) -> None:
    oracle.may_answer.clear()
    leaving, staying = asyncio.create_task(asked.ask("leaving")), asyncio.create_task(asked.ask("staying"))
    await oracle.began.wait()
    leaving.cancel()
    oracle.may_answer.set()
    assert await staying == "staying: first"
    assert leaving.cancelled() or leaving.cancelling()


async def test_a_round_takes_no_more_than_a_statement_can_hold(
    oracle: Oracle, asked: Together[str, str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(together, "MOST_AT_ONCE", 2)
    assert len(await asyncio.gather(*map(asked.ask, "abcde"))) == 5
    assert oracle.rounds == [["a", "b"], ["c", "d"], ["e"]]


async def test_a_round_that_is_broken_off_is_no_silence(oracle: Oracle, asked: Together[str, str]) -> None:
    oracle.may_answer.clear()
    question = asyncio.create_task(asked.ask("a"))
    await oracle.began.wait()
    [task] = [task for task in asyncio.all_tasks() if task.get_name() == "oracle"]
    task.cancel()
    with pytest.raises(ConnectionAbortedError):
        await question


async def test_finishing_waits_for_the_round_under_way(oracle: Oracle, asked: Together[str, str]) -> None:
    await asked.finish()
    oracle.may_answer.clear()
    question = asyncio.create_task(asked.ask("a"))
    await oracle.began.wait()
    finishing = asyncio.create_task(asked.finish())
    await asyncio.sleep(0)
    assert not finishing.done()
    oracle.may_answer.set()
    await finishing
    assert await question == "a: first"
