"""What every real server has in common."""

import signal
from abc import ABC, abstractmethod
from pathlib import Path

from tests.live.processes import Process, wait_until


class Server(ABC):
    """A server started for tests on a free loopback port; it keeps port, secrets and data over restarts.

    Args:
        directory: a directory of its own, for data and log.
    """

    name: str
    """What the command line and tests call it."""
    title: str
    """What people call it."""
    patience: float = 30
    """Seconds it may take until it answers."""
    stops_with: signal.Signals = signal.SIGTERM

    def __init__(self, directory: Path) -> None:
        directory.mkdir(mode=0o755)
        self.directory = directory
        self._process: Process | None = None

    @property
    @abstractmethod
    def url(self) -> str:
        """Return where it is, credentials included when its URLs have them."""

    @property
    @abstractmethod
    def version(self) -> str:
        """Return what runs, once it does."""

    @property
    @abstractmethod
    def environment(self) -> dict[str, str]:
        """Return what tests find in their environment about it."""

    @abstractmethod
    def prepare(self) -> None:
        """Make sure it can be had: install it, or begin to build it.

        Raises:
            Unavailable: with the reason.
        """

    @abstractmethod
    def process(self) -> Process:
        """Return the process to start, everything it needs made; asked once.

        Raises:
            Unavailable: with the reason.
        """

    @abstractmethod
    def ready(self) -> bool:
        """Return whether it answers as it should."""

    def launch(self) -> None:
        """Start it, without waiting until it answers."""
        if self._process is None:
            self._process = self.process()
        self._process.start()

    def wait(self) -> None:
        """Wait until it answers.

        Raises:
            NotReady: it ended, or it takes too long.
        """
        assert self._process is not None
        wait_until(self.title, self.ready, self._process, self.patience)

    def start(self) -> None:
        """Start it and wait until it answers."""
        self.launch()
        self.wait()

    def stop(self) -> None:
        """Ask it to end, and wait until it has."""
        if self._process is not None:
            self._process.end(self.stops_with, patience=30)

    def kill(self) -> None:
        """End it at once, as a crash would (SIGKILL)."""
        if self._process is not None:
            self._process.end(signal.SIGKILL, patience=10)

    def restart(self) -> None:
        """Stop it and start it again."""
        self.stop()
        self.start()
