"""What is looked up when somebody asks for it: the queues in the database, and the processes."""

import asyncio
import datetime
import os
import re
from collections.abc import Callable, Iterator
from pathlib import Path

import structlog
from prometheus_client import Metric, ProcessCollector
from prometheus_client.core import GaugeMetricFamily
from prometheus_client.multiprocess import mark_process_dead
from prometheus_client.registry import Collector

from quill.audit.seals import SealingState, sealing_state
from quill.intents import service as intents
from quill.kit import clock
from quill.kit.database import Database
from quill.kit.logs import where
from quill.outbox import service as outbox
from quill.outbox.service import Backlog

DEADLINE_SECONDS = 2.0
"""A scrape tells what it can by then; the database may be what is in trouble."""

log = structlog.get_logger()


class QueueCollector(Collector):
    """Looks the queues up in the database, from another thread than the application's.

    Args:
        database: where they are.
        loop: the application's, which alone may use the database.
    """

    def __init__(self, database: Database, loop: asyncio.AbstractEventLoop) -> None:
        self._database = database
        self._loop = loop

    def collect(self) -> Iterator[Metric]:
        """Yield the queues' gauges; when they cannot be read, only that they cannot."""
        asked = asyncio.run_coroutine_threadsafe(self._read(), self._loop)
        try:
            backlogs, opened, sealing = asked.result(DEADLINE_SECONDS)
        except Exception as error:  # noqa: BLE001 - whatever it is, the other metrics are wanted all the more
            asked.cancel()
            log.warning("queues_not_measured", cause=where(error))
            yield _gauge("queues_readable", "1 when the queues could be looked up for this scrape.", 0)
            return
        yield _gauge("queues_readable", "1 when the queues could be looked up for this scrape.", 1)
        yield from _outbox(backlogs)
        yield _gauge("intents_open", "Clinical writes under way or left half-done.", opened[0])
        yield _gauge("intents_oldest_age_seconds", "Age of the oldest of them; 0 when none.", _age(opened[1]))
        yield _gauge("audit_unsealed_events", "Audit events no seal holds yet.", sealing.unsealed)
        yield _gauge("audit_last_seal_age_seconds", "Time since the last seal; 0 before any.", _age(sealing.sealed_at))

    async def _read(self) -> tuple[list[Backlog], tuple[int, datetime.datetime | None], SealingState]:
        async with asyncio.timeout(DEADLINE_SECONDS), self._database.reading() as session:
            return await outbox.list_backlogs(session), await intents.count_open(session), await sealing_state(session)


class WorkersCollector(Collector):
    """Tells about the processes that serve together: memory, processor time, open files, each by its number.

    Args:
        pids: which processes there are at this moment.
    """

    def __init__(self, pids: Callable[[], list[int]]) -> None:
        self._pids = pids

    def collect(self) -> Iterator[Metric]:
        """Yield the usual ``process_…`` metrics with one sample for each process."""
        merged: dict[str, Metric] = {}
        for pid in self._pids():
            for metric in ProcessCollector(pid=lambda pid=pid: pid, registry=None).collect():  # type: ignore[misc]
                known = merged.setdefault(metric.name, Metric(metric.name, metric.documentation, metric.type))
                for sample in metric.samples:
                    known.add_sample(sample.name, {"pid": str(pid)}, sample.value)
        yield from merged.values()


def living_workers(directory: Path) -> list[int]:
    """Return the processes that count into a directory, and forget what those that died said of themselves."""
    pids = {int(found[1]) for path in directory.glob("*.db") if (found := re.search(r"_(\d+)\.db$", path.name))}
    living = [pid for pid in sorted(pids) if _is_alive(pid)]
    for pid in pids.difference(living):
        mark_process_dead(pid, str(directory))  # type: ignore[no-untyped-call]
    return living


def _is_alive(pid: int) -> bool:
    try:
        os.kill(pid, 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        return True
    return True


def _outbox(backlogs: list[Backlog]) -> Iterator[Metric]:
    pending = GaugeMetricFamily("quill_outbox_pending", "Deliveries that wait.", labels=["channel"])
    failed = GaugeMetricFamily("quill_outbox_failed", "Deliveries given up in thirty days.", labels=["channel"])
    oldest = GaugeMetricFamily(
        "quill_outbox_oldest_age_seconds", "Age of the oldest that waits; 0 when none.", labels=["channel"]
    )
    for backlog in backlogs:
        pending.add_metric([backlog.channel], backlog.pending)
        failed.add_metric([backlog.channel], backlog.failed)
        oldest.add_metric([backlog.channel], _age(backlog.oldest_at))
    yield from (pending, failed, oldest)


def _gauge(name: str, text: str, value: float) -> GaugeMetricFamily:
    return GaugeMetricFamily(f"quill_{name}", text, value)


def _age(since: datetime.datetime | None) -> float:
    return 0.0 if since is None else max(0.0, (clock.now() - since).total_seconds())
