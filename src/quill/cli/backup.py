"""Backing up an installation on the embedded database into one file, and restoring it elsewhere.

The file is a tar archive: a manifest with each part's size and SHA-256, a consistent copy of the database, the secrets
made on first start and the anchors of the audit trail. It holds everything, so it is as secret as the clinic itself.
"""

import hashlib
import io
import json
import os
import secrets
import shutil
import sqlite3
import tarfile
import tempfile
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Any

import typer

from quill import published
from quill.audit.verify import AuditReport, verify
from quill.cli.console import fail, read_settings, run
from quill.kit import clock
from quill.kit.database import Database
from quill.migrations.state import SchemaState, sentence_about, state_of
from quill.settings import Settings

FORMAT = "quill-backup-1"
MANIFEST = "manifest.json"
DATABASE = "quill.sqlite3"
SECRETS = ("secret.key", "vapid.key")
ANCHORS = "audit-anchors.log"
PARTS = (ANCHORS, *SECRETS, DATABASE)
"""In the order they are put in place: the database last, so that an installation cut short in between is none."""
LARGEST_MANIFEST_BYTES = 64 * 1024
CHUNK_BYTES = 1024 * 1024


@dataclass(frozen=True, slots=True)
class Part:
    """One file of a backup, as the manifest states it."""

    name: str
    size: int
    sha256: str


class BackupUnreadable(ValueError):
    """The file is no backup, or not whole; the message says what is wrong."""


def backup(file: Path) -> None:
    """Write a backup of the embedded installation, while it runs or not, and print what is in it.

    Raises:
        Exit: 1, the database is elsewhere or not there, or the file exists or cannot be written.
    """
    settings = read_settings()
    source = _embedded(settings)
    if not source.exists():
        raise fail(f"There is no database in {settings.data_dir}.")
    if file.exists():
        raise fail(f"{file} is there already.")
    try:
        with tempfile.TemporaryDirectory(prefix=".quill-backup-", dir=file.absolute().parent) as scratch:
            parts = _gather(settings, source, Path(scratch))
            draft = Path(scratch) / f"draft.{secrets.token_hex(8)}"
            _pack(Path(scratch), parts, draft)
            # link() fails where the name was taken meanwhile; a backup never replaces another.
            os.link(draft, file)
        _sync_directory(file.absolute().parent)
    except (OSError, sqlite3.Error) as error:
        raise fail(f"The backup could not be written ({type(error).__name__}).") from error
    typer.echo(f"{file}: {', '.join(f'{part.name} ({part.size} bytes)' for part in parts)}")


def restore(file: Path) -> None:
    """Restore a backup into an empty data directory and check it: checksums, tables, audit trail.

    Raises:
        Exit: 1, there is an installation already, or the backup is not whole; nothing was changed then.
    """
    settings = read_settings()
    _embedded(settings)
    targets = {name: settings.data_dir / name for name in PARTS} | {ANCHORS: settings.resolved_anchor_file}
    if taken := [path for path in targets.values() if path.exists()]:
        raise fail(f"{taken[0]} is there already; restore into an empty directory, or move it away.")
    try:
        settings.data_dir.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=".quill-restore-", dir=settings.data_dir) as scratch:
            parts = _unpack(file, Path(scratch))
            sentence = _check(Path(scratch))
            for part in sorted(parts, key=lambda part: PARTS.index(part.name)):
                shutil.move(Path(scratch) / part.name, targets[part.name])
                targets[part.name].chmod(0o600)
        _sync_directory(settings.data_dir)
    except BackupUnreadable as error:
        raise fail(str(error)) from None
    except OSError as error:
        raise fail(f"The backup could not be restored ({error.strerror}).") from error
    typer.echo(f"Restored into {settings.data_dir}: {', '.join(part.name for part in parts)}. {sentence}")


def _embedded(settings: Settings) -> Path:
    if settings.database_url is not None:
        raise fail("The database is elsewhere (QUILL_DATABASE_URL): back it up with its own tools, as docs/how-to say.")
    return settings.data_dir / DATABASE


def _gather(settings: Settings, source: Path, scratch: Path) -> list[Part]:
    # The anchors go first: copied after the database, they could name seals its copy does not hold.
    if settings.resolved_anchor_file.exists():
        shutil.copyfile(settings.resolved_anchor_file, scratch / ANCHORS)
    for name in SECRETS:
        if (settings.data_dir / name).exists():
            shutil.copyfile(settings.data_dir / name, scratch / name)
    _copy_database(source, scratch / DATABASE)
    return [_describe(scratch / name) for name in PARTS if (scratch / name).exists()]


def _copy_database(source: Path, target: Path) -> None:
    """Copy one committed state whole; writers go on meanwhile, since the journal is written ahead."""
    with (
        closing(sqlite3.connect(f"file:{source.absolute()}?mode=ro", uri=True)) as there,
        closing(sqlite3.connect(target)) as here,
    ):
        there.backup(here)
        # One file stands by itself only without a journal beside it.
        here.execute("PRAGMA journal_mode=DELETE")


