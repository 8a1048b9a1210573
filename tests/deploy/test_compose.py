"""``compose.yaml``: every service is confined, limited, pinned and not exposed needlessly."""

import json
import re
from pathlib import Path
from typing import Any

import pytest
import yaml

from app.cli.serve import GRACE_SECONDS
from app.infra.settings.environment import variables
from app.server.lifespan import CLOSE_SECONDS, HAND_OVER_SECONDS

ROOT = Path(__file__).parents[2]
COMPOSE: dict[str, Any] = yaml.safe_load((ROOT / "compose.yaml").read_text())
SERVICES: dict[str, dict[str, Any]] = COMPOSE["services"]
OPTIONAL = {"app-2": "pair", "grafana": "ui"}
WITHOUT_CHECK = {"otel-collector"}  # its image has no other program

every_service = pytest.mark.parametrize("service", SERVICES.values(), ids=SERVICES)


def seconds(text: str) -> int:
    assert text.endswith("s")
    return int(text.removesuffix("s"))


def test_the_stack_is_complete() -> None:
    assert set(SERVICES) == {"app", "app-2", "postgres", "redis", "prometheus", "otel-collector", "grafana"}
    assert {name: one["profiles"] for name, one in SERVICES.items() if "profiles" in one} == {
        name: [profile] for name, profile in OPTIONAL.items()
    }


@every_service
def test_a_service_is_confined(service: dict[str, Any]) -> None:
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["security_opt"] == ["no-new-privileges:true"]
    assert {"privileged", "network_mode", "pid", "ipc", "devices", "userns_mode"} & set(service) == set()


def test_only_the_database_has_capabilities_to_drop_root() -> None:
    added = {name: set(one["cap_add"]) for name, one in SERVICES.items() if "cap_add" in one}
    assert added == {"postgres": {"CHOWN", "DAC_OVERRIDE", "FOWNER", "SETGID", "SETUID"}}


def test_no_init_without_cap_kill_runs_processes_of_other_users() -> None:
    """Otherwise signals do not arrive, and a stop becomes a kill after the grace period."""
    assert [name for name, one in SERVICES.items() if one.get("cap_add") and one["init"]] == []


@every_service
def test_a_service_has_limits_and_restarts(service: dict[str, Any]) -> None:
    assert re.fullmatch(r"\d+[mg]", service["mem_limit"])
    assert service["cpus"] > 0
    assert service["pids_limit"] > 0
    assert service["restart"] == "unless-stopped"
    assert seconds(service["stop_grace_period"]) >= 20
    assert all(":size=" in mount for mount in service.get("tmpfs", ()))


@every_service
def test_an_image_is_pinned_and_configurable(service: dict[str, Any]) -> None:
    given = re.fullmatch(r"\$\{[A-Z_]+_IMAGE:-(.+):([^:}]+)\}", service["image"])
    assert given is not None
    assert given[2] != "latest"
    assert given[1].startswith(("docker.io/", "localhost/"))


@every_service
def test_only_the_app_can_be_published_beyond_this_machine(service: dict[str, Any]) -> None:
    for port in service.get("ports", ()):
        bound = port.partition(":")[0] if not port.startswith("${") else port[: port.index("}") + 1]
        assert bound == ("${APP_BIND:-127.0.0.1}" if service is SERVICES["app"] else "127.0.0.1")


def test_metrics_are_for_prometheus_and_not_published() -> None:
    port = SERVICES["app"]["environment"]["METRICS_PORT"]
    assert all(not published.endswith(f":{port}") for published in SERVICES["app"]["ports"])
    scrapes = yaml.safe_load((ROOT / "deploy/prometheus/prometheus.yml").read_text())["scrape_configs"]
    [ours] = [one for one in scrapes if one["job_name"] == "agent-service"]
    assert ours["dns_sd_configs"][0]["names"] == SERVICES["app-2"]["networks"]["edge"]["aliases"] == ["app"]
    assert str(ours["dns_sd_configs"][0]["port"]) == port


def test_the_data_network_is_internal() -> None:
    assert COMPOSE["networks"]["data"] == {"internal": True}
    inside = {name for name, one in SERVICES.items() if "data" in one["networks"]}
    assert inside == {"app", "app-2", "postgres", "redis"}
    assert [name for name in ("postgres", "redis") if SERVICES[name]["networks"] != ["data"]] == []


@every_service
def test_no_secret_is_in_the_file(service: dict[str, Any]) -> None:
    """They are in files; a provider's key may be passed on from the environment."""
    for name, value in service.get("environment", {}).items():
        if re.search(r"PASSWORD|SECRET|KEY|_URL", name):
            assert re.fullmatch(rf"/run/secrets/\w+|\$\{{{name}:-\}}", str(value)), name
    assert not any("PASSWORD" in str(word).upper() for word in service.get("command", ()))


@every_service
def test_secrets_and_configuration_are_mounted_as_read_only_folders(service: dict[str, Any]) -> None:
    for volume in service.get("volumes", ()):
        source, _, rest = volume.partition(":")
        if source.startswith("./"):
            assert rest.endswith(":ro,z")
            assert "." not in source[2:]
        else:
            assert source in COMPOSE["volumes"]


def test_only_the_servers_wait_for_healthy_dependencies() -> None:
    order = {name: one["depends_on"] for name, one in SERVICES.items() if "depends_on" in one}
    healthy = {"condition": "service_healthy"}
    assert order == {name: {"postgres": healthy, "redis": healthy} for name in ("app", "app-2")}


def test_every_service_has_a_health_check() -> None:
    missing = {name for name, one in SERVICES.items() if "healthcheck" not in one}
    assert missing == WITHOUT_CHECK
    for name in set(SERVICES) - WITHOUT_CHECK:
        check = SERVICES[name]["healthcheck"]
        assert check["test"][0] == "CMD"
        assert seconds(check["timeout"]) <= seconds(check["interval"])


def test_the_health_check_equals_that_of_the_image() -> None:
    text = (ROOT / "Containerfile").read_text()
    found = re.search(r"^HEALTHCHECK (.+) CMD (\[.+\])$", text, re.MULTILINE)
    assert found is not None
    flags = dict(re.findall(r"--([a-z-]+)=(\S+)", found[1]))
    check = SERVICES["app"]["healthcheck"]
    assert ["CMD", *json.loads(found[2])] == check["test"]
    assert flags == {
        "interval": check["interval"],
        "timeout": check["timeout"],
        "start-period": check["start_period"],
        "retries": str(check["retries"]),
    }


def test_the_stop_grace_period_exceeds_the_drain() -> None:
    drain = int(SERVICES["app"]["environment"]["AGENT_DRAIN_SECONDS"])
    assert seconds(SERVICES["app"]["stop_grace_period"]) > drain + HAND_OVER_SECONDS + CLOSE_SECONDS + GRACE_SECONDS


def test_every_setting_is_known() -> None:
    known = {variable.name for variable in variables()} | {f"{one.name}_FILE" for one in variables() if one.is_secret}
    assert set(SERVICES["app"]["environment"]) <= known
    assert SERVICES["app"]["environment"]["AGENT_MIGRATE_ON_START"] == "1"
    assert SERVICES["app"]["environment"]["WORKERS"] == "${WORKERS:-2}"


def test_redis_does_not_evict() -> None:
    lines = (ROOT / "deploy/redis/redis.conf").read_text().splitlines()
    assert "maxmemory-policy noeviction" in lines
    limit = next(int(line.split()[1].removesuffix("mb")) for line in lines if line.startswith("maxmemory "))
    assert limit < int(SERVICES["redis"]["mem_limit"].removesuffix("m"))
