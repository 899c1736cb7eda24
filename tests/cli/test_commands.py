"""The commands an operator needs before anybody can sign in."""

import json
import stat
from pathlib import Path

import pytest

from tests.cli.conftest import Run


def test_bare_program_lists_its_commands(quill: Run) -> None:
    listed = quill("--help")
    assert listed.returncode == 0
    for command in ("serve", "migrate", "doctor", "import-patients", "demo"):
        assert command in listed.stdout


def test_new_installation_is_led_from_doctor_to_a_person_who_can_sign_in(quill: Run) -> None:
    ill = quill("doctor")
    assert ill.returncode == 1
    assert "quill migrate" in ill.stdout
    assert quill("migrate").returncode == 0
    well = quill("doctor")
    assert well.returncode == 0, well.stdout
    made = quill("create-organisation", "--name", "Riverside Surgery", "--type", "gp_practice")
    assert made.returncode == 0, made.stderr
    person = quill(
        *("create-user", "--username", "dr.osei", "--email", "dr.osei@example.org", "--permission", "staff"),
        *("--profession", "general_practitioner", "--role", "Clinician", "--organisation", "Riverside Surgery"),
        *("--registration", "gmc:1234567", "--password-stdin"),
        stdin="correct horse battery\n",
    )
    assert person.returncode == 0, person.stderr
    assert person.stdout.strip().isdigit()


@pytest.mark.parametrize(
    ("words", "sentence"),
    [
        (("--permission", "king"), "Unknown permission level"),
        (("--profession", "wizard"), "Unknown profession"),
        (("--role", "Wizard"), "Unknown role"),
        (("--registration", "GMC:12"), "not a registration number"),
        (("--registration", "1234567"), "Unknown regulator"),
        (("--permission", "staff", "--organisation", "Nowhere"), "no organisation called"),
    ],
)
def test_unacceptable_person_is_refused_with_the_reason(quill: Run, words: tuple[str, ...], sentence: str) -> None:
    quill("migrate")
    refused = quill(
        "create-user", "--username", "x", "--email", "x@example.org", *words, "--password-stdin", stdin="long enough\n"
    )
    assert refused.returncode == 1
    assert sentence in refused.stderr
    assert "Traceback" not in refused.stderr


def test_commands_refuse_a_database_without_tables(quill: Run) -> None:
    refused = quill("create-organisation", "--name", "x", "--type", "gp_practice")
    assert refused.returncode == 1
    assert "quill migrate" in refused.stderr


def test_wrong_setting_is_named_without_its_value(quill: Run) -> None:
    refused = quill("migrate", QUILL_ACCESS_TOKEN_SECONDS="eleventy-secret")
    assert refused.returncode == 1
    assert "QUILL_ACCESS_TOKEN_SECONDS" in refused.stderr
    assert "eleventy-secret" not in refused.stderr


@pytest.mark.parametrize(
    ("settings", "sentence"),
    [
        ({}, "QUILL_SECRET_KEY must be set"),
        ({"QUILL_SECRET_KEY": "change-me"}, "at least 32 characters"),
        ({"QUILL_SECRET_KEY": "a" * 40}, "placeholder"),
        ({"QUILL_PUBLIC_URL": "http://quill.example"}, "https://"),
        ({"QUILL_CORS_ORIGINS": '["*"]'}, "not '*'"),
    ],
)
def test_production_refuses_what_is_unsafe(quill: Run, settings: dict[str, str], sentence: str) -> None:
    refused = quill("serve", QUILL_ENVIRONMENT="production", **settings)
    assert refused.returncode == 1
    assert sentence in refused.stderr


def test_published_api_and_reference_pages_are_up_to_date(quill: Run) -> None:
    root = Path(__file__).parents[2]
    assert quill("openapi", "--check", str(root / "docs/reference/openapi.json")).returncode == 0
    assert quill("reference", "--check", "--directory", str(root / "docs/reference")).returncode == 0
    assert json.loads(quill("openapi").stdout)["openapi"].startswith("3.1")


