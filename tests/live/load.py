"""Load on a running installation, and what came of it: every request that failed, and how long the others took.

Nothing is tried again: what a caller would have to repeat counts as failed. At the end everything that was
acknowledged is looked up.
"""

import asyncio
import itertools
import secrets
import time
from collections import Counter
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from typing import Any

import httpx2

SECONDS_FOR_AN_ANSWER = 30.0


@dataclass
class Figures:
    """What came of it."""

    milliseconds: list[float] = field(default_factory=list)
    failures: Counter[str] = field(default_factory=Counter)
    acknowledged: set[int] = field(default_factory=set)

    def percentile(self, share: float) -> float:
        """Return the time in milliseconds that this share of the requests did not exceed."""
        ordered = sorted(self.milliseconds) or [0.0]
        return ordered[min(len(ordered) - 1, int(share * len(ordered)))]

    def __str__(self) -> str:
        return (
            f"{len(self.milliseconds)} requests, {sum(self.failures.values())} failed {dict(self.failures)}, "
            f"{len(self.acknowledged)} messages acknowledged, "
            f"p50 {self.percentile(0.5):.0f} ms, p99 {self.percentile(0.99):.0f} ms, "
            f"longest {self.percentile(1.0):.0f} ms"
        )


class Load:
    """Callers who read and send messages, each in a loop.

    Args:
        address: of the installation, such as ``http://127.0.0.1:8000``.
        username: somebody who takes part in a conversation.
        password: of that person.
    """

    def __init__(self, address: str, username: str, password: str) -> None:
        self.figures = Figures()
        self._client = httpx2.AsyncClient(base_url=address, timeout=SECONDS_FOR_AN_ANSWER, trust_env=False)
        self._credentials = {"username": username, "password": password}
        self._conversation_id = 0
        self._is_over = False
        self._acknowledged: set[int] = set()
        self._numbers = itertools.count()

    async def sign_in(self) -> None:
        """Sign in and choose a conversation."""
        answer = await self._client.post("/api/auth/login", json=self._credentials)
        assert answer.status_code == 200, answer.text
        self._client.headers["X-CSRF-Token"] = self._client.cookies["XSRF-TOKEN"]
        listed = (await self._client.get("/api/conversations")).json()["conversations"]
        self._conversation_id = next(one["id"] for one in listed if one["status"] != "closed")

    def begin_anew(self) -> Figures:
        """Return the figures so far, and keep fresh ones from now on."""
        figures, self.figures = self.figures, Figures()
        self._acknowledged |= figures.acknowledged
        return figures

    @asynccontextmanager
    async def running(self, callers: int, pause_seconds: float = 0.0) -> AsyncIterator[None]:
        """Let so many callers loop while the block runs."""
        async with asyncio.TaskGroup() as group:
            for _ in range(callers):
                group.create_task(self._loop(pause_seconds))
            try:
                yield
            finally:
                self._is_over = True

    async def missing(self) -> set[int]:
        """Return the acknowledged messages that are not there, by number."""
        found: set[int] = set()
        params: dict[str, Any] = {"limit": 100}
        while True:
            page = (
                await self._client.get(f"/api/conversations/{self._conversation_id}/messages", params=params)
            ).json()
            found.update(message["id"] for message in page["messages"])
            if not page.get("next_cursor"):
                return (self._acknowledged | self.figures.acknowledged) - found
            params["cursor"] = page["next_cursor"]

    async def close(self) -> None:
        """Close every connection."""
        await self._client.aclose()

    async def _loop(self, pause_seconds: float) -> None:
        while not self._is_over:
            if next(self._numbers) % 3 == 0:
                await self._send()
            else:
                await self._timed("GET", f"/api/conversations/{self._conversation_id}")
            await asyncio.sleep(pause_seconds)

    async def _send(self) -> None:
        answer = await self._timed(
            "POST",
            f"/api/conversations/{self._conversation_id}/messages",
            json={"body": "Seen, thank you."},
            headers={"Idempotency-Key": secrets.token_hex(16)},
        )
        if answer is not None and answer.status_code < 300:
            self.figures.acknowledged.add(answer.json()["id"])

    async def _timed(self, method: str, path: str, **extra: Any) -> httpx2.Response | None:
        started = time.perf_counter()
        answer = None
        try:
            answer = await self._client.request(method, path, **extra)
            if answer.status_code >= 400:
                self.figures.failures[f"{method} {answer.status_code}"] += 1
        except httpx2.HTTPError as error:
            self.figures.failures[f"{method} {type(error).__name__}"] += 1
        self.figures.milliseconds.append((time.perf_counter() - started) * 1000)
        return answer
