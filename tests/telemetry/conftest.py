"""Metrics as a scraper sees them: over HTTP, from the port that serves them."""

import http.client
import socket
from collections.abc import Callable, Iterator

import pytest
from anyio.from_thread import BlockingPortal
from fastapi import FastAPI
from prometheus_client import Metric
from prometheus_client.parser import text_string_to_metric_families
from starlette.testclient import TestClient

from quill.settings import Settings
from tests.clinic import Clinic
from tests.published_api import Browser
from tests.running import running


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


class Scrape:
    """One answer of the metrics port."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.metrics: dict[str, Metric] = {metric.name: metric for metric in text_string_to_metric_families(text)}

    def value(self, name: str, **labels: str) -> float | None:
        """Return a sample's value; ``None`` when there is no such sample."""
        samples = [sample for metric in self.metrics.values() for sample in metric.samples]
        found = [sample.value for sample in samples if sample.name == name and labels.items() <= sample.labels.items()]
        assert len(found) <= 1, f"{name} {labels} is not one sample"
        return found[0] if found else None

    def labels(self, name: str) -> set[str]:
        """Return every value a label has, in whatever metric."""
        samples = [sample for metric in self.metrics.values() for sample in metric.samples]
        return {sample.labels[name] for sample in samples if name in sample.labels}


def get(port: int, path: str = "/metrics", **headers: str) -> tuple[int, str, str]:
    connection = http.client.HTTPConnection("127.0.0.1", port, timeout=10)
    connection.request("GET", path, headers=headers)
    answer = connection.getresponse()
    body = answer.read().decode()
    connection.close()
    return answer.status, answer.getheader("Content-Type") or "", body


@pytest.fixture
def port() -> int:
    return free_port()


@pytest.fixture
def clinic(application: FastAPI, settings: Settings, portal: BlockingPortal, port: int) -> Iterator[Clinic]:
    """Return a clinic that is measured."""
    application.state.settings = settings.model_copy(update={"metrics_port": port})
    with running(application, portal):
        browser = Browser(application, raise_server_exceptions=False)
        browser.portal = portal
        yield Clinic(browser)


@pytest.fixture
def scrape(clinic: Clinic, port: int) -> Callable[[], Scrape]:
    assert isinstance(clinic.client, TestClient)

    def ask() -> Scrape:
        status, _, body = get(port)
        assert status == 200
        return Scrape(body)

    return ask
