"""Rules for ``deploy/kubernetes``."""

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from tools.deployment import Deployment, Yaml

FOLDER = "deploy/kubernetes"
EXAMPLE = "secret.example.yaml"
WRITABLE = {"/data", "/tmp", "/anchors"}  # noqa: S108 - places in a container
POD_SECURITY = {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}}
CONTAINER_SECURITY = {
    "allowPrivilegeEscalation": False,
    "readOnlyRootFilesystem": True,
    "capabilities": {"drop": ["ALL"]},
}


@dataclass(frozen=True)
class Cluster:
    """Every object, by kind and name."""

    deployment: Deployment
    objects: dict[tuple[str, str], Yaml]

    def of(self, kind: str) -> Iterator[Yaml]:
        """Yield the objects of a kind."""
        return (found for (its_kind, _), found in self.objects.items() if its_kind == kind)

    def has(self, kind: str, name: str) -> bool:
        """Tell whether there is such an object."""
        return (kind, name) in self.objects

    def pods(self) -> Iterator[tuple[str, Yaml]]:
        """Yield the place and the template of every pod."""
        for (kind, name), found in self.objects.items():
            spec = found.get("spec", {}).get("jobTemplate", found).get("spec", {})
            if "template" in spec:
                yield f"{FOLDER}: {kind} {name}", spec["template"]


def check(deployment: Deployment) -> Iterator[str]:
    """Yield what is wrong with the objects, each by itself and with one another."""
    files = sorted(path.name for path in (deployment.root / FOLDER).glob("*.yaml"))
    listed = deployment.load(f"{FOLDER}/kustomization.yaml")["resources"]
    for name in sorted({*files} ^ {*listed, EXAMPLE, "kustomization.yaml"}):
        yield f"{FOLDER}: {name} is not both there and in kustomization.yaml"
    loaded = [deployment.load(f"{FOLDER}/{name}") for name in files if name != "kustomization.yaml"]
    cluster = Cluster(deployment, {(found["kind"], found["metadata"]["name"]): found for found in loaded})
    for place, template in cluster.pods():
        yield from _check_pod(cluster, template, place)
    yield from _check_settings(cluster)
    yield from _check_serving(cluster)
    yield from _check_ways_in(cluster)


def _check_pod(cluster: Cluster, template: Yaml, place: str) -> Iterator[str]:
    spec = template["spec"]
    security = spec.get("securityContext", {})
    if not POD_SECURITY.items() <= security.items() or not security.get("runAsUser"):
        yield f"{place}: the pod's securityContext must hold {POD_SECURITY} and a runAsUser that is not root"
    if spec.get("automountServiceAccountToken") is not False:
        yield f"{place}: gets a token of the cluster, which it does not need"
    volumes = {volume["name"]: volume for volume in spec.get("volumes", [])}
    for volume in volumes.values():
        claim = volume.get("persistentVolumeClaim", {}).get("claimName")
        if claim and not cluster.has("PersistentVolumeClaim", claim):
            yield f"{place}: there is no claim {claim}"
    for container in spec["containers"]:
        yield from _check_container(cluster, container, volumes, place)


def _check_container(cluster: Cluster, container: Yaml, volumes: Yaml, place: str) -> Iterator[str]:
    deployment = cluster.deployment
    yield from deployment.check_image(container["image"], place)
    yield from deployment.check_command(container["args"], place)
    if not CONTAINER_SECURITY.items() <= container.get("securityContext", {}).items():
        yield f"{place}: the container's securityContext must hold {CONTAINER_SECURITY}"
    if "memory" not in container.get("resources", {}).get("limits", {}):
        yield f"{place}: there is no limit of memory"
    for mount in container.get("volumeMounts", []):
        if mount["name"] not in volumes or mount["mountPath"] not in WRITABLE:
            yield f"{place}: {mount['mountPath']} is mounted from nowhere, or needs not be written"
    for source in container.get("envFrom", []):
        for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
            if key in source and not cluster.has(kind, source[key]["name"]):
                yield f"{place}: there is no {kind} {source[key]['name']}"
    yield from _check_probes(deployment, container, place)


