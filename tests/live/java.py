"""Java: finding one that is new enough, and building a small Maven project once."""

import hashlib
import os
import re
import shutil
import signal
import subprocess
from dataclasses import dataclass
from pathlib import Path

from tests.live.processes import Process, Unavailable

_BUILD_PATIENCE = 20 * 60  # a first build fetches a few hundred megabytes


@dataclass(frozen=True, slots=True)
class JavaHome:
    """A Java development kit.

    Attributes:
        path: its directory.
        version: its feature release: 17, 21, 25.
    """

    path: Path
    version: int


def find_java(minimum: int) -> JavaHome:
    """Return the oldest development kit that is new enough.

    Raises:
        Unavailable: there is none.
    """
    found = {home for place in _places() if (home := _look_at(place)) is not None}
    fitting = sorted((home for home in found if home.version >= minimum), key=lambda home: (home.version, home.path))
    if not fitting:
        others = ", ".join(str(version) for version in sorted({home.version for home in found})) or "none"
        raise Unavailable(f"needs a Java development kit {minimum} or newer (found: {others})")
    return fitting[0]


class Build:
    """The build of a Maven project into its own ``target``, which is kept: the next time there is nothing to do.

    Args:
        project: the directory of the ``pom.xml``.
        directory: for the build's log.
        java: what compiles it.
    """

    def __init__(self, project: Path, directory: Path, java: JavaHome) -> None:
        self._project = project
        self._directory = directory
        self._java = java
        self._process: Process | None = None

    @property
    def classpath(self) -> str:
        """Return what ``java -cp`` needs to run it."""
        return f"{self._project / 'target' / 'classes'}:{self._project / 'target' / 'dependency'}/*"

    def begin(self) -> None:
        """Begin to build, unless it is built already.

        Raises:
            Unavailable: there is no Maven.
        """
        if self._stamp.exists() and self._stamp.read_text() == self._sources():
            return
        maven = shutil.which("mvn")
        if maven is None:
            raise Unavailable("needs Maven, and there is no mvn")
        shutil.rmtree(self._project / "target", ignore_errors=True)
        self._directory.mkdir()
        goals = ["compile", "dependency:copy-dependencies", "-DincludeScope=runtime"]
        self._process = Process(
            [maven, "--batch-mode", "--quiet", "--file", str(self._project / "pom.xml"), *goals],
            self._directory,
            environment={"JAVA_HOME": str(self._java.path)},
        )
        self._process.start()

    def finish(self) -> None:
        """Wait until it is built.

        Raises:
            Unavailable: Maven could not fetch what it needs.
            RuntimeError: our own sources do not compile.
        """
        if self._process is None:
            return
        try:
            status = self._process.wait(_BUILD_PATIENCE)
        except subprocess.TimeoutExpired as error:
            self.abandon()
            raise Unavailable(f"Maven was not done after {_BUILD_PATIENCE // 60} minutes") from error
        if status != 0:
            told = self._process.last_words(lines=200)
            if "COMPILATION ERROR" in told:
                raise RuntimeError(told)
            first = next((line for line in told.splitlines() if line.startswith("[ERROR]")), "").removeprefix(
                "[ERROR] "
            )
            raise Unavailable(f"Maven could not build it: {first[:300]}")
        self._stamp.write_text(self._sources())

    def abandon(self) -> None:
        """End a build that still runs."""
        if self._process is not None:
            self._process.end(signal.SIGTERM, patience=10)

    @property
    def _stamp(self) -> Path:
        return self._project / "target" / "built-from"

    def _sources(self) -> str:
        files = [self._project / "pom.xml", *sorted((self._project / "src").rglob("*.*"))]
        return hashlib.sha256(b"\0".join(file.read_bytes() for file in files if file.is_file())).hexdigest()


def _places() -> list[Path]:
    places = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    if (compiler := shutil.which("javac")) is not None:
        places.append(Path(compiler).resolve().parent.parent)
    for parent in ("/usr/lib/jvm", "/opt", "/Library/Java/JavaVirtualMachines"):
        places.extend(sorted(Path(parent).glob("*")))
        places.extend(sorted(Path(parent).glob("*/Contents/Home")))
    return places


def _look_at(place: Path) -> JavaHome | None:
    place = place.resolve()
    release = place / "release"
    if not (place / "bin" / "javac").exists() or not release.exists():
        return None
    told = re.search(r'^JAVA_VERSION="(\d+)', release.read_text(), re.MULTILINE)
    return JavaHome(place, int(told[1])) if told else None
