"""A backup taken while people work, restored elsewhere: they sign in there and find what was acknowledged."""

import json
import sqlite3
import stat
import tarfile
import threading
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from io import BytesIO
from pathlib import Path
from typing import Any

import pytest

from quill.app import create_app
from quill.audit.seals import seal_pending
from quill.settings import Settings
from tests.cli.conftest import Run
from tests.clinic import Clinic, Person
from tests.conftest import cheap_settings
from tests.letters.desk import letters_of
from tests.published_api import Browser


@contextmanager
def running(data_dir: Path) -> Iterator[Clinic]:
    """Run an installation whose secrets lie in its data directory, as in the default."""
    given = cheap_settings(data_dir).model_dump() | {"secret_key": None, "vapid_private_key": None}
    with Browser(create_app(Settings.model_validate(given)), raise_server_exceptions=False) as client:
        yield Clinic(client)


def letter(person: Person, patient: str, number: int) -> str:
    answer = person.post(letters_of(patient), {"title": f"Letter {number}", "body": "Well."})
    assert answer.status_code == 200, answer.text
    return str(answer.json()["composition_uid"])


def test_backup_taken_while_writing_is_whole_elsewhere(quill: Run, tmp_path: Path) -> None:
    quill("migrate")
    file, elsewhere = tmp_path / "clinic.backup", tmp_path / "elsewhere"
    with running(tmp_path / "data") as clinic:
        doctor = clinic.clinician(clinic.organisation(), username="dr.osei")
        patient = clinic.patient(1)
        before = [letter(doctor, patient, number) for number in range(3)]
        clinic.run(seal_pending, clinic.services.database, clinic.services.settings.resolved_anchor_file)
        is_done, written = threading.Event(), list[str]()

        def write_on() -> None:
            while not is_done.is_set():
                written.append(letter(doctor, patient, 3 + len(written)))

        writer = threading.Thread(target=write_on)
        writer.start()
        made = quill("backup", str(file))
        is_done.set()
        writer.join()
    assert made.returncode == 0, made.stderr
    assert written, "nothing was written meanwhile"
    assert stat.S_IMODE(file.stat().st_mode) == 0o600

    restored = quill("restore", str(file), QUILL_DATA_DIR=str(elsewhere))
    assert restored.returncode == 0, restored.stderr
    assert "The audit trail is intact" in restored.stdout
    assert {path.name for path in elsewhere.iterdir()} == {
        "quill.sqlite3",
        "secret.key",
        "vapid.key",
        "audit-anchors.log",
    }
    assert {stat.S_IMODE(path.stat().st_mode) for path in elsewhere.iterdir()} == {0o600}
    with running(elsewhere) as clinic:
        doctor = Person(clinic.client, 0, "dr.osei")
        assert doctor.sign_in().status_code == 200
        listed = [line["composition_uid"] for line in doctor.get(letters_of(patient)).json()["letters"]]
        assert set(before) <= set(listed) <= {*before, *written}
        for uid in listed:
            assert doctor.get(f"{letters_of(patient)}/{uid}").json()["body"] == "Well."
        letter(doctor, patient, 99)
    assert quill("audit", "verify", QUILL_DATA_DIR=str(elsewhere)).returncode == 0


@pytest.fixture
def file(quill: Run, tmp_path: Path) -> Path:
    """Return a small backup."""
    quill("migrate")
    quill("create-organisation", "--name", "Riverside Surgery", "--type", "gp_practice")
    made = quill("backup", str(tmp_path / "small.backup"))
    assert made.returncode == 0, made.stderr
    return tmp_path / "small.backup"


def test_nothing_is_overwritten(quill: Run, file: Path, tmp_path: Path) -> None:
    content = file.read_bytes()
    again = quill("backup", str(file))
    assert (again.returncode, file.read_bytes()) == (1, content)
    assert "is there already" in again.stderr
    database = tmp_path / "data" / "quill.sqlite3"
    content = database.read_bytes()
    onto = quill("restore", str(file))
    assert (onto.returncode, database.read_bytes()) == (1, content)
    assert "is there already" in onto.stderr
    left = [path.name for path in tmp_path.rglob(".quill-*")]
    assert left == []