def _check_probes(deployment: Deployment, container: Yaml, place: str) -> Iterator[str]:
    ports = {port["name"] for port in container.get("ports", [])}
    for name in ("startupProbe", "livenessProbe", "readinessProbe"):
        probe = container.get(name)
        if probe is None:
            if ports:
                yield f"{place}: there is no {name}"
            continue
        if probe["httpGet"]["port"] not in ports:
            yield f"{place}: {name} asks at a port that is not there"
        yield from deployment.check_routes(probe["httpGet"]["path"], place)


def _check_settings(cluster: Cluster) -> Iterator[str]:
    for config in cluster.of("ConfigMap"):
        yield from cluster.deployment.check_settings(list(config["data"]), f"{FOLDER}: ConfigMap")
    for secret in cluster.of("Secret"):
        yield from cluster.deployment.check_settings(list(secret["stringData"]), f"{FOLDER}: Secret")
        if any(secret["stringData"].values()):
            yield f"{FOLDER}/{EXAMPLE}: holds a value; an example that works is a secret everybody has"


def _check_serving(cluster: Cluster) -> Iterator[str]:
    for found in cluster.of("Deployment"):
        place, spec = f"{FOLDER}: Deployment", found["spec"]
        pod = spec["template"]["spec"]
        (container,) = pod["containers"]
        pause = container.get("lifecycle", {}).get("preStop", {}).get("sleep", {}).get("seconds", 0)
        needed = pause + cluster.deployment.drain_seconds
        if pause < 1 or pod.get("terminationGracePeriodSeconds", 30) < needed:
            yield f"{place}: must let go for a moment first, and be given {needed} s to stop"
        ports = {port["name"]: str(port["containerPort"]) for port in container["ports"]}
        if ports.get("http") not in container["args"]:
            yield f"{place}: does not listen on the port it names"
        metrics = {config["data"].get("QUILL_METRICS_PORT") for config in cluster.of("ConfigMap")}
        if {ports.get("metrics")} != metrics:
            yield f"{place}: the port for metrics is not the one of QUILL_METRICS_PORT"
        for budget in cluster.of("PodDisruptionBudget"):
            if budget["spec"]["minAvailable"] >= spec["replicas"]:
                yield f"{FOLDER}: PodDisruptionBudget lets no node be emptied"


def _check_ways_in(cluster: Cluster) -> Iterator[str]:
    labels = [template["metadata"]["labels"] for _, template in cluster.pods()]
    for kind in ("Service", "PodDisruptionBudget", "Deployment"):
        for found in cluster.of(kind):
            selector: dict[str, Any] = found["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            if not any(wanted.items() <= own.items() for own in labels):
                yield f"{FOLDER}: {kind} selects no pod"
    ports = {
        port["name"] for _, pod in cluster.pods() for c in pod["spec"]["containers"] for port in c.get("ports", [])
    }
    for service in cluster.of("Service"):
        if not {port["targetPort"] for port in service["spec"]["ports"]} <= ports:
            yield f"{FOLDER}: Service leads to a port that is not there"
    for ingress in cluster.of("Ingress"):
        yield from _check_ingress(cluster, ingress)


def _check_ingress(cluster: Cluster, ingress: Yaml) -> Iterator[str]:
    paths = [path for rule in ingress["spec"]["rules"] for path in rule["http"]["paths"]]
    if not all(cluster.has("Service", path["backend"]["service"]["name"]) for path in paths):
        yield f"{FOLDER}: Ingress leads to a Service that is not there"
    if ingress["metadata"]["annotations"].get("nginx.ingress.kubernetes.io/proxy-buffering") != "off":
        yield f"{FOLDER}: Ingress would hold live updates back"
