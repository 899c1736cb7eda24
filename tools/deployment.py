"""What the files for containers are held against: the program's settings, commands, routes and version."""

import json
import re
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import yaml
from typer.testing import CliRunner

from quill.cli.commands import app
from quill.cli.serving import DRAIN_SECONDS
from quill.settings import Settings

PIN = re.compile(r"(?P<name>[\w./-]+):(?P<tag>[\w][\w.-]*)(?:@sha256:[0-9a-f]{64})?")
SECONDS_AFTER_DRAIN = 15
"""For what is in hand after the last answer: deliveries (5 s) and the last audit seal (10 s)."""

Yaml = Mapping[str, Any]


@dataclass(frozen=True)
class Deployment:
    """The files of a repository, and what they must agree with.

    Attributes:
        root: of the repository.
    """

    root: Path

    @property
    def settings(self) -> set[str]:
        """Return the name of every setting."""
        return {f"QUILL_{name.upper()}" for name in Settings.model_fields}

    @property
    def drain_seconds(self) -> int:
        """Return how long a server that stops needs at most."""
        return DRAIN_SECONDS + SECONDS_AFTER_DRAIN

    @cached_property
    def version(self) -> str:
        """Return the project's version, which its image is named after."""
        return str(tomllib.loads((self.root / "pyproject.toml").read_text())["project"]["version"])

    @cached_property
    def routes(self) -> set[str]:
        """Return every path that answers GET."""
        document = json.loads((self.root / "docs/reference/openapi.json").read_text())
        return {path for path, item in document["paths"].items() if "get" in item}

    def is_command(self, words: Sequence[str]) -> bool:
        """Tell whether ``quill …`` knows these words and options."""
        return CliRunner().invoke(app, [*words, "--help"]).exit_code == 0

    def read(self, path: str) -> str:
        """Return the text of a file."""
        return (self.root / path).read_text()

    def load(self, path: str) -> Yaml:
        """Return the one YAML document of a file."""
        loaded: Yaml = yaml.safe_load(self.read(path))
        return loaded

    def check_image(self, image: str, place: str) -> Iterator[str]:
        """Yield what is wrong with an image's name: no fixed tag, or another version of Quill than this one."""
        found = PIN.fullmatch(image)
        if found is None or found["tag"] == "latest":
            yield f"{place}: the image {image} is not pinned to a tag"
        elif found["name"].rsplit("/", 1)[-1] == "quill" and found["tag"] != self.version:
            yield f"{place}: the image is {found['tag']}, the project {self.version}"

    def check_settings(self, names: Iterator[str] | Sequence[str], place: str) -> Iterator[str]:
        """Yield the names beginning with ``QUILL_`` that are no settings."""
        for name in names:
            if name.startswith("QUILL_") and name not in self.settings:
                yield f"{place}: there is no setting {name}"

    def check_command(self, words: Sequence[str], place: str) -> Iterator[str]:
        """Yield a sentence when the program does not know these words."""
        if not self.is_command(words):
            yield f"{place}: `quill {' '.join(words)}` is no command"

    def check_routes(self, text: str, place: str) -> Iterator[str]:
        """Yield the paths of the API a text names that do not answer GET."""
        for path in re.findall(r"/api/[a-z/_-]+", text):
            if path not in self.routes:
                yield f"{place}: there is no route {path}"
