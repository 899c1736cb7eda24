"""Log lines as a machine reads them: whatever is put into one, it is one line of JSON."""

import json
from typing import Any

import pytest
import structlog


@pytest.mark.usefixtures("production_logs")
@pytest.mark.parametrize(
    ("value", "told"),
    [
        ("two\nlines \x1b[2J", "two\nlines \x1b[2J"),
        ("Siân 医", "Siân 医"),
        ("alone \ud800", "alone \ud800"),
        (1.5, 1.5),
        (None, None),
        (ValueError("x"), "ValueError('x')"),
        ({"deep": [1, object]}, {"deep": [1, "<class 'object'>"]}),
    ],
)
def test_whatever_is_logged_is_one_line_of_json(value: Any, told: Any, capsys: pytest.CaptureFixture[str]) -> None:
    structlog.get_logger().info("happened", value=value)
    written = capsys.readouterr().err
    assert written.count("\n") == 1
    line = json.loads(written)
    assert (line["event"], line["level"], line["value"]) == ("happened", "info", told)
