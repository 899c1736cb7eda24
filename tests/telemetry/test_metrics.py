"""What a scrape tells, and what it never does."""

import asyncio
import datetime
import os
import re
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path

import pytest
import structlog
import yaml
from fastapi import FastAPI
from prometheus_client import Metric
from prometheus_client.multiprocess import MultiProcessCollector

from quill import published
from quill.audit.seals import seal_pending
from quill.intents.models import Intent
from quill.kit import clock, observing
from quill.kit.observing import (
    Audited,
    Logged,
    RequestEnded,
    Throttled,
    UpstreamCalled,
    WriterWaited,
    tell,
)
from quill.outbox import service as outbox
from quill.outbox.models import OutboxEntry
from quill.settings import Settings
from quill.telemetry import collectors
from quill.unit import Unit
from tests.clinic import Clinic, Person
from tests.letters.desk import letters_of
from tests.published_api import Browser
from tests.telemetry.conftest import Scrape, get

ROOT = Path(__file__).resolve().parents[2]

Scraper = Callable[[], Scrape]

ROUTE = "/api/patients/{patient_id}"


def published_paths(clinic: Clinic) -> set[str]:
    return set(clinic.client.app.openapi()["paths"])  # type: ignore[attr-defined]


def test_requests_are_counted_by_template_and_status(clinic: Clinic, scrape: Scraper) -> None:
    doctor = clinic.clinician(clinic.organisation())
    patient = clinic.patient(1)
    for _ in range(2):
        doctor.get(f"/api/patients/{patient}")
    doctor.get("/api/patients/nobody")
    told = scrape()
    assert told.value("quill_http_requests_total", method="GET", route=ROUTE, status="200") == 2
    assert told.value("quill_http_requests_total", method="GET", route=ROUTE, status="404") == 1
    assert told.value("quill_http_request_duration_seconds_count", method="GET", route=ROUTE) == 3
    assert told.value("quill_http_requests_in_progress") == 0


def test_what_a_caller_makes_up_shares_one_label(clinic: Clinic, scrape: Scraper) -> None:
    for number in range(20):
        clinic.client.get(f"/api/nowhere/{number}")
    tell(RequestEnded("BREW", "unmatched", 0, 0.1))
    told = scrape()
    assert told.value("quill_http_requests_total", method="GET", route="unmatched", status="404") == 20
    assert told.value("quill_http_requests_total", method="other", route="unmatched", status="none") == 1
    assert "BREW" not in told.text


def test_no_label_holds_what_people_wrote_or_whom_it_is_about(clinic: Clinic, scrape: Scraper) -> None:
    surgery = clinic.organisation("Qwertzsurgery")
    doctor = clinic.clinician(surgery, username="qwertzdoctor", password="Qwertzpass word 1")
    answer = doctor.post("/api/patients", {"given_name": "Qwertzgiven", "family_name": "Qwertzfamily"})
    patient = answer.json()["id"]
    letter = doctor.post(letters_of(patient), {"title": "Qwertztitle", "body": "Qwertzletter"}).json()
    doctor.get(f"{letters_of(patient)}/{letter['composition_uid']}")
    doctor.get("/api/patients", params={"search": "Qwertzfamily"})
    talk = {"patient_id": patient, "subject": "Qwertzsubject", "initial_message": "Qwertzmessage"}
    doctor.post("/api/conversations", talk)
    clinic.client.get("/qwertzpath/Qwertzname")
    Person(clinic.client, 0, "qwertznobody").sign_in("Qwertzwrong")
    told = scrape()
    marks = ["qwertz", patient, letter["composition_uid"].split("::")[0]]
    assert [mark for mark in marks if mark in told.text.lower()] == []
    # Nothing shaped like an id is in any label but the number of the process.
    values = {value for m in told.metrics.values() for s in m.samples for k, value in s.labels.items() if k != "pid"}
    assert [value for value in values if re.search(r"[0-9a-f]{8}-|\d{6}|@", value)] == []
    assert told.labels("route") <= {*published_paths(clinic), "unmatched"}


