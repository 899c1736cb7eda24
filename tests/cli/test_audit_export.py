"""``quill audit export``."""

import json
import stat
from pathlib import Path

from fhir.resources.R4B.auditevent import AuditEvent as AuditEventOracle

from tests.cli.conftest import Run


def acts(lines: str) -> list[str]:
    for line in lines.splitlines():
        AuditEventOracle.model_validate_json(line)
    return [json.loads(line)["subtype"][0]["code"] for line in lines.splitlines()]


def test_trail_goes_to_standard_output_or_a_private_file_and_the_export_is_in_it(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    made = quill("create-organisation", "--name", "Riverside Surgery", "--type", "gp_practice")
    assert made.returncode == 0
    first = quill("audit", "export")
    assert first.returncode == 0, first.stderr
    assert acts(first.stdout) == ["organisation:create", "audit:export"]
    assert "2 events." in first.stderr
    file = tmp_path / "trail.ndjson"
    second = quill("audit", "export", "--output", str(file))
    assert (second.returncode, second.stdout) == (0, "")
    assert acts(file.read_text()) == ["organisation:create", "audit:export", "audit:export"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600
    again = quill("audit", "export", "--output", str(file))
    assert again.returncode == 1
    assert "there already" in again.stderr
    assert [path.name for path in tmp_path.iterdir() if "ndjson" in path.name] == ["trail.ndjson"]


def test_options_choose_and_the_patient_is_audited(quill: Run) -> None:
    quill("migrate")
    assert acts(quill("audit", "export", "--patient", "p1").stdout) == ["audit:export"]
    [line] = quill("audit", "export", "--patient", "p1", "--until", "2020-01-01").stdout.splitlines() or ["none"]
    assert line == "none"
    both = quill("audit", "export", "--since", "2020-01-01T00:00:00").stdout.splitlines()
    assert [json.loads(event)["entity"][0]["what"].get("reference") for event in both] == ["Patient/p1"] * 2 + [None]
    refused = quill("audit", "export", "--patient", "Jones, Pat")
    assert refused.returncode == 1
    assert "Jones" not in refused.stderr
    assert quill("audit", "export", "--since", "yesterday").returncode == 2