def test_migrations_and_models_agree(quill: Run) -> None:
    assert quill("migrate", "--check").returncode == 0


def test_audit_trail_of_a_new_installation_is_intact(quill: Run) -> None:
    quill("migrate")
    quill("create-organisation", "--name", "x", "--type", "gp_practice")
    verified = quill("audit", "verify")
    assert verified.returncode == 0
    assert "intact" in verified.stdout


def test_generated_secret_is_private(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    from quill.settings import kept_secret

    path = tmp_path / "data" / "secret.key"
    assert kept_secret(path) == kept_secret(path)
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    path.chmod(0o644)
    assert "chmod 600" in quill("doctor").stdout


def test_demo_fills_an_empty_clinic_once_and_its_projection_can_be_rebuilt(quill: Run) -> None:
    quill("migrate")
    filled = quill("demo", "--patients", "7", "--conversations", "3", "--messages", "9", "--json")
    assert filled.returncode == 0, filled.stderr
    accounts = {account["username"]: account for account in json.loads(filled.stdout)["accounts"]}
    assert accounts["dr.osei"]["permission"] == "staff"
    again = quill("demo")
    assert again.returncode == 1
    assert "not empty" in again.stderr
    rebuilt = quill("rebuild-projection")
    assert rebuilt.stdout.strip() == "3 conversations, 9 messages; 0 records ignored."


def test_large_demo_holds_the_numbers_asked_for_and_can_be_rebuilt(quill: Run) -> None:
    quill("migrate")
    filled = quill("demo", "--patients", "13", "--conversations", "7", "--messages", "510", "--json")
    assert filled.returncode == 0, filled.stderr
    assert json.loads(filled.stdout)["size"] == {"patients": 13, "conversations": 7, "messages": 510}
    assert quill("demo").returncode == 1
    assert quill("rebuild-projection").stdout.strip() == "7 conversations, 510 messages; 0 records ignored."
    assert quill("reconcile", "--dry-run").returncode == 0


def test_import_refuses_bad_lines_one_by_one_and_takes_the_rest(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    quill("create-organisation", "--name", "Riverside Surgery", "--type", "gp_practice")
    good = {"resourceType": "Patient", "id": "one", "name": [{"family": "Secretname"}]}
    lines = [
        json.dumps(good),
        '{"resourceType": "Patient", ',
        json.dumps({"resourceType": "Observation", "id": "x"}),
        json.dumps(good | {"id": "two", "gender": "X"}),
        json.dumps(good | {"id": "three", "birthDate": "1980-02-30"}),
        json.dumps(good | {"id": "one", "name": [{"family": "Other"}]}),
        json.dumps(good | {"id": "four"}),
    ]
    file = tmp_path / "patients.ndjson"
    file.write_text("\n".join(lines))
    imported = quill("import-patients", str(file), "--organisation", "Riverside Surgery")
    assert imported.returncode == 1
    assert "7 read: 2 imported, 0 updated, 0 unchanged, 5 refused." in imported.stdout
    assert [line.split(":")[0] for line in imported.stdout.splitlines()[:5]] == [f"line {n}" for n in (2, 3, 4, 5, 6)]
    assert "Secretname" not in imported.stdout + imported.stderr
    again = quill("import-patients", str(file), "--organisation", "Riverside Surgery")
    assert "7 read: 0 imported, 0 updated, 2 unchanged, 5 refused." in again.stdout


def test_import_needs_a_file_and_an_organisation_that_are_there(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    assert "There is no file" in quill("import-patients", "nowhere.ndjson", "--organisation", "x").stderr
    file = tmp_path / "empty.ndjson"
    file.write_text("")
    assert "no organisation called" in quill("import-patients", str(file), "--organisation", "Nowhere").stderr
