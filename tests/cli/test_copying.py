"""``quill copy-clinical`` as an operator types it."""

from pathlib import Path

import pytest

from tests.cli.conftest import Run
from tests.databases import SqliteDatabases, directory_for_files
from tests.upstreams.faults import faulty_line
from tests.upstreams.fhir_server import fhir_server
from tests.upstreams.openehr_server import PASSWORD, USER, openehr_server

CREDENTIALS = {"QUILL_OPENEHR_USER": USER, "QUILL_OPENEHR_PASSWORD": PASSWORD}


def test_clinic_moves_out_and_back(
    quill: Run, tmp_path_factory: pytest.TempPathFactory, sqlite_databases: SqliteDatabases
) -> None:
    directory = directory_for_files(tmp_path_factory, "servers")
    quill("migrate")
    assert quill("demo", "--patients", "4", "--conversations", "2", "--messages", "6").returncode == 0
    with fhir_server(sqlite_databases.fresh(directory)) as fhir, openehr_server(directory) as (_, openehr):
        fhir.checks_references = True
        there = CREDENTIALS | {"QUILL_FHIR_URL": fhir.address, "QUILL_OPENEHR_URL": openehr}
        to = ("copy-clinical", "--to-fhir", fhir.address, "--to-openehr", openehr)
        differs = quill(*to, "--verify", **CREDENTIALS)
        assert differs.returncode == 1
        assert "not there: Communication/" in differs.stdout

        moved = quill(*to, **CREDENTIALS)
        assert moved.returncode == 0, moved.stdout + moved.stderr
        assert "versions/s" in moved.stdout
        assert f"QUILL_FHIR_URL={fhir.address}\n" in moved.stdout
        assert f"QUILL_OPENEHR_URL={openehr}\n" in moved.stdout
        assert PASSWORD not in moved.stdout + moved.stderr
        assert "Both sides are alike." in quill(*to, "--verify", **CREDENTIALS).stdout
        again = quill(*to, **CREDENTIALS)
        assert (again.returncode, "live on another server" in again.stderr) == (1, True)
        assert quill("reconcile", **there).stdout.endswith("Tables and stores agree.\n")

        back = quill("copy-clinical", "--to-embedded", **there)
        assert back.returncode == 0, back.stdout + back.stderr
        assert "unset QUILL_FHIR_URL" in back.stdout
        assert 'QUILL_OPENEHR_FORMER_SYSTEMS=["ehrbase.test", "quill.local"]' in back.stdout
    assert quill("reconcile").stdout.endswith("Tables and stores agree.\n")


def test_server_that_does_not_answer_is_told_in_a_sentence(
    quill: Run, sqlite_databases: SqliteDatabases, tmp_path: Path
) -> None:
    quill("migrate")
    with fhir_server(sqlite_databases.fresh(tmp_path)) as fhir, faulty_line(fhir.address) as line:
        line.break_with("refuse")
        done = quill("copy-clinical", "--to-fhir", f"http://127.0.0.1:{line.port}/fhir")
    assert done.returncode == 1
    assert "The patient record store is not available right now." in done.stderr
    assert "run the same command again" in done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("words", "settings", "status", "sentence"),
    [
        ((), {}, 2, "--to-embedded"),
        (("--to-embedded", "--to-fhir", "http://fhir.example"), {}, 2, "goes without"),
        (("--to-embedded",), {}, 1, "embedded already"),
        (("--to-fhir", "not an address"), {}, 1, "http or https address"),
        (("--to-fhir", "http://a.example"), {"QUILL_FHIR_URL": "http://b.example"}, 1, "elsewhere already"),
    ],
)
def test_words_that_make_no_sense_are_refused(
    quill: Run, words: tuple[str, ...], settings: dict[str, str], status: int, sentence: str
) -> None:
    done = quill("copy-clinical", *words, **settings)
    assert done.returncode == status
    assert sentence in done.stderr
