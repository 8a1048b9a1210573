"""The manifests are valid against Kubernetes' schemas and the restricted pod security standard."""

from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import kubernetes_validate
import pytest
import yaml

from app.cli.serve import GRACE_SECONDS
from app.infra.settings.environment import variables
from app.server.lifespan import CLOSE_SECONDS, HAND_OVER_SECONDS

FOLDER = Path(__file__).parents[2] / "deploy" / "kubernetes"
KUSTOMIZATION: dict[str, Any] = yaml.safe_load((FOLDER / "kustomization.yaml").read_text())
OBJECTS: list[dict[str, Any]] = [
    one for name in KUSTOMIZATION["resources"] for one in yaml.safe_load_all((FOLDER / name).read_text())
]
NAMES = [f"{one['kind']}/{one['metadata']['name']}" for one in OBJECTS]
WITH_PODS = [one for one in OBJECTS if one["kind"] in {"Deployment", "Job"}]
SERVERS = [one for one in OBJECTS if one["kind"] == "Deployment"]
NAMESPACE = "agent-service"
VERSION = "1.37"

every_object = pytest.mark.parametrize("thing", OBJECTS, ids=NAMES)
every_pod = pytest.mark.parametrize("thing", WITH_PODS, ids=[one["metadata"]["name"] for one in WITH_PODS])
every_server = pytest.mark.parametrize("thing", SERVERS, ids=[one["metadata"]["name"] for one in SERVERS])


def found(kind: str, name: str = NAMESPACE) -> dict[str, Any]:
    return OBJECTS[NAMES.index(f"{kind}/{name}")]