def repacked(file: Path, change: Callable[[dict[str, bytes], dict[str, Any]], None]) -> Path:
    """Return a backup with other contents, its manifest telling what ``change`` leaves in it."""
    with tarfile.open(file) as archive:
        contents = {entry.name: archive.extractfile(entry).read() for entry in archive}  # type: ignore[union-attr]
    manifest = json.loads(contents.pop("manifest.json"))
    change(contents, manifest)
    other = file.with_name("changed.backup")
    with tarfile.open(other, "w:gz") as archive:
        for name, content in {"manifest.json": json.dumps(manifest).encode(), **contents}.items():
            entry = tarfile.TarInfo(name)
            entry.size = len(content)
            archive.addfile(entry, BytesIO(content))
    return other


def edit(contents: dict[str, bytes], _manifest: dict[str, Any]) -> None:
    contents["quill.sqlite3"] = contents["quill.sqlite3"].replace(b"Riverside", b"Roverside")


def drop(contents: dict[str, bytes], _manifest: dict[str, Any]) -> None:
    del contents["quill.sqlite3"]


def lead_out(contents: dict[str, bytes], manifest: dict[str, Any]) -> None:
    contents["../escaped"] = b"x"
    manifest["parts"].append({"name": "../escaped", "size": 1, "sha256": "0" * 64})


def of_another_format(_contents: dict[str, bytes], manifest: dict[str, Any]) -> None:
    manifest["format"] = "quill-backup-9"


@pytest.mark.parametrize(
    ("change", "sentence"),
    [
        (edit, "is not what was written"),
        (drop, "is missing"),
        (lead_out, "manifest cannot be read"),
        (of_another_format, "manifest cannot be read"),
    ],
)
def test_changed_backup_is_refused_and_leaves_nothing(
    quill: Run, file: Path, tmp_path: Path, change: Callable[..., None], sentence: str
) -> None:
    refused = quill("restore", str(repacked(file, change)), QUILL_DATA_DIR=str(tmp_path / "elsewhere"))
    assert refused.returncode == 1
    assert sentence in refused.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []
    assert not (tmp_path / "escaped").exists()


@pytest.mark.parametrize("keep", [0, 100, -100])
def test_backup_cut_short_is_refused(quill: Run, file: Path, tmp_path: Path, keep: int) -> None:
    file.write_bytes(file.read_bytes()[:keep])
    refused = quill("restore", str(file), QUILL_DATA_DIR=str(tmp_path / "elsewhere"))
    assert refused.returncode == 1
    assert "backup" in refused.stderr
    assert list((tmp_path / "elsewhere").iterdir()) == []


def change_database(tmp_path: Path, statement: str) -> None:
    with closing(sqlite3.connect(tmp_path / "data" / "quill.sqlite3")) as connection, connection:
        connection.execute(statement)


def test_backup_of_a_changed_audit_trail_is_not_restored(quill: Run, file: Path, tmp_path: Path) -> None:
    file.unlink()
    with running(tmp_path / "data"):
        pass  # the sealer seals what there is when the application stops
    change_database(tmp_path, "UPDATE audit_event SET actor_name = 'somebody else'")
    quill("backup", str(file))
    refused = quill("restore", str(file), QUILL_DATA_DIR=str(tmp_path / "elsewhere"))
    assert refused.returncode == 1
    assert "was changed" in refused.stderr


def test_backup_of_other_tables_is_told(quill: Run, file: Path, tmp_path: Path) -> None:
    file.unlink()
    change_database(tmp_path, "UPDATE alembic_version SET version_num = '9999'")
    quill("backup", str(file))
    refused = quill("restore", str(file), QUILL_DATA_DIR=str(tmp_path / "elsewhere"))
    assert refused.returncode == 1
    assert "newer Quill" in refused.stderr


def test_database_elsewhere_is_not_ours_to_back_up(quill: Run, tmp_path: Path) -> None:
    elsewhere = {"QUILL_DATABASE_URL": "postgresql+asyncpg://quill@127.0.0.1:9/quill"}
    for words in (("backup", str(tmp_path / "x")), ("restore", str(tmp_path / "x"))):
        refused = quill(*words, **elsewhere)
        assert refused.returncode == 1
        assert "its own tools" in refused.stderr


def test_backup_without_an_installation_says_so(quill: Run, tmp_path: Path) -> None:
    assert "There is no database" in quill("backup", str(tmp_path / "x")).stderr
    assert "There is no file" in quill("restore", str(tmp_path / "x")).stderr
