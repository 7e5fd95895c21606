"""The Kubernetes overlays: what kustomize builds of them is valid, and its parts agree with each other and the code."""

from __future__ import annotations

import functools
import importlib
import re
import subprocess
import tomllib
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml
from prometheus_client import Metric

from deploy.prometheus_rule import prometheus_rule
from service.discovery import Discovery
from service.metrics import Metrics
from service.settings import Settings, unknown_variables
from upscale_client.v1 import upscale_pb2

ROOT = Path(__file__).resolve().parents[3]
KUBERNETES = ROOT / "deploy" / "kubernetes"
OVERLAYS = sorted(path.name for path in (KUBERNETES / "overlays").iterdir())
VERSION = "1.37"
NONE_OF_OURS = {"model-repository", "gateway-access"}
"""Secrets, which docs/deployment.md says how to make."""
MODELS = {
    "keda.sh/v1alpha1": "cloudcoil.models.keda.v1alpha1",
    "monitoring.coreos.com/v1": "cloudcoil.models.prometheus_operator.v1",
}
"""Where the schemas of those kinds are that are not Kubernetes' own."""
Document = dict[str, Any]


@functools.cache
def built(overlay: str) -> tuple[Document, ...]:
    """All documents of an overlay."""
    done = subprocess.run(
        [".venv/bin/kubectl", "kustomize", KUBERNETES / "overlays" / overlay],
        cwd=ROOT,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr
    assert not done.stderr, "nothing is deprecated"
    return tuple(yaml.safe_load_all(done.stdout))


@pytest.fixture(params=OVERLAYS)
def documents(request: pytest.FixtureRequest) -> tuple[Document, ...]:
    """Those of each overlay."""
    return built(request.param)


def of_kind(documents: Iterable[Document], *kinds: str) -> list[Document]:
    return [each for each in documents if each["kind"] in kinds]


def pod(deployment: Document) -> dict[str, Any]:
    return deployment["spec"]["template"]["spec"]


def containers(deployment: Document) -> list[dict[str, Any]]:
    return [*pod(deployment).get("initContainers", []), *pod(deployment)["containers"]]


def ports(deployment: Document) -> dict[str, int]:
    return {port["name"]: port["containerPort"] for each in containers(deployment) for port in each["ports"]}


def matches(selector: Document, labels: dict[str, str]) -> bool:
    wanted = selector.get("matchLabels", {}).items() <= labels.items()
    return wanted and all(
        each["operator"] == "In" and labels.get(each["key"]) in each["values"]
        for each in selector.get("matchExpressions", [])
    )


def selected(documents: Iterable[Document], selector: Document) -> list[Document]:
    """The deployments whose pods are meant."""
    deployments = of_kind(documents, "Deployment")
    return [each for each in deployments if matches(selector, each["spec"]["template"]["metadata"]["labels"])]


def gateway(documents: Iterable[Document]) -> tuple[Document, Settings]:
    """The gateway's deployment, and its settings as its pods read them."""
    (deployment,) = [each for each in of_kind(documents, "Deployment") if each["metadata"]["name"] == "gateway"]
    (container,) = pod(deployment)["containers"]
    maps = {each["metadata"]["name"]: each["data"] for each in of_kind(documents, "ConfigMap")}
    variables: dict[str, str] = {}
    for source in container["envFrom"]:
        variables |= maps[source["configMapRef"]["name"]]
    assert unknown_variables(variables) == []
    return deployment, Settings(**{name.removeprefix("UPSCALE_").lower(): each for name, each in variables.items()})  # pyright: ignore[reportArgumentType]


def amount(text: str) -> int:
    """Bytes of a quantity."""
    units = {"Mi": 1 << 20, "Gi": 1 << 30}
    return int(text[:-2]) * units[text[-2:]]


def test_every_document_is_valid(documents: tuple[Document, ...]) -> None:
    for document in documents:
        kind, version = document["kind"], document["apiVersion"]
        if version in MODELS:
            model = getattr(importlib.import_module(MODELS[version]), kind)
            understood = model.model_validate(document).model_dump(by_alias=True, exclude_unset=True, mode="json")
            assert list(unknown(document, understood)) == [], f"{kind} has fields that nobody knows"
        elif kind == "GRPCRoute":
            check_route(document)
        else:
            kubernetes_validate.validate(document, VERSION, strict=True)


def unknown(given: Any, understood: Any, place: str = "") -> Iterator[str]:
    """The fields that a model left out; it says nothing about them itself."""
    if isinstance(given, dict):
        for key, value in given.items():
            if not isinstance(understood, dict) or key not in understood:
                yield f"{place}.{key}"
            else:
                yield from unknown(value, understood[key], f"{place}.{key}")
    elif isinstance(given, list):
        for index, value in enumerate(given):
            yield from unknown(value, understood[index], f"{place}[{index}]")


def check_route(route: Document) -> None:
    """By hand: no package has this schema."""
    assert route["apiVersion"] == "gateway.networking.k8s.io/v1"
    assert route["spec"].keys() == {"parentRefs", "hostnames", "rules"}
    assert all(each.keys() <= {"name", "namespace", "sectionName", "port"} for each in route["spec"]["parentRefs"])
    for rule in route["spec"]["rules"]:
        assert rule.keys() == {"matches", "backendRefs"}
        assert all(each["method"].keys() <= {"type", "service", "method"} for each in rule["matches"])
        assert all(each.keys() == {"name", "port"} for each in rule["backendRefs"])


def test_a_misspelt_field_is_noticed() -> None:
    scaled = next(each for each in built("gpu-cluster") if each["kind"] == "ScaledObject")
    model: Any = importlib.import_module(MODELS[scaled["apiVersion"]]).ScaledObject
    wrong = scaled | {"spec": {**scaled["spec"], "maxReplicas": 8}}
    understood = model.model_validate(wrong).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert list(unknown(wrong, understood)) == [".spec.maxReplicas"]
    deployment = next(each for each in built("gpu-cluster") if each["kind"] == "Deployment")
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(deployment | {"spec": {**deployment["spec"], "replica": 1}}, VERSION, strict=True)


def test_the_settings_are_settings(documents: tuple[Document, ...]) -> None:
    deployment, settings = gateway(documents)
    names = ports(deployment)
    assert (names["grpc"], names["metrics"]) == (settings.port, settings.metrics_port)
    assert not settings.client_shared_memory, "no client shares the pod's /dev/shm"
    assert pod(deployment)["enableServiceLinks"] is False, "variables of a Service `upscale` would be settings"


def test_the_gateways_find_triton(documents: tuple[Document, ...]) -> None:
    deployment, settings = gateway(documents)
    Discovery(settings.triton_url)
    *kind, host, port = settings.triton_url.split(":")
    if not kind:
        assert host == "127.0.0.1"
        (sidecar,) = pod(deployment)["initContainers"]
        assert sidecar["restartPolicy"] == "Always"
        assert "--grpc-address=127.0.0.1" in sidecar["args"]
        assert settings.triton_shared_memory == "on"
        mounts = [{(m["name"], m["mountPath"]) for m in each["volumeMounts"]} for each in containers(deployment)]
        assert mounts[0] & mounts[1] == {("shm", "/dev/shm")}, "both map the frames, and share nothing else"
    else:
        (service,) = [each for each in of_kind(documents, "Service") if each["metadata"]["name"] == host]
        assert kind == ["dns"]
        assert service["spec"]["clusterIP"] == "None", "the name must stand for every Triton"
        assert int(port) in [each["port"] for each in service["spec"]["ports"]]
        (triton,) = selected(documents, {"matchLabels": service["spec"]["selector"]})
        assert int(port) in ports(triton).values(), "behind a headless Service it is the container's port that counts"
        assert settings.triton_shared_memory == "off"


def test_there_is_room_for_the_frames(documents: tuple[Document, ...]) -> None:
    deployment, settings = gateway(documents)
    (shm,) = [each["emptyDir"] for each in pod(deployment)["volumes"] if each["name"] == "shm"]
    assert shm["medium"] == "Memory"
    assert amount(shm["sizeLimit"]) > settings.shared_memory_bytes * settings.workers
    for container in containers(deployment):
        assert ("shm", "/dev/shm") in [(each["name"], each["mountPath"]) for each in container["volumeMounts"]]
        assert amount(container["resources"]["limits"]["memory"]) >= amount(shm["sizeLimit"]) + (512 << 20)


def test_a_pod_has_time_to_stop(documents: tuple[Document, ...]) -> None:
    """docs/operations.md: shutdown_grace_s and 20 s more, after the balancer has been told."""
    gateways, settings = gateway(documents)
    for deployment in of_kind(documents, "Deployment"):
        needed = 0.0
        for container in containers(deployment):
            needed += container.get("lifecycle", {}).get("preStop", {"sleep": {"seconds": 0}})["sleep"]["seconds"]
            exit_timeout = re.search(r"--exit-timeout-secs=(\d+)", " ".join(container.get("args", [])))
            needed += float(exit_timeout[1]) if exit_timeout else settings.shutdown_grace_s + 20
        assert pod(deployment)["terminationGracePeriodSeconds"] >= needed
    assert pod(gateways)["containers"][0]["lifecycle"]["preStop"]["sleep"]["seconds"] >= 5


def test_selectors_and_ports_meet(documents: tuple[Document, ...]) -> None:
    deployments = of_kind(documents, "Deployment")
    names = {each["metadata"]["name"] for each in deployments}
    services = {each["metadata"]["name"]: each for each in of_kind(documents, "Service")}
    for each in deployments:
        assert matches(each["spec"]["selector"], each["spec"]["template"]["metadata"]["labels"])
        for constraint in pod(each)["topologySpreadConstraints"]:
            assert selected(documents, constraint["labelSelector"]) == [each]
    for service in services.values():
        (target,) = selected(documents, {"matchLabels": service["spec"]["selector"]})
        assert {each["targetPort"] for each in service["spec"]["ports"]} <= ports(target).keys()
    for budget in of_kind(documents, "PodDisruptionBudget"):
        assert len(selected(documents, budget["spec"]["selector"])) == 1
    for scaler in of_kind(documents, "HorizontalPodAutoscaler", "ScaledObject"):
        target = scaler["spec"]["scaleTargetRef"]["name"]
        assert target in names
        (deployment,) = [each for each in deployments if each["metadata"]["name"] == target]
        assert "replicas" not in deployment["spec"], "or every apply would set back what the autoscaler chose"
    for monitor in of_kind(documents, "ServiceMonitor"):
        found = [each for each in services.values() if matches(monitor["spec"]["selector"], each["metadata"]["labels"])]
        assert found
        for endpoint in monitor["spec"]["endpoints"]:
            assert all(endpoint["port"] in [port["name"] for port in each["spec"]["ports"]] for each in found)
    for monitor in of_kind(documents, "PodMonitor"):
        found = {port for each in selected(documents, monitor["spec"]["selector"]) for port in ports(each).values()}
        assert {each["portNumber"] for each in monitor["spec"]["podMetricsEndpoints"]} <= found
    for route in of_kind(documents, "GRPCRoute"):
        for rule in route["spec"]["rules"]:
            wanted = {match["method"]["service"] for match in rule["matches"]}
            service: Any = upscale_pb2.DESCRIPTOR.services_by_name["UpscaleService"]
            assert wanted == {service.full_name, "grpc.health.v1.Health"}
            for backend in rule["backendRefs"]:
                assert backend["port"] in [port["port"] for port in services[backend["name"]]["spec"]["ports"]]


def test_what_is_named_is_there(documents: tuple[Document, ...]) -> None:
    there = {(each["kind"], each["metadata"]["name"]) for each in documents}
    page = (ROOT / "docs" / "deployment.md").read_text()
    for deployment in of_kind(documents, "Deployment"):
        spec = pod(deployment)
        assert spec.get("serviceAccountName", "default") in {
            name for kind, name in there if kind == "ServiceAccount"
        } | {"default"}
        wanted: set[tuple[str, str]] = set()
        for container in containers(deployment):
            for source in container.get("envFrom", []):
                for key, kind in (("configMapRef", "ConfigMap"), ("secretRef", "Secret")):
                    wanted |= {(kind, source[key]["name"])} if key in source else set()
            assert {each["name"] for each in container["volumeMounts"]} <= {each["name"] for each in spec["volumes"]}
            probes = [container.get(f"{name}Probe") for name in ("startup", "readiness", "liveness")]
            assert {probe["httpGet"]["port"] for probe in probes if probe} <= {
                each["name"] for each in container["ports"]
            }
        for volume in spec["volumes"]:
            if "secret" in volume:
                wanted.add(("Secret", volume["secret"]["secretName"]))
            if "persistentVolumeClaim" in volume:
                wanted.add(("PersistentVolumeClaim", volume["persistentVolumeClaim"]["claimName"]))
        for kind, name in wanted - there:
            assert kind == "Secret"
            assert f"secret generic {name} " in page, f"docs/deployment.md does not say how to make {name}"


def test_who_may_talk_to_whom(documents: tuple[Document, ...]) -> None:
    policies = of_kind(documents, "NetworkPolicy")
    (deny,) = [each["spec"] for each in policies if not each["spec"]["podSelector"]]
    assert set(deny["policyTypes"]) == {"Ingress", "Egress"}
    assert "ingress" not in deny
    reachable: dict[str, set[tuple[int, str]]] = {}
    for policy in (each["spec"] for each in policies if each["spec"]["podSelector"]):
        targets = selected(documents, policy["podSelector"])
        assert targets, "a policy for nobody"
        for rule in policy.get("ingress", []):
            sources = [*map(str, rule.get("from", ["anywhere"]))]
            for target in targets:
                for port in {each["port"] for each in rule["ports"]} & set(ports(target).values()):
                    reachable.setdefault(target["metadata"]["name"], set()).update((port, each) for each in sources)
    monitoring = {(port, each) for each_of in reachable.values() for port, each in each_of if "monitoring" in each}
    assert {port for port, _ in monitoring} <= {9464, 8002}
    assert reachable["gateway"] - monitoring == {(50051, "anywhere")}
    if "triton" in reachable:
        assert reachable["triton"] - monitoring == {(8001, "{'podSelector': {'matchLabels': {'app': 'gateway'}}}")}
        egress = [rule for each in policies for rule in each["spec"].get("egress", []) if "'triton'" in str(rule)]
        assert [port["port"] for rule in egress for port in rule["ports"]] == [8001]


def test_no_pod_may_do_more_than_it_needs(documents: tuple[Document, ...]) -> None:
    for deployment in of_kind(documents, "Deployment"):
        spec = pod(deployment)
        assert spec["automountServiceAccountToken"] is False
        assert spec["securityContext"]["runAsNonRoot"]
        # What Triton and the gateway both map has mode 0600.
        assert spec["securityContext"]["runAsUser"] == 1000
        assert "USER 1000:1000" in (ROOT / "deploy" / "docker" / "Dockerfile").read_text()
        assert spec["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
        for container in containers(deployment):
            assert container["securityContext"] == {
                "allowPrivilegeEscalation": False,
                "readOnlyRootFilesystem": True,
                "capabilities": {"drop": ["ALL"]},
            }
            assert container["resources"].keys() == {"requests", "limits"}
            assert "/tmp" in [each["mountPath"] for each in container["volumeMounts"]], "workers share metrics there"


def test_the_autoscaler_asks_for_metrics_that_there_are() -> None:
    samples = {name: metric for metric in Metrics().registry.collect() for name in _names(metric)}
    queries = [
        trigger["metadata"]["query"]
        for overlay in OVERLAYS
        for scaled in of_kind(built(overlay), "ScaledObject")
        for trigger in scaled["spec"]["triggers"]
    ]
    named = {name for query in queries for name in re.findall(r"\b(?:upscale|grpc)_\w+", query)}
    assert named
    assert named <= samples.keys()
    for query in queries:
        assert 'namespace="upscale"' in query
        reasons = re.search(r'reason=~"([^"]+)"', query)
        told = samples["upscale_shed_total"].documentation
        assert reasons is None or all(each in told for each in reasons[1].split("|"))


def _names(metric: Metric) -> list[str]:
    kinds = {"counter": ["_total"], "histogram": ["_bucket", "_sum", "_count"]}
    return [metric.name + suffix for suffix in kinds.get(metric.type, [""])]


def test_triton_is_the_same_in_a_pod_of_its_own_and_beside_the_gateway() -> None:
    (apart,) = [each for each in of_kind(built("gpu-cluster"), "Deployment") if each["metadata"]["name"] == "triton"]
    (together,) = of_kind(built("single-host"), "Deployment")
    one, other = containers(apart)[0], containers(together)[0]
    for key in ("image", "command", "resources", "securityContext"):
        assert one[key] == other[key]
    assert [*one["args"], "--grpc-address=127.0.0.1"] == other["args"]
    for key in ("nodeSelector", "tolerations"):
        assert pod(apart)[key] == pod(together)[key]
    (settings,) = [each["data"] for each in built("gpu-cluster") if each["metadata"]["name"].startswith("triton-")]
    assert settings.items() <= {each["name"]: each["value"] for each in other["env"]}.items()


def test_the_image_is_of_this_version() -> None:
    version = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["version"]
    images = {each["image"] for name in OVERLAYS for d in of_kind(built(name), "Deployment") for each in containers(d)}
    ours = {each for each in images if "upscale-gateway" in each}
    assert {each.rpartition(":")[2] for each in ours} == {version}
    assert len(images - ours) == 1, "one Triton"


def test_rules_become_a_prometheus_rule(tmp_path: Path) -> None:
    (tmp_path / "one.yml").write_text("groups: [{name: a, rules: [{record: 'a:b', expr: sum(up)}]}]")
    (tmp_path / "two.yml").write_text("groups: [{name: b, rules: [{alert: Down, expr: up == 0, for: 5m}]}]")
    rule = prometheus_rule(tmp_path, "upscale", "upscale")
    model: Any = importlib.import_module(MODELS[rule["apiVersion"]]).PrometheusRule
    understood = model.model_validate(rule).model_dump(by_alias=True, exclude_unset=True, mode="json")
    assert list(unknown(rule, understood)) == []
    assert [group["name"] for group in rule["spec"]["groups"]] == ["a", "b"]
    with pytest.raises(FileNotFoundError, match="no rules in"):
        prometheus_rule(tmp_path / "nowhere", "upscale", "upscale")