def test_sign_ins_and_throttles_are_told_by_outcome(clinic: Clinic, scrape: Scraper) -> None:
    person = clinic.person(is_signed_in=False)
    assert person.sign_in().status_code == 200
    while person.sign_in("wrong").status_code != 429:
        continue
    assert Person(clinic.client, 0, "nobody").sign_in().status_code == 400
    told = scrape()
    assert told.value("quill_sign_ins_total", outcome="succeeded") == 1
    assert told.value("quill_sign_ins_total", outcome="wrong_password") == 5
    assert told.value("quill_sign_ins_total", outcome="unknown_user") == 1
    assert told.value("quill_throttled_total", limit="sign-in-pair") == 1
    assert told.value("quill_acts_total", act="sign-in", outcome="refused") == 6


def test_queues_are_told_by_depth_and_age(clinic: Clinic, scrape: Scraper) -> None:
    before = scrape()
    assert before.value("quill_queues_readable") == 1
    assert before.value("quill_outbox_pending", channel="mail") == 0
    assert before.value("quill_outbox_oldest_age_seconds", channel="mail") == 0
    assert before.value("quill_intents_open") == 0
    now = clock.now()
    later, earlier = now + datetime.timedelta(hours=1), now - datetime.timedelta(hours=2)
    entry = {"attempts": 3, "next_attempt_at": later, "give_up_at": later, "created_at": earlier}
    intent = {"actor": "{}", "owner_key": "x", "fingerprint": "x", "lease_until": later, "created_at": earlier}

    async def leave_undone(unit: Unit) -> None:
        unit.session.add(OutboxEntry(id="a", channel="mail", payload="{}", state="pending", **entry))
        unit.session.add(OutboxEntry(id="b", channel="push", state="failed", **entry))
        unit.session.add(Intent(id="c", kind="none", state="pending", **intent))

    clinic.in_unit(leave_undone)
    told = scrape()
    assert told.value("quill_outbox_pending", channel="mail") == 1
    assert told.value("quill_outbox_failed", channel="push") == 1
    assert (told.value("quill_outbox_oldest_age_seconds", channel="mail") or 0) >= 7200
    assert told.value("quill_outbox_oldest_age_seconds", channel="push") == 0
    assert told.value("quill_intents_open") == 1
    assert (told.value("quill_intents_oldest_age_seconds") or 0) >= 7200


def test_sealing_is_told(clinic: Clinic, scrape: Scraper) -> None:
    clinic.clinician(clinic.organisation())
    assert (scrape().value("quill_audit_unsealed_events") or 0) >= 0
    clinic.run(seal_pending, clinic.services.database)
    told = scrape()
    assert told.value("quill_audit_unsealed_events") == 0
    assert 0 < (told.value("quill_audit_last_seal_age_seconds") or 0) < 60


def test_scrape_answers_although_the_database_does_not(
    clinic: Clinic, scrape: Scraper, monkeypatch: pytest.MonkeyPatch
) -> None:
    async def hang(_session: object) -> None:
        await asyncio.sleep(30)

    monkeypatch.setattr(collectors, "DEADLINE_SECONDS", 0.05)
    monkeypatch.setattr(outbox, "list_backlogs", hang)
    clinic.client.get("/api/health/live")
    told = scrape()
    assert told.value("quill_queues_readable") == 0
    assert told.value("quill_outbox_pending", channel="mail") is None
    assert told.value("quill_http_requests_total", route="/api/health/live") == 1


def test_upstreams_and_their_breakers_are_told(scrape: Scraper) -> None:
    tell(UpstreamCalled("fhir", "GET", "answered", 0.2, is_tripped=False))
    tell(UpstreamCalled("fhir", "PUT", "unavailable", 0.3, is_tripped=True))
    tell(UpstreamCalled("fhir", "GET", "not_asked", 0.0, is_tripped=True))
    told = scrape()
    assert told.value("quill_upstream_calls_total", upstream="fhir", outcome="unavailable") == 1
    assert told.value("quill_upstream_calls_total", upstream="fhir", outcome="not_asked") == 1
    assert told.value("quill_upstream_call_duration_seconds_count", upstream="fhir") == 2
    assert told.value("quill_upstream_breaker_open", upstream="fhir") == 1


def test_database_processes_streams_and_version_are_told(clinic: Clinic, scrape: Scraper) -> None:
    clinic.clinician(clinic.organisation())
    told = scrape()
    assert told.value("quill_database_connections_limit") == 20
    assert told.value("quill_database_connections_in_use") == 0
    assert told.value("quill_live_streams") == 0
    assert told.value("quill_info", version=published.VERSION) == 1
    assert (told.value("process_resident_memory_bytes", pid=str(os.getpid())) or 0) > 1_000_000
    if clinic.services.database.is_sqlite:
        assert (told.value("quill_database_writer_wait_seconds_count") or 0) > 0


