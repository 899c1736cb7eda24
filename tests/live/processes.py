"""A process started for tests: waited for, stopped or killed, and never left behind."""

import contextlib
import ctypes
import functools
import os
import signal
import socket
import subprocess
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

_PR_SET_PDEATHSIG = 1
# Looked up before any fork: a child may do next to nothing between fork and exec.
_LIBC = ctypes.CDLL(None)


class Unavailable(Exception):
    """A part cannot be had on this machine; the text says why, plainly."""


class NotReady(Exception):
    """A server that was started ended early, or did not answer in time."""


class Process:
    """A command in a session of its own, with its output in a file.

    Start it from the main thread: where the system can, it is told to end with the thread that started it, so that
    nothing outlives a launcher that was killed.

    Args:
        command: the program and its arguments; secrets belong into ``environment``, which ``ps`` does not show.
        directory: where it runs, and where its log is.
        environment: what it finds in its environment besides ours.
        user: the account to run as, when we are root.
        orphaned: the signal it gets when we are gone.
    """

    def __init__(
        self,
        command: Sequence[str],
        directory: Path,
        *,
        environment: Mapping[str, str] | None = None,
        user: str | None = None,
        orphaned: signal.Signals = signal.SIGKILL,
    ) -> None:
        self._command = list(command)
        self._directory = directory
        self._environment = os.environ | dict(environment or {})
        self._user = user
        self._orphaned = orphaned
        self._popen: subprocess.Popen[bytes] | None = None

    @property
    def running(self) -> bool:
        """Return whether it was started and has not ended."""
        return self._popen is not None and self._popen.poll() is None

    @property
    def pid(self) -> int:
        """Return its number, once it was started."""
        assert self._popen is not None
        return self._popen.pid

    @property
    def returncode(self) -> int | None:
        """Return how it ended, or ``None``."""
        return self._popen.poll() if self._popen else None

    @property
    def log(self) -> Path:
        """Return the file with everything it wrote, every start appended."""
        return self._directory / "log"

    def start(self) -> None:
        """Start it; does not wait for anything."""
        with self.log.open("ab") as log:
            self._popen = subprocess.Popen(
                self._command,
                cwd=self._directory,
                env=self._environment,
                user=self._user,
                group=self._user,
                extra_groups=[] if self._user else None,
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                # Safe: no other thread runs, and the call below allocates nothing.
                preexec_fn=functools.partial(_end_with_parent, self._orphaned),  # noqa: PLW1509
            )

    def end(self, how: signal.Signals, patience: float) -> None:
        """Send a signal to it and its children, and wait; kill what is left after ``patience`` seconds."""
        if self._popen is None:
            return
        self._signal(how)
        try:
            self._popen.wait(patience)
        except subprocess.TimeoutExpired:
            self._signal(signal.SIGKILL)
            self._popen.wait()
        self._signal(signal.SIGKILL)

    def wait(self, patience: float) -> int:
        """Wait for its end and return the exit status; raises ``subprocess.TimeoutExpired``."""
        assert self._popen is not None
        return self._popen.wait(patience)

    def last_words(self, lines: int = 15) -> str:
        """Return the end of the log."""
        with contextlib.suppress(FileNotFoundError):
            return "\n".join(self.log.read_text(errors="replace").splitlines()[-lines:])
        return ""

    def _signal(self, which: signal.Signals) -> None:
        assert self._popen is not None
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self._popen.pid, which)


def free_port() -> int:
    """Return a loopback port nobody listens on."""
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        port: int = listener.getsockname()[1]
        return port


def wait_until(name: str, ready: Callable[[], bool], process: Process, patience: float) -> None:
    """Ask ``ready`` until it says yes.

    Raises:
        NotReady: the process ended, or ``patience`` seconds are over; with the end of its log.
    """
    deadline = time.monotonic() + patience
    while not ready():
        if not process.running:
            raise NotReady(f"{name} ended with status {process.returncode}:\n{process.last_words()}")
        if time.monotonic() > deadline:
            raise NotReady(f"{name} was not ready after {patience:.0f} s:\n{process.last_words()}")
        time.sleep(0.1)


def answers(url: str, headers: Mapping[str, str]) -> bytes | None:
    """Return what a GET gives, or ``None`` while there is no answer of status 200."""
    request = urllib.request.Request(url, headers=dict(headers))  # noqa: S310 - our own loopback address
    try:
        with urllib.request.urlopen(request, timeout=10) as answer:  # noqa: S310
            body: bytes = answer.read()
            return body
    except (urllib.error.URLError, OSError):
        return None


def _end_with_parent(how: signal.Signals) -> None:
    if hasattr(_LIBC, "prctl"):
        _LIBC.prctl(_PR_SET_PDEATHSIG, int(how), 0, 0, 0)
