"""Several processes behind one socket, and the one that starts them, replaces those that die, and stops them together.

The supervisor itself answers nothing. It holds the socket so that a replacement finds it, and gives it up first when
all are to stop: a socket that nobody accepts from would keep callers waiting for an answer that never comes.
"""

import contextlib
import multiprocessing
import os
import signal
import socket
import threading
import time
from collections.abc import Callable
from dataclasses import dataclass
from multiprocessing.connection import wait
from multiprocessing.context import SpawnProcess
from multiprocessing.synchronize import Event

import structlog

from quill.cli.listening import wait_for_the_last
from quill.kit.stopping import NOTICE

Serve = Callable[[socket.socket, Callable[[], None]], bool]
"""Serves on a socket until told to stop, and calls back once it answers; must be importable by name."""

LOOK_SECONDS = 0.2
START_SECONDS = 120.0
FIRST_PAUSE_SECONDS = 0.5
LONGEST_PAUSE_SECONDS = 30.0
"""Between the starts of a worker that does not come up, because the database is away for instance."""
STOP_SECONDS = 45.0
"""What a worker may take to stop: the requests under way, deliveries under way, the last seal."""

log = structlog.get_logger()


@dataclass(slots=True)
class _Worker:
    process: SpawnProcess
    is_ready: Event
    starts_in_vain: int = 0
    replace_at: float | None = None
    """When it is replaced, once it has ended."""

    @property
    def is_up(self) -> bool:
        return self.is_ready.is_set() and self.process.is_alive()


class Supervisor:
    """Runs some workers on one socket until told to stop.

    Args:
        serve: what each worker does.
        listener: bound, and shared by all.
        count: how many workers.
        notice_seconds: from being told to terminate to passing that on; readiness says 503 meanwhile.
    """

    def __init__(self, serve: Serve, listener: socket.socket, count: int, notice_seconds: float) -> None:
        self._serve = serve
        self._listener = listener
        self._count = count
        self._notice_seconds = notice_seconds
        self._context = multiprocessing.get_context("spawn")
        self._workers: list[_Worker] = []
        self._told: list[int] = []

    def run(self, on_ready: Callable[[], None]) -> bool:
        """Run until told to stop.

        Args:
            on_ready: called once every worker answers.

        Returns:
            Whether they all came up; when one does not, all are stopped.
        """
        for number in (signal.SIGINT, signal.SIGTERM):
            signal.signal(number, lambda number, _frame: self._told.append(number))
        self._workers = [self._start() for _ in range(self._count)]
        is_well = self._wait_until_up()
        if is_well and not self._told:
            on_ready()
            self._watch()
        self._stop()
        return is_well

    def _start(self, starts_in_vain: int = 0) -> _Worker:
        is_ready = self._context.Event()
        process = self._context.Process(target=_work, args=(self._serve, self._listener, is_ready))
        process.start()
        return _Worker(process, is_ready, starts_in_vain)

    def _wait_until_up(self) -> bool:
        deadline = time.monotonic() + START_SECONDS
        while not self._told and not all(worker.is_up for worker in self._workers):
            if time.monotonic() > deadline or not all(worker.process.is_alive() for worker in self._workers):
                log.error("workers_did_not_start")
                return False
            time.sleep(LOOK_SECONDS / 4)
        return True

    def _watch(self) -> None:
        while not self._told:
            wait([one.process.sentinel for one in self._workers if one.replace_at is None], timeout=LOOK_SECONDS)
            for place, worker in enumerate(self._workers):
                if not worker.process.is_alive() and not self._told:
                    self._workers[place] = self._replaced(worker)

    def _replaced(self, worker: _Worker) -> _Worker:
        """Return a new worker in place of one that ended, or the ended one while it is too early for that."""
        if worker.replace_at is None:
            log.error("worker_ended", pid=worker.process.pid, exit_code=worker.process.exitcode)
            worker.starts_in_vain = 0 if worker.is_ready.is_set() else worker.starts_in_vain + 1
            worker.replace_at = time.monotonic() + _pause_seconds(worker.starts_in_vain)
        if time.monotonic() < worker.replace_at:
            return worker
        return self._start(worker.starts_in_vain)

    def _rest(self, seconds: float) -> None:
        """Wait, but not once told to stop; told again, whoever is stopping does not wait either."""
        told, deadline = len(self._told), time.monotonic() + seconds
        while time.monotonic() < deadline and len(self._told) == told:
            time.sleep(min(LOOK_SECONDS, max(0.0, deadline - time.monotonic())))

    def _stop(self) -> None:
        alive = [worker for worker in self._workers if worker.process.is_alive()]
        if self._notice_seconds and self._told[:1] == [signal.SIGTERM] and NOTICE is not None:
            for worker in alive:
                if worker.is_up:
                    _send(worker, NOTICE)
            self._rest(self._notice_seconds)
        wait_for_the_last(self._listener)
        self._listener.close()
        for worker in alive:
            _send(worker, signal.SIGTERM)
        deadline = time.monotonic() + self._notice_seconds + STOP_SECONDS
        for worker in alive:
            worker.process.join(max(0.0, deadline - time.monotonic()))
            if worker.process.is_alive():
                log.error("worker_does_not_stop", pid=worker.process.pid)
                worker.process.kill()
                worker.process.join()


def _pause_seconds(starts_in_vain: int) -> float:
    if not starts_in_vain:
        return 0.0
    return min(LONGEST_PAUSE_SECONDS, FIRST_PAUSE_SECONDS * 2.0 ** min(starts_in_vain, 10))


def _send(worker: _Worker, number: int) -> None:
    if worker.process.pid is not None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(worker.process.pid, number)


def _work(serve: Serve, listener: socket.socket, is_ready: Event) -> None:
    threading.Thread(target=_stop_with_parent, name="parent-watch", daemon=True).start()
    # Ctrl-C reaches every process of a terminal, and the server raises it once more when it has stopped.
    with contextlib.suppress(KeyboardInterrupt):
        serve(listener, is_ready.set)


def _stop_with_parent() -> None:
    """Stop when the supervisor is gone: nobody else would, and the address would stay taken."""
    parent = multiprocessing.parent_process()
    if parent is not None:
        parent.join()
        os.kill(os.getpid(), signal.SIGTERM)