def _describe(path: Path) -> Part:
    with path.open("rb") as file:
        return Part(path.name, path.stat().st_size, hashlib.file_digest(file, "sha256").hexdigest())


def _pack(scratch: Path, parts: list[Part], draft: Path) -> None:
    manifest = {
        "format": FORMAT,
        "version": published.VERSION,
        "made_at": clock.rfc3339(clock.now()),
        "parts": [{"name": part.name, "size": part.size, "sha256": part.sha256} for part in parts],
    }
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    with os.fdopen(descriptor, "wb") as file:
        with tarfile.open(fileobj=file, mode="w:gz", compresslevel=3) as archive:
            text = json.dumps(manifest, indent=1).encode()
            _add(archive, MANIFEST, len(text), io.BytesIO(text))
            for part in parts:
                with (scratch / part.name).open("rb") as content:
                    _add(archive, part.name, part.size, content)
        file.flush()
        os.fsync(file.fileno())


def _add(archive: tarfile.TarFile, name: str, size: int, content: IO[bytes]) -> None:
    # Nothing of the machine: no owner, no path.
    entry = tarfile.TarInfo(name)
    entry.size, entry.mode, entry.mtime = size, 0o600, int(clock.now().timestamp())
    archive.addfile(entry, content)


def _unpack(file: Path, scratch: Path) -> list[Part]:
    with _reading(file) as archive:
        parts = _manifest(archive)
        for part in parts:
            _extract(archive, part, scratch / part.name)
    return parts


@contextmanager
def _reading(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:gz") as archive:
            yield archive
    except (tarfile.TarError, EOFError, OSError) as error:
        if isinstance(error, FileNotFoundError):
            raise BackupUnreadable(f"There is no file {file}.") from error
        raise BackupUnreadable(f"{file} is not a whole backup.") from error


def _manifest(archive: tarfile.TarFile) -> list[Part]:
    try:
        found: dict[str, Any] = json.loads(_opened(archive, MANIFEST).read(LARGEST_MANIFEST_BYTES))
        parts = [Part(entry["name"], int(entry["size"]), entry["sha256"]) for entry in found["parts"]]
        is_known = found["format"] == FORMAT
    except (ValueError, KeyError, TypeError) as error:
        raise BackupUnreadable("The backup's manifest cannot be read.") from error
    names = [part.name for part in parts]
    # Names are ours alone, so none leads out of the directory.
    if not is_known or DATABASE not in names or set(names) - set(PARTS) or len(set(names)) < len(names):
        raise BackupUnreadable("The backup's manifest cannot be read.")
    return parts


def _extract(archive: tarfile.TarFile, part: Part, target: Path) -> None:
    digest, size = hashlib.sha256(), 0
    with _opened(archive, part.name) as content, target.open("xb") as file:
        os.fchmod(file.fileno(), 0o600)
        while chunk := content.read(CHUNK_BYTES):
            digest.update(chunk)
            size += len(chunk)
            file.write(chunk)
        file.flush()
        os.fsync(file.fileno())
    if (size, digest.hexdigest()) != (part.size, part.sha256):
        raise BackupUnreadable(f"{part.name} in the backup is not what was written.")


def _opened(archive: tarfile.TarFile, name: str) -> IO[bytes]:
    try:
        content = archive.extractfile(name)
    except KeyError:
        content = None
    if content is None:
        raise BackupUnreadable(f"{name} is missing in the backup.")
    return content


def _check(scratch: Path) -> str:
    """Return a sentence about what was found to be well.

    Raises:
        BackupUnreadable: the database or the trail in it is not.
    """
    with closing(sqlite3.connect(scratch / DATABASE)) as connection:
        try:
            problem = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        except sqlite3.DatabaseError as error:
            raise BackupUnreadable("The database in the backup is damaged.") from error
    if problem != "ok":
        raise BackupUnreadable("The database in the backup is damaged.")
    anchors = scratch / ANCHORS
    lines = anchors.read_text().splitlines() if anchors.exists() else []
    state, report = run(lambda: _examine(scratch.absolute(), lines))
    if report is None:
        if state is SchemaState.BEHIND:
            return "Its tables are of an earlier version: run `quill migrate`, then `quill audit verify`."
        raise BackupUnreadable(sentence_about(state))
    if not report.is_intact:
        raise BackupUnreadable(f"The audit trail in the backup was changed: {report.problem}")
    return f"The audit trail is intact ({report.event_count} events, {report.seal_count} seals)."


async def _examine(scratch: Path, lines: list[str]) -> tuple[SchemaState, AuditReport | None]:
    database = Database(f"sqlite+aiosqlite:///{scratch}/{DATABASE}")
    try:
        state = await state_of(database)
        if state is not SchemaState.CURRENT:
            return state, None
        return state, await verify(database, lines)
    finally:
        await database.dispose()


def _sync_directory(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
