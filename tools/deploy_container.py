"""Rules for the Containerfile, its ignore files and the Caddyfile."""

import json
import re
from collections.abc import Iterator
from typing import NamedTuple

from tools.deployment import Deployment


class Instruction(NamedTuple):
    """One instruction of a Containerfile, its continued lines joined."""

    word: str
    rest: str


def check(deployment: Deployment) -> Iterator[str]:
    """Yield what is wrong with how the image is made and what stands before it."""
    stages = list(_stages(deployment.read("Containerfile")))
    names = {found[1] for stage in stages if (found := re.search(r" AS (\w+)$", stage[0].rest))}
    for stage in stages:
        yield from deployment.check_image(stage[0].rest.split(" ")[0], "Containerfile")
        yield from _check_copies(deployment, stage, names)
    yield from _check_final(deployment, {instruction.word: instruction.rest for instruction in stages[-1]})
    yield from _check_ignored(deployment)
    yield from _check_caddy(deployment)


def _stages(text: str) -> Iterator[list[Instruction]]:
    stage: list[Instruction] = []
    joined = re.sub(r"\\\n\s*", "", "\n".join(line for line in text.splitlines() if not line.startswith("#")))
    for line in filter(None, joined.splitlines()):
        word, _, rest = line.partition(" ")
        if word == "FROM" and stage:
            yield stage
            stage = []
        stage.append(Instruction(word, rest.strip()))
    yield stage


def _check_copies(deployment: Deployment, stage: list[Instruction], names: set[str]) -> Iterator[str]:
    for word, rest in stage:
        if word == "ADD":
            yield "Containerfile: ADD fetches and unpacks; COPY what is meant"
        if word != "COPY":
            continue
        if found := re.match(r"--from=(\w+) ", rest):
            if found[1] not in names:
                yield f"Containerfile: there is no stage {found[1]}"
        else:
            yield from _check_sources(deployment, rest.split()[:-1])


def _check_sources(deployment: Deployment, sources: list[str]) -> Iterator[str]:
    for source in sources:
        if not (deployment.root / source).exists():
            yield f"Containerfile: there is no {source} to copy"
        elif f"!{source.split('/')[0]}" not in deployment.read(".containerignore").splitlines():
            yield f"Containerfile: {source} is copied and ignored"


def _check_final(deployment: Deployment, last: dict[str, str]) -> Iterator[str]:
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", last.get("USER", "")):
        yield "Containerfile: the last stage needs a USER by number that is not root"
    if "HEALTHCHECK" not in last:
        yield "Containerfile: there is no HEALTHCHECK"
    yield from deployment.check_routes(last.get("HEALTHCHECK", ""), "Containerfile")
    yield from deployment.check_settings(re.findall(r"\b(QUILL_\w+)=", last.get("ENV", "")), "Containerfile")
    if json.loads(last.get("ENTRYPOINT", "[]")) != ["quill"]:
        yield "Containerfile: the entry point is not quill"
    yield from deployment.check_command(json.loads(last.get("CMD", "[]")), "Containerfile")


def _check_ignored(deployment: Deployment) -> Iterator[str]:
    if deployment.read(".containerignore") != deployment.read(".dockerignore"):
        yield ".dockerignore: differs from .containerignore"
    if "*" not in deployment.read(".containerignore").splitlines():
        yield ".containerignore: does not begin by leaving everything out"


def _check_caddy(deployment: Deployment) -> Iterator[str]:
    text = deployment.read("deploy/Caddyfile")
    yield from deployment.check_routes(text, "deploy/Caddyfile")
    found = re.search(r"reverse_proxy (\w+):(\d+)", text)
    services = deployment.load("deploy/compose.yaml")["services"]
    if found is None or found[1] not in services or found[2] not in services[found[1]]["command"]:
        yield "deploy/Caddyfile: passes requests on to where nothing listens"
    if "flush_interval -1" not in text:
        yield "deploy/Caddyfile: would hold live updates back"
    if "request>uri delete" not in text:
        yield "deploy/Caddyfile: would log addresses, which name patients"
