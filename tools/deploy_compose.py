"""Rules for ``deploy/compose.yaml`` and the example of its environment file."""

import re
from collections.abc import Iterator
from typing import Any

from tools.deployment import Deployment, Yaml

FILE = "deploy/compose.yaml"
EXAMPLE = "deploy/example.env"
INSIDE = "inside"


def check(deployment: Deployment) -> Iterator[str]:
    """Yield what is wrong with the services, and where the example says something else than they ask."""
    compose = deployment.load(FILE)
    for name, service in compose["services"].items():
        place = f"{FILE}: {name}"
        yield from deployment.check_image(service.get("image", ""), place)
        yield from _check_hardened(service, place)
        yield from _check_health(deployment, service, place)
        yield from _check_neighbours(compose, name, place)
        yield from _check_volumes(deployment, compose, service, place)
        yield from deployment.check_settings(list(service.get("environment", {})), place)
        if "build" in service:
            yield from deployment.check_command(service["command"], place)
    if compose["networks"].get(INSIDE) != {"internal": True}:
        yield f"{FILE}: the network {INSIDE} leads outside"
    yield from _check_stopping(deployment, compose)
    yield from _check_example(deployment)


def _check_hardened(service: Yaml, place: str) -> Iterator[str]:
    wanted: dict[str, Any] = {
        "read_only": True,
        "cap_drop": ["ALL"],
        "security_opt": ["no-new-privileges:true"],
    }
    for key, value in wanted.items():
        if service.get(key) != value:
            yield f"{place}: {key} must be {value}"
    if "privileged" in service or set(service.get("cap_add", [])) - {"NET_BIND_SERVICE"}:
        yield f"{place}: may do more than it needs"
    if "mem_limit" not in service:
        yield f"{place}: there is no mem_limit"
    user = str(service.get("user", ""))
    if not re.fullmatch(r"[1-9]\d*:[1-9]\d*", user) and not service.get("x-runs-as-root"):
        yield f"{place}: runs as root, and x-runs-as-root does not say why"


def _check_health(deployment: Deployment, service: Yaml, place: str) -> Iterator[str]:
    if ("healthcheck" in service) == ("x-without-healthcheck" in service):
        yield f"{place}: needs a healthcheck, or the reason in x-without-healthcheck"
    yield from deployment.check_routes(str(service.get("healthcheck", "")), place)


def _check_neighbours(compose: Yaml, name: str, place: str) -> Iterator[str]:
    services, service = compose["services"], compose["services"][name]
    networks = service.get("networks", [])
    if not networks or set(networks) - set(compose["networks"]):
        yield f"{place}: is on no network, or on one that is not there"
    if service.get("ports") and INSIDE in networks:
        yield f"{place}: is reached from outside and sits beside the databases"
    for other, wanted in service.get("depends_on", {}).items():
        if other not in services:
            yield f"{place}: depends on {other}, which is not there"
        elif wanted["condition"] == "service_healthy" and "healthcheck" not in services[other]:
            yield f"{place}: waits for the health of {other}, which tells none"
        elif wanted["condition"] == "service_completed_successfully" and services[other].get("restart") != "no":
            yield f"{place}: waits for the end of {other}, which is started again"


def _check_volumes(deployment: Deployment, compose: Yaml, service: Yaml, place: str) -> Iterator[str]:
    for volume in service.get("volumes", []):
        source, _, target = volume.partition(":")
        if source.startswith("."):
            if not (deployment.root / "deploy" / source).exists():
                yield f"{place}: there is no {source} to mount"
            if not target.endswith(":ro"):
                yield f"{place}: {source} of this repository could be written"
        elif source not in compose["volumes"]:
            yield f"{place}: the volume {source} is not named"


def _check_stopping(deployment: Deployment, compose: Yaml) -> Iterator[str]:
    for name, service in compose["services"].items():
        if "serve" in service.get("command", []):
            grace = int(str(service.get("stop_grace_period", "10s")).removesuffix("s"))
            if grace < deployment.drain_seconds:
                yield f"{FILE}: {name} is killed after {grace} s; it may need {deployment.drain_seconds} s to stop"


def _check_example(deployment: Deployment) -> Iterator[str]:
    lines = [line for line in deployment.read(EXAMPLE).splitlines() if line and not line.startswith("#")]
    given = {line.partition("=")[0] for line in lines}
    asked = set(re.findall(r"\$\{(\w+)", deployment.read(FILE)))
    for name in sorted(asked ^ given):
        yield f"{EXAMPLE}: {name} is {'missing' if name in asked else 'asked for by nobody'}"
    for line in lines:
        if not line.endswith("="):
            yield f"{EXAMPLE}: {line.partition('=')[0]} holds a value; an example that works is a secret everybody has"
