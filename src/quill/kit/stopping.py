"""Being told to stop: first the notice, so that whoever sends requests turns elsewhere, then the end.

A server that is told to stop waits for the answers under way and then asks the application to shut down. Some things
must happen before that: streams that would never end are ended, readiness says no, and answers tell the other side to
open its next connection elsewhere. Signals are heard here, before the server hears them.
"""

import asyncio
import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from types import FrameType
from typing import Any

NOTICE = getattr(signal, "SIGUSR1", None)
"""Signal that begins the notice and no more; for whoever runs several workers and stops them together."""


class Stopping:
    """Whether this process has been told to stop, and what is to happen then.

    Args:
        notice_seconds: from being told to terminate to the server hearing of it; requests are answered meanwhile.
    """

    def __init__(self, notice_seconds: float = 0.0) -> None:
        self.has_begun = False
        self._notice_seconds = notice_seconds
        self._callbacks: list[Callable[[], None]] = []

    def when_begun(self, callback: Callable[[], None]) -> None:
        """Call this once the notice begins."""
        self._callbacks.append(callback)

    def begin(self) -> None:
        """Begin the notice; again does nothing."""
        if not self.has_begun:
            self.has_begun = True
            for callback in self._callbacks:
                callback()

    @contextlib.contextmanager
    def heard(self) -> Iterator[None]:
        """Hear the signals that tell the program to stop, and pass them on to whoever heard them before."""
        if threading.current_thread() is not threading.main_thread():
            yield
            return
        hearing = _Hearing(self, self._notice_seconds)
        hearing.start()
        try:
            yield
        finally:
            hearing.end()


class _Hearing:
    def __init__(self, stopping: Stopping, notice_seconds: float) -> None:
        self._stopping = stopping
        self._notice_seconds = notice_seconds
        self._loop = asyncio.get_running_loop()
        self._earlier: dict[int, Any] = {}
        self._is_told = False

    def start(self) -> None:
        for number in (signal.SIGINT, signal.SIGTERM):
            earlier = signal.getsignal(number)
            if callable(earlier):
                self._earlier[number] = earlier
                signal.signal(number, self._handle)
        if NOTICE is not None:
            self._earlier[NOTICE] = signal.signal(NOTICE, self._handle)

    def end(self) -> None:
        for number, earlier in self._earlier.items():
            if signal.getsignal(number) == self._handle:
                signal.signal(number, earlier)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        was_told, self._is_told = self._is_told, True
        self._loop.call_soon_threadsafe(self._stopping.begin)
        if number == NOTICE:
            return
        pass_on = self._earlier[number]
        if number == signal.SIGTERM and self._notice_seconds and not was_told:
            self._loop.call_soon_threadsafe(self._loop.call_later, self._notice_seconds, pass_on, number, frame)
        else:
            pass_on(number, frame)