@pytest.mark.usefixtures("production_logs")
def test_trouble_in_the_log_is_counted_by_its_event(scrape: Scraper) -> None:
    structlog.get_logger().warning("sweep_failed")
    structlog.get_logger().info("all_well")
    told = scrape()
    assert told.value("quill_log_lines_total", level="warning", event="sweep_failed") == 1
    assert "all_well" not in told.text


@pytest.mark.usefixtures("clinic")
def test_port_answers_one_path_in_either_format(port: int) -> None:
    assert get(port, "/api/health")[0] == 404
    status, kind, body = get(port, Accept="application/openmetrics-text; version=1.0.0")
    assert (status, kind.split(";")[0]) == (200, "application/openmetrics-text")
    assert body.endswith("# EOF\n")


def test_without_a_port_nobody_watches_and_nothing_listens(application: FastAPI, settings: Settings) -> None:
    application.state.settings = settings
    with Browser(application):
        assert observing._watchers == ()
        assert not [thread for thread in threading.enumerate() if thread.name == "metrics"]


def test_workers_tell_together_and_the_dead_are_no_longer_counted(tmp_path: Path) -> None:
    """Two processes count; one ends, one is killed. What they counted stays, what they held does not."""
    ended, killed = counting_process(tmp_path, "ended"), counting_process(tmp_path, "killed")
    ended.communicate()
    assert killed.stdout is not None
    assert killed.stdout.readline() == "counted\n"
    assert [killed.pid] == collectors.living_workers(tmp_path)
    together = MultiProcessCollector(None, str(tmp_path))  # type: ignore[no-untyped-call]
    assert samples(together) >= {("quill_throttled_total", 2.0), ("quill_live_streams", 7.0)}
    killed.kill()
    killed.communicate()
    assert collectors.living_workers(tmp_path) == []
    assert ("quill_throttled_total", 2.0) in samples(together)
    assert "quill_live_streams" not in {name for name, _ in samples(together)}


COUNTING = """
import sys
from prometheus_client import CollectorRegistry
from quill.kit.observing import StreamsOpen, Throttled
from quill.telemetry.meters import Meters

meters = Meters(CollectorRegistry())
meters.note(Throttled("reset"))
meters.note(StreamsOpen(7))
print("counted", flush=True)
if sys.argv[1] == "killed":
    sys.stdin.read()
"""


def counting_process(directory: Path, end: str) -> "subprocess.Popen[str]":
    return subprocess.Popen(  # noqa: S603 - the program under test
        [sys.executable, "-c", COUNTING, end],
        env={**os.environ, "PROMETHEUS_MULTIPROC_DIR": str(directory)},
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
    )


def samples(collector: MultiProcessCollector) -> set[tuple[str, float]]:
    metrics: list[Metric] = list(collector.collect())  # type: ignore[no-untyped-call]
    return {(sample.name, sample.value) for metric in metrics for sample in metric.samples}


def test_operators_are_told_of_every_metric_and_alerts_ask_for_none_that_is_not_there(scrape: Scraper) -> None:
    for happening in (
        RequestEnded("GET", "unmatched", 404, 0.1),
        UpstreamCalled("fhir", "GET", "answered", 0.2, is_tripped=False),
        Throttled("reset"),
        Audited("sign-in", "allowed", ""),
        WriterWaited(0.1),
        Logged("error", "x"),
    ):
        tell(happening)
    told = scrape()
    names = {sample.name for metric in told.metrics.values() for sample in metric.samples}
    ours = {re.sub("_(bucket|sum|count)$", "", name) for name in names if name.startswith("quill_")}
    documented = set(re.findall(r"`(quill_\w+)`", (ROOT / "docs/how-to/operate.md").read_text()))
    assert documented == ours
    alerts = yaml.safe_load((ROOT / "deploy/prometheus/alerts.yaml").read_text())["groups"][0]["rules"]
    asked = {name for alert in alerts for name in re.findall(r"quill_\w+", alert["expr"])}
    assert asked <= names
    page = (ROOT / "docs/how-to/operate.md").read_text()
    assert [alert["alert"] for alert in alerts if f"`{alert['alert']}`" not in page] == []
