"""deploy/compose.yaml and deploy/kubernetes.yaml: the forms of the Compose specification and of the Kubernetes API as
far as these files use them, and what both have to agree on: who may write, which server is where, which key and port.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
import yaml

from backend.options.load_options import LoadOptions
from backend.options.option_parser import with_options
from test.contract.test_yaml import check_model

DEPLOY = Path(__file__).parents[2] / "deploy"
TEMPLATE = (DEPLOY / "qwen3-asr.jinja").read_text()
COMPOSE: dict[str, Any] = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OBJECTS: list[dict[str, Any]] = list(yaml.safe_load_all((DEPLOY / "kubernetes.yaml").read_text()))
BY_NAME = {(each["kind"], each["metadata"]["name"]): each for each in OBJECTS}
CONFIG_MAP: dict[str, str] = BY_NAME["ConfigMap", "qwen-asr"]["data"]
PODS = {
    name: each["spec"]["template"] for (kind, name), each in BY_NAME.items() if kind in ("Deployment", "StatefulSet")
}

# The keys of the specifications that these files may use, with the type of each value.
COMPOSE_KEYS = {"name": str, "services": dict, "volumes": dict, "configs": dict}
SERVICE_KEYS = {
    "build": dict, "cap_add": list, "cap_drop": list, "command": list, "configs": list, "depends_on": dict,
    "deploy": dict, "environment": dict, "healthcheck": dict, "image": str, "network_mode": str, "ports": list,
    "read_only": bool, "restart": str, "security_opt": list, "shm_size": str, "stop_grace_period": str,
    "tmpfs": list, "user": str, "volumes": list,
}  # fmt: skip
HEALTHCHECK_KEYS = {"test": list, "interval": str, "timeout": str, "start_period": str, "retries": int}
CONDITIONS = {"service_started", "service_healthy", "service_completed_successfully"}
API_VERSIONS = {
    "ConfigMap": "v1", "Service": "v1", "Deployment": "apps/v1", "StatefulSet": "apps/v1",
    "NetworkPolicy": "networking.k8s.io/v1",
}  # fmt: skip
POD_KEYS = {
    "automountServiceAccountToken": bool, "enableServiceLinks": bool, "terminationGracePeriodSeconds": int,
    "securityContext": dict, "initContainers": list, "containers": list, "volumes": list,
}  # fmt: skip
CONTAINER_KEYS = {
    "name": str, "image": str, "args": list, "ports": list, "env": list, "startupProbe": dict, "readinessProbe": dict,
    "livenessProbe": dict, "resources": dict, "securityContext": dict, "volumeMounts": list,
}  # fmt: skip
PROBE_KEYS = {"httpGet": dict, "periodSeconds": int, "failureThreshold": int, "timeoutSeconds": int}
CONFINED = {"readOnlyRootFilesystem": True, "allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}}
IMAGE = re.compile(r"(\$\{LOCALAI_IMAGE:-)?[a-z0-9./-]+:[\w.-]+}?")
DURATION = re.compile(r"\d+(ms|s|m|h)")


def check_keys(given: Mapping[str, Any], known: Mapping[str, type]) -> None:
    for key, value in given.items():
        assert key in known, key
        assert type(value) is known[key], key


def containers() -> Iterator[tuple[str, dict[str, Any], dict[str, Any]]]:
    """Name, container and the spec of its pod."""
    for name, pod in PODS.items():
        for container in [*pod["spec"].get("initContainers", []), *pod["spec"]["containers"]]:
            yield f"{name}/{container['name']}", container, pod["spec"]


CONTAINERS = [pytest.param(container, pod, id=name) for name, container, pod in containers()]


def test_the_compose_file_has_the_form_of_the_specification() -> None:
    check_keys({key: value for key, value in COMPOSE.items() if not key.startswith("x-")}, COMPOSE_KEYS)
    for name, config in COMPOSE["configs"].items():
        assert set(config) == {"content"}, name
        assert yaml.safe_load(config["content"])


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_has_the_form_of_the_specification(name: str) -> None:
    service = SERVICES[name]
    check_keys(service, SERVICE_KEYS)
    assert IMAGE.fullmatch(service["image"])
    values = [*service.get("environment", {}).values(), *service.get("command", [])]
    assert all(type(value) is str for value in values)
    for other, needed in service.get("depends_on", {}).items():
        assert other in SERVICES
        assert set(needed) == {"condition"}
        assert needed["condition"] in CONDITIONS
        assert needed["condition"] != "service_healthy" or "healthcheck" in SERVICES[other]
    if "healthcheck" in service:
        check_keys(service["healthcheck"], HEALTHCHECK_KEYS)
        assert service["healthcheck"]["test"][0] == "CMD"
        assert all(DURATION.fullmatch(service["healthcheck"][key]) for key in ("interval", "timeout", "start_period"))
    for volume in service.get("volumes", []):
        source, target, *mode = volume.split(":")
        assert target.startswith("/")
        assert mode in ([], ["ro"])
        assert source in COMPOSE["volumes"] or source == "../dist" or (DEPLOY / source).is_file()
    for config in service.get("configs", []):
        assert set(config) == {"source", "target"}
        assert config["source"] in COMPOSE["configs"]
    if "network_mode" in service:
        kind, _, other = service["network_mode"].partition(":")
        assert kind == "none" or (kind == "service" and other in SERVICES)
    if "build" in service:
        assert (DEPLOY / service["build"]["context"] / service["build"]["dockerfile"]).is_file()


@pytest.mark.parametrize("name", SERVICES)
def test_a_service_writes_to_its_volumes_alone_and_has_no_privilege(name: str) -> None:
    service = SERVICES[name]
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    if name == "owner":  # gives the volumes to the others' user and ends, without a network
        assert service["network_mode"] == "none"
        assert service["command"][0] == "chown"
        assert "restart" not in service
    else:
        assert service["user"] == "1000:1000"
        assert "cap_add" not in service


@pytest.mark.parametrize("each", OBJECTS, ids=[f"{kind}-{name}" for kind, name in BY_NAME])
def test_an_object_has_the_form_of_the_api(each: dict[str, Any]) -> None:
    assert each["apiVersion"] == API_VERSIONS[each["kind"]]
    assert set(each) == {"apiVersion", "kind", "metadata", "data" if each["kind"] == "ConfigMap" else "spec"}
    if each["kind"] == "ConfigMap":
        assert all(type(value) is str for value in each["data"].values())
    if each["kind"] in ("Deployment", "StatefulSet"):
        pod = each["spec"]["template"]
        assert each["spec"]["selector"]["matchLabels"].items() <= pod["metadata"]["labels"].items()
        check_keys(pod["spec"], POD_KEYS)
    if each["kind"] == "StatefulSet":
        assert ("Service", each["spec"]["serviceName"]) in BY_NAME
    if each["kind"] == "Service":
        pod = PODS[each["spec"]["selector"]["app"]]
        named = {port["name"] for container in pod["spec"]["containers"] for port in container.get("ports", [])}
        assert {port["targetPort"] for port in each["spec"]["ports"]} <= named


@pytest.mark.parametrize(("container", "pod"), CONTAINERS)
def test_a_container_has_the_form_of_the_api(container: dict[str, Any], pod: dict[str, Any]) -> None:
    check_keys(container, CONTAINER_KEYS)
    assert IMAGE.fullmatch(container["image"])
    for variable in container.get("env", []):
        assert set(variable) in ({"name", "value"}, {"name", "valueFrom"})
        assert type(variable.get("value", "")) is str  # a number or a truth value is refused
    assert all(type(argument) is str for argument in container.get("args", []))
    ports = {port["name"] for port in container.get("ports", [])}
    for probe in (container[key] for key in container if key.endswith("Probe")):
        check_keys(probe, PROBE_KEYS)
        assert set(probe["httpGet"]) == {"path", "port"}
        assert probe["httpGet"]["port"] in ports
    claims = BY_NAME["StatefulSet", "vllm"]["spec"]["volumeClaimTemplates"]
    volumes = {volume["name"] for volume in [*pod["volumes"], *(claim["metadata"] for claim in claims)]}
    for mount in container["volumeMounts"]:
        assert set(mount) <= {"name", "mountPath", "subPath"}
        assert mount["name"] in volumes
        assert mount.get("subPath", "qwen3-asr.yaml") in CONFIG_MAP


@pytest.mark.parametrize(("container", "pod"), CONTAINERS)
def test_a_container_writes_to_its_volumes_alone_and_has_no_privilege(
    container: dict[str, Any], pod: dict[str, Any]
) -> None:
    assert container["securityContext"] == CONFINED
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["runAsUser"] == pod["securityContext"]["fsGroup"] == 1000
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["automountServiceAccountToken"] is False
    assert pod["enableServiceLinks"] is False  # a service called vllm would set VLLM_PORT, which vLLM reads


@pytest.mark.parametrize("name", ["localai", "vllm"])
def test_what_serves_has_its_probes(name: str) -> None:
    container = PODS[name]["spec"]["containers"][0]
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)


def served_by(options: list[str]) -> tuple[str, ...]:
    return with_options(LoadOptions("m"), options, "").engine_urls


def test_the_models_name_servers_that_are_there_with_the_key_that_both_have() -> None:
    in_compose = yaml.safe_load(COMPOSE["configs"]["model"]["content"])
    in_cluster = yaml.safe_load(CONFIG_MAP["qwen3-asr.yaml"])
    servers = [name for name in SERVICES if name.startswith("vllm-")]
    replicas = BY_NAME["StatefulSet", "vllm"]["spec"]["replicas"]
    assert len(servers) == replicas == 2
    assert served_by(in_compose["options"]) == tuple(f"http://{name}:8000" for name in servers)
    assert served_by(in_cluster["options"]) == tuple(f"http://vllm-{number}.vllm:8000" for number in range(replicas))
    for config in (in_compose, in_cluster):
        check_model(config)
        assert "engine_api_key_env:VLLM_API_KEY" in config["options"]
    for name in ("localai", *servers):
        assert "VLLM_API_KEY" in SERVICES[name]["environment"]
    for name in ("localai", "vllm"):
        env = PODS[name]["spec"]["containers"][0]["env"]
        assert {"name": "qwen-asr", "key": "vllm-api-key"} in [
            each.get("valueFrom", {}).get("secretKeyRef") for each in env
        ]


def test_the_servers_have_the_template_by_which_a_language_can_be_forced() -> None:
    assert CONFIG_MAP["qwen3-asr.jinja"] == TEMPLATE
    commands = [SERVICES["vllm-0"]["command"], PODS["vllm"]["spec"]["containers"][0]["args"]]
    models = {yaml.safe_load(COMPOSE["configs"]["model"]["content"])["parameters"]["model"]}
    for command in commands:
        assert command[command.index("--chat-template") + 1].endswith("/qwen3-asr.jinja")
        assert {command[0]} == models


def test_metrics_are_scraped_where_the_backend_serves_them_by_what_shares_its_loopback() -> None:
    port = SERVICES["localai"]["environment"]["QWEN_ASR_METRICS"]
    assert {"name": "QWEN_ASR_METRICS", "value": port} in PODS["localai"]["spec"]["containers"][0]["env"]
    for content in (COMPOSE["configs"]["prometheus"]["content"], CONFIG_MAP["prometheus.yml"]):
        (job,) = yaml.safe_load(content)["scrape_configs"]
        assert job["job_name"] == "qwen-asr"  # as in docs/monitoring/alerts.yml
        assert job["static_configs"] == [{"targets": [f"127.0.0.1:{port}"]}]
    assert SERVICES["prometheus"]["network_mode"] == "service:localai"
    assert "metrics" in [container["name"] for container in PODS["localai"]["spec"]["containers"]]
