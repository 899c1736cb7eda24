"""The files for containers and clusters agree with the program, and the check that says so is not blind."""

import shutil
from pathlib import Path

import pytest
from tools.check_deploy import ROOT, problems

pytestmark = pytest.mark.thorough

COPIED = ("deploy", "Containerfile", ".containerignore", ".dockerignore", "pyproject.toml")
LINKED = ("src", "requirements", "docs", "README.md", "LICENSE")


@pytest.fixture(scope="module")
def untouched() -> list[str]:
    return problems(ROOT)


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """Return a copy of what is checked."""
    for name in COPIED:
        (shutil.copytree if (ROOT / name).is_dir() else shutil.copy)(ROOT / name, tmp_path / name)
    for name in LINKED:
        (tmp_path / name).symlink_to(ROOT / name)
    return tmp_path


def test_files_agree_with_the_program(untouched: list[str]) -> None:
    assert untouched == []


COMPOSE, CLUSTER = "deploy/compose.yaml", "deploy/kubernetes"


@pytest.mark.parametrize(
    ("file", "old", "new", "sentence"),
    [
        ("Containerfile", "python:3.12-slim-bookworm\nRUN", "python:latest\nRUN", "not pinned"),
        ("Containerfile", "USER 10001:10001", "USER root", "not root"),
        ("Containerfile", "COPY src src", "COPY sauce src", "there is no sauce"),
        ("Containerfile", "--from=build /opt", "--from=bild /opt", "no stage bild"),
        ("Containerfile", "COPY src src", "ADD src src", "ADD fetches"),
        ("Containerfile", "api/health/live", "api/health/alive", "no route /api/health/alive"),
        ("Containerfile", '"--port"', '"--porte"', "is no command"),
        ("Containerfile", "QUILL_DATA_DIR=/data", "QUILL_DATA_DIRECTORY=/data", "no setting QUILL_DATA_DIRECTORY"),
        (".containerignore", "!src", "!sauce", "src is copied and ignored"),
        (".dockerignore", "!src", "!sauce", "differs"),
        ("deploy/Caddyfile", "quill:8000", "quill:8001", "where nothing listens"),
        ("deploy/Caddyfile", "health/ready", "health/redy", "no route"),
        ("deploy/Caddyfile", "flush_interval -1", "", "hold live updates back"),
        ("deploy/Caddyfile", "request>uri delete", "", "name patients"),
        ("deploy/example.env", "REDIS_PASSWORD=", "REDIS_PASSWORD=secret", "holds a value"),
        ("deploy/example.env", "REDIS_PASSWORD=", "", "REDIS_PASSWORD is missing"),
        ("deploy/example.env", "REDIS_PASSWORD=", "REDIS_PASSWORD=\nMORE=", "MORE is asked for by nobody"),
        (COMPOSE, "  read_only: true\n", "", "read_only must be True"),
        (COMPOSE, "  cap_drop: [ALL]\n", "", "cap_drop must be"),
        (COMPOSE, 'user: "10001:10001"', 'user: "0:0"', "runs as root"),
        (COMPOSE, "NET_BIND_SERVICE", "SYS_ADMIN", "more than it needs"),
        (COMPOSE, "postgres:16.9-bookworm", "postgres", "not pinned"),
        (COMPOSE, "image: quill:0.1.0", "image: quill:0.0.9", "the image is 0.0.9"),
        (COMPOSE, "    mem_limit: 3g\n", "", "hapi: there is no mem_limit"),
        (COMPOSE, "QUILL_FHIR_URL", "QUILL_FIRE_URL", "no setting QUILL_FIRE_URL"),
        (COMPOSE, "command: [migrate]", "command: [emigrate]", "is no command"),
        (COMPOSE, '    restart: "no"\n', "", "which is started again"),
        (COMPOSE, "stop_grace_period: 45s", "stop_grace_period: 15s", "is killed after 15 s"),
        (COMPOSE, "    internal: true\n", "    driver: bridge\n", "leads outside"),
        (COMPOSE, "networks: [outside]\n    mem", "networks: [inside]\n    mem", "beside the databases"),
        (COMPOSE, "    x-without-healthcheck: \"runs once and ends\"\n", "", "needs a healthcheck"),
        (COMPOSE, "./Caddyfile:", "./Cadyfile:", "there is no ./Cadyfile"),
        (COMPOSE, "redis: {condition", "rediss: {condition", "depends on rediss"),
        (COMPOSE, "      hapi: {condition: service_started}", "      hapi: {condition: service_healthy}", "tells none"),
        (COMPOSE, "  caddy-config:\n", "", "caddy-config is not named"),
        (f"{CLUSTER}/deployment.yaml", "runAsNonRoot: true", "runAsNonRoot: false", "securityContext must hold"),
        (f"{CLUSTER}/deployment.yaml", "readOnlyRootFilesystem: true", "readOnlyRootFilesystem: false", "must hold"),
        (f"{CLUSTER}/deployment.yaml", "health/ready", "health/redy", "no route"),
        (f"{CLUSTER}/deployment.yaml", "GracePeriodSeconds: 45", "GracePeriodSeconds: 30", "40 s"),
        (f"{CLUSTER}/deployment.yaml", "quill:0.1.0", "quill:0.2.0", "the image is 0.2.0"),
        (f"{CLUSTER}/deployment.yaml", "containerPort: 8000", "containerPort: 8001", "does not listen"),
        (f"{CLUSTER}/deployment.yaml", "containerPort: 9464", "containerPort: 9465", "QUILL_METRICS_PORT"),
        (f"{CLUSTER}/deployment.yaml", "limits: {memory: 1Gi}", "limits: {}", "no limit of memory"),
        (f"{CLUSTER}/deployment.yaml", "mountPath: /anchors", "mountPath: /opt", "/opt is mounted"),
        (f"{CLUSTER}/deployment.yaml", "claimName: quill-anchors", "claimName: anchors", "no claim anchors"),
        (f"{CLUSTER}/migrate.yaml", "secretRef: {name: quill}", "secretRef: {name: squill}", "no Secret squill"),
        (f"{CLUSTER}/migrate.yaml", "AccountToken: false", "AccountToken: true", "a token of the cluster"),
        (f"{CLUSTER}/audit.yaml", "args: [audit, verify]", "args: [audit, very]", "is no command"),
        (f"{CLUSTER}/config.yaml", "QUILL_FHIR_URL", "QUILL_FIRE_URL", "no setting QUILL_FIRE_URL"),
        (f"{CLUSTER}/secret.example.yaml", 'QUILL_SECRET_KEY: ""', "QUILL_SECRET_KEY: x", "holds a value"),
        (f"{CLUSTER}/disruption.yaml", "minAvailable: 1", "minAvailable: 2", "no node be emptied"),
        (f"{CLUSTER}/disruption.yaml", "name: quill}", "name: squill}", "selects no pod"),
        (f"{CLUSTER}/service.yaml", "targetPort: http", "targetPort: web", "a port that is not there"),
        (f"{CLUSTER}/ingress.yaml", 'proxy-buffering: "off"', 'proxy-buffering: "on"', "hold live updates back"),
        (f"{CLUSTER}/ingress.yaml", "                name: quill", "                name: squill", "a Service that"),
        (f"{CLUSTER}/kustomization.yaml", "  - audit.yaml\n", "", "audit.yaml is not both"),
    ],
)  # fmt: skip
def test_check_finds_a_planted_fault(
    root: Path, untouched: list[str], file: str, old: str, new: str, sentence: str
) -> None:
    text = (root / file).read_text()
    assert old in text
    (root / file).write_text(text.replace(old, new, 1))
    found = [problem for problem in problems(root) if problem not in untouched]
    assert [problem for problem in found if sentence in problem], found
