"""Passwords: Argon2id, with bounded work so that a burst of sign-ins cannot exhaust memory or starve other requests.

Source: OWASP Password Storage Cheat Sheet; RFC 9106.
"""

import asyncio
import contextlib
import importlib.util
import itertools
import os
import runpy
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

from argon2 import PasswordHasher
from argon2.exceptions import InvalidHashError, VerifyMismatchError

from quill.errors import Overloaded, PasswordTooCommon, PasswordTooShort, Unprocessable
from quill.settings import Settings

LONGEST_PASSWORD = 128
REGISTRATION_MINIMUM = 6
MINIMUM = 8
PRODUCTION_MINIMUM = 12
"""Decisions, rule 11."""

HASHES_AT_ONCE = 2
"""Each takes 64 MiB and four lanes with the default settings."""
HASHING_NICENESS = 10
"""Of the threads that hash (sched(7)): whoever only waits a moment, such as everybody else's request, goes first."""
HASHES_WAITING = 64
"""More than this would wait longer than a person does."""


class Passwords:
    """Hashes and checks passwords off the event loop, a few at a time."""

    def __init__(self, settings: Settings) -> None:
        self._hasher = PasswordHasher(
            time_cost=settings.argon2_time_cost,
            memory_cost=settings.argon2_memory_kib,
            parallelism=settings.argon2_parallelism,
        )
        self._threads = ThreadPoolExecutor(HASHES_AT_ONCE, "hashing", initializer=_go_behind_others)
        self._turns = itertools.count()
        self._waiting = 0
        self._decoy = self._hasher.hash("nobody has this password")
        self._override = settings.password_min_length
        self._is_strict = settings.is_production
        self._common = _common_passwords() if self._is_strict else ""

    async def hash(self, password: str) -> str:
        """Return the PHC string of a password.

        Raises:
            Overloaded: 503, too many hashes are waiting already.
        """
        return await self._bounded(password, None)

    async def matches(self, password: str, password_hash: str | None) -> bool:
        """Tell whether a password is the one hashed; takes the same time when there is no hash to compare with.

        Raises:
            Overloaded: 503, too many hashes are waiting already.
        """
        verdict = await self._bounded(password, password_hash or self._decoy)
        return verdict == "match" and password_hash is not None

    def needs_rehash(self, password_hash: str) -> bool:
        """Tell whether the hash was made with other parameters than today's."""
        return self._hasher.check_needs_rehash(password_hash)

    def check_acceptable(self, password: str, *, is_registration: bool = False, sentence: str | None = None) -> None:
        """Refuse a new password that is too short, too long, or among those tried first.

        Args:
            password: the new password.
            is_registration: whether somebody registers or accepts an invite, where the minimum is lower.
            sentence: the words for "too short" where the wire wants particular ones.

        Raises:
            PasswordTooShort: 400.
            PasswordTooCommon: 400, in production only.
            Unprocessable: 422, longer than 128 characters.
        """
        if len(password) > LONGEST_PASSWORD:
            raise Unprocessable.at("password", f"Password must be at most {LONGEST_PASSWORD} characters")
        if len(password) < self.minimum(is_registration=is_registration):
            raise PasswordTooShort(sentence)
        if self._is_strict and f"\n{password.casefold()}\n" in self._common:
            raise PasswordTooCommon

    def minimum(self, *, is_registration: bool = False) -> int:
        """Return the fewest characters a new password may have."""
        if self._override is not None:
            return self._override
        if self._is_strict:
            return PRODUCTION_MINIMUM
        return REGISTRATION_MINIMUM if is_registration else MINIMUM

    async def _bounded(self, password: str, compare_with: str | None) -> str:
        if self._waiting >= HASHES_WAITING:
            raise Overloaded
        self._waiting += 1
        try:
            loop = asyncio.get_running_loop()
            return await loop.run_in_executor(self._threads, self._work, password, compare_with)
        finally:
            self._waiting -= 1

    def _work(self, password: str, compare_with: str | None) -> str:
        _leave_processors_to_others(next(self._turns))
        if compare_with is None:
            return self._hasher.hash(password)
        try:
            self._hasher.verify(compare_with, password)
        except (VerifyMismatchError, InvalidHashError):
            return "mismatch"
        return "match"


def _go_behind_others() -> None:
    """Let this thread, and those the hashing starts, run only where nothing else wants to; only Linux has that."""
    if hasattr(os, "setpriority") and os.uname().sysname == "Linux":
        # Where it is not allowed, hashing is as important as everything else.
        with contextlib.suppress(OSError):
            os.setpriority(os.PRIO_PROCESS, threading.get_native_id(), HASHING_NICENESS)


def _leave_processors_to_others(turn: int) -> None:
    """Let this thread, and those the hashing starts, use half of the processors that the process may use.

    The lanes of one hash would take all of them at once, and whoever wants to go first would find none free.
    """
    if hasattr(os, "sched_setaffinity"):
        # Those of the first thread, which an operator may have changed meanwhile.
        usable = sorted(os.sched_getaffinity(os.getpid()))
        count = max(1, len(usable) // 2)
        taken = {usable[(turn * count + place) % len(usable)] for place in range(count)}
        with contextlib.suppress(OSError):
            os.sched_setaffinity(threading.get_native_id(), taken)


def _common_passwords() -> str:
    """Return the passwords that are tried first, each between two line breaks.

    One text, and of all that library only this list: as a set of texts, with the library's other lists and rankings
    beside them, they would take a tenth of the process's memory.
    """
    package = importlib.util.find_spec("zxcvbn")
    if package is None or package.origin is None:
        raise RuntimeError("The list of common passwords (zxcvbn) is not installed.")
    lists = runpy.run_path(str(Path(package.origin).with_name("frequency_lists.py")))["FREQUENCY_LISTS"]
    return "\n".join(("", *lists["passwords"], ""))