def only(thing: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the pod and its only container."""
    pod = thing["spec"]["template"]["spec"]
    [container] = pod["containers"]
    return pod, container


def test_every_file_is_in_the_kustomization() -> None:
    assert sorted(KUSTOMIZATION["resources"]) == sorted(
        path.name for path in FOLDER.glob("*.yaml") if path.name != "kustomization.yaml"
    )


@every_object
def test_an_object_matches_its_schema(thing: dict[str, Any]) -> None:
    kubernetes_validate.validate(thing, VERSION, strict=True)


def test_an_unknown_field_is_an_error() -> None:
    wrong = {**found("Service"), "spec": {**found("Service")["spec"], "selektor": {}}}
    with pytest.raises(kubernetes_validate.ValidationError):
        kubernetes_validate.validate(wrong, VERSION, strict=True)


@every_object
def test_an_object_is_in_the_namespace(thing: dict[str, Any]) -> None:
    assert thing["metadata"].get("namespace", thing["metadata"]["name"]) == NAMESPACE == KUSTOMIZATION["namespace"]


@every_pod
def test_a_pod_is_restricted(thing: dict[str, Any]) -> None:
    """https://kubernetes.io/docs/concepts/security/pod-security-standards/#restricted"""
    pod, container = only(thing)
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == 10001
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert pod["automountServiceAccountToken"] is False
    assert {"hostNetwork", "hostPID", "hostIPC"} & set(pod) == set()
    assert {kind for volume in pod["volumes"] for kind in set(volume) - {"name"}} <= {"secret", "configMap", "emptyDir"}


@every_pod
def test_a_pod_has_limits_and_its_secrets_in_files(thing: dict[str, Any]) -> None:
    pod, container = only(thing)
    assert set(container["resources"]) == {"requests", "limits"}
    assert {"cpu", "memory"} == set(container["resources"]["limits"])
    assert "env" not in container
    mounts = {mount["name"]: mount for mount in container["volumeMounts"]}
    assert mounts["secrets"] == {"name": "secrets", "mountPath": "/run/secrets", "readOnly": True}
    [secret] = [volume["secret"] for volume in pod["volumes"] if volume["name"] == "secrets"]
    assert secret == {"secretName": "agent-service", "defaultMode": 0o440}
    assert pod["enableServiceLinks"] is False  # AGENT_SERVICE_PORT and others would look like settings


def test_the_configuration_has_only_known_settings_and_no_secret() -> None:
    known = {variable.name: variable.is_secret for variable in variables()}
    for name, value in found("ConfigMap")["data"].items():
        assert known[name.removesuffix("_FILE")] is name.endswith("_FILE"), name
        assert not name.endswith("_FILE") or value.startswith("/run/secrets/")


@every_server
def test_a_server_has_a_role_and_the_three_probes(thing: dict[str, Any]) -> None:
    _, container = only(thing)
    role = thing["metadata"]["labels"]["app.kubernetes.io/component"]
    assert container["args"] == ["serve", "--role", role]
    paths = {kind: container[f"{kind}Probe"]["httpGet"]["path"] for kind in ("startup", "readiness", "liveness")}
    assert paths == {"startup": "/readyz", "readiness": "/readyz", "liveness": "/livez"}
    ports = {port["name"]: port["containerPort"] for port in container["ports"]}
    assert ports == {"http": 8000, "metrics": int(found("ConfigMap")["data"]["METRICS_PORT"])}
    assert thing["spec"]["template"]["metadata"]["annotations"]["prometheus.io/port"] == str(ports["metrics"])


@every_server
def test_a_server_is_replaced_without_downtime(thing: dict[str, Any]) -> None:
    pod, container = only(thing)
    assert thing["spec"]["strategy"]["rollingUpdate"] == {"maxUnavailable": 0, "maxSurge": 1}
    pause = int(container["lifecycle"]["preStop"]["exec"]["command"][1])
    drain = int(found("ConfigMap")["data"]["AGENT_DRAIN_SECONDS"])
    end = pause + drain + HAND_OVER_SECONDS + CLOSE_SECONDS + GRACE_SECONDS
    assert pod["terminationGracePeriodSeconds"] > end
    keys = [one["topologyKey"] for one in pod["topologySpreadConstraints"]]
    assert keys == ["kubernetes.io/hostname", "topology.kubernetes.io/zone"]


@pytest.mark.parametrize("role", ["api", "worker"])
def test_selectors_match_the_servers(role: str) -> None:
    server = found("Deployment", f"agent-service-{role}")
    labels = server["spec"]["template"]["metadata"]["labels"]
    assert server["spec"]["selector"]["matchLabels"] == labels
    assert found("PodDisruptionBudget", f"agent-service-{role}")["spec"]["selector"]["matchLabels"] == labels
    scaled = found("HorizontalPodAutoscaler", f"agent-service-{role}")["spec"]
    assert scaled["scaleTargetRef"]["name"] == server["metadata"]["name"]
    assert scaled["minReplicas"] == server["spec"]["replicas"] == 2
    selected = found("NetworkPolicy")["spec"]["podSelector"]["matchLabels"]
    assert selected.items() <= labels.items()
    assert (found("Service")["spec"]["selector"] == labels) is (role == "api")


def test_workers_follow_the_depth_of_the_queue() -> None:
    first = found("HorizontalPodAutoscaler", "agent-service-worker")["spec"]["metrics"][0]
    assert first["type"] == "External"
    assert first["external"]["metric"]["name"] == "agent_queue_depth"


def test_one_job_migrates_with_the_image_of_the_servers() -> None:
    pod, container = only(found("Job", "agent-service-migrate"))
    assert container["args"] == ["migrate"]
    assert pod["restartPolicy"] == "Never"
    assert {only(one)[1]["image"] for one in WITH_PODS} == {"localhost/agent-service:dev"}
    assert KUSTOMIZATION["images"][0]["name"] == "localhost/agent-service"


def test_the_network_policy_allows_https_only_to_public_addresses() -> None:
    rules = found("NetworkPolicy")["spec"]["egress"]
    blocks = [to["ipBlock"] for rule in rules for to in rule.get("to", ()) if "ipBlock" in to]
    kept_out = [ip_network(one) for block in blocks for one in block["except"]]
    assert {block["cidr"] for block in blocks} == {"0.0.0.0/0", "::/0"}
    for private in ("10.1.2.3", "172.31.0.1", "192.168.1.1", "127.0.0.1", "169.254.169.254", "100.64.0.1", "224.0.0.1",
                    "::1", "fd00:ec2::254", "fe80::1", "::ffff:10.0.0.1"):  # fmt: skip
        address = ip_address(private)
        assert any(address in network for network in kept_out if network.version == address.version), private
    for public in ("1.1.1.1", "172.32.0.1", "192.169.0.1", "2606:4700::1111"):
        address = ip_address(public)
        assert not any(address in network for network in kept_out if network.version == address.version), public
