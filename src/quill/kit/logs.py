"""Log lines: structured, one per event, without patient data.

Lines carry slugs, ids, route templates and durations. They never carry bodies, names, query strings or exception texts,
because the text of an exception may quote what a patient wrote; ``where`` gives the place instead.
"""

import contextlib
import json
import logging
import sys
import traceback
from collections.abc import Callable, MutableMapping
from typing import Any, Literal

import msgspec
import structlog

from quill.kit.correlation import add_request_id
from quill.kit.observing import Logged, tell


def configure(level: Literal["debug", "info", "warning", "error"], *, as_json: bool) -> None:
    """Send our own and the libraries' log lines to standard error, as JSON or for people."""
    renderer = structlog.processors.JSONRenderer(_to_json) if as_json else structlog.dev.ConsoleRenderer(colors=False)
    number = logging.getLevelNamesMapping()[level.upper()]
    structlog.configure(
        processors=[
            structlog.processors.add_log_level,
            add_request_id,
            _tell,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            renderer,
        ],
        wrapper_class=structlog.make_filtering_bound_logger(number),
        # Standard output belongs to what a command answers; standard error is looked up anew for each line.
        logger_factory=lambda *_: _StandardError(),
        cache_logger_on_first_use=False,
    )
    logging.basicConfig(level=max(number, logging.WARNING), format="%(levelname)s %(name)s %(message)s", force=True)


def _to_json(line: MutableMapping[str, Any], *, default: Callable[[Any], Any]) -> str:
    try:
        return msgspec.json.encode(line, enc_hook=default).decode()
    except UnicodeEncodeError:
        # A lone surrogate, which only escapes can tell.
        return json.dumps(line, default=default)


def _tell(_logger: object, _method: str, line: MutableMapping[str, Any]) -> MutableMapping[str, Any]:
    tell(Logged(line["level"], line["event"]))
    return line


class _StandardError:
    """Writes lines; one that cannot be written, because the disk is full or nobody reads any more, stops no request."""

    def msg(self, line: str) -> None:
        """Write a line."""
        with contextlib.suppress(OSError, ValueError):
            sys.stderr.write(f"{line}\n")
            sys.stderr.flush()

    debug = info = warning = warn = error = critical = exception = fatal = log = msg


def where(error: BaseException) -> str:
    """Return the kind of an error, the kinds that caused it, and the places it came through; never its text."""
    kinds: list[str] = []
    link: BaseException | None = error
    while link is not None and len(kinds) < 5:
        kinds.append(type(link).__name__)
        link = link.__cause__ or link.__context__
    # Walked and not extracted, which would look every source file up on disk: in an outage there are many errors.
    walked = [(frame.f_code, line) for frame, line in traceback.walk_tb(error.__traceback__)][-6:]
    places = " > ".join(f"{code.co_filename.rsplit('/', 1)[-1]}:{line}:{code.co_name}" for code, line in walked)
    return f"{' from '.join(kinds)} at {places}"
