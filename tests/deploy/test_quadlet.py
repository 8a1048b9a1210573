"""The systemd units match ``compose.yaml``."""

import json
import re
import shlex
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).parents[2]
FOLDER = ROOT / "deploy" / "quadlet"
SERVICES: dict[str, dict[str, Any]] = yaml.safe_load((ROOT / "compose.yaml").read_text())["services"]
UNITS = {
    "app": "agent-app@",
    "postgres": "agent-postgres",
    "redis": "agent-redis",
    "prometheus": "agent-prometheus",
    "otel-collector": "agent-otel-collector",
}

every_unit = pytest.mark.parametrize("service, unit", UNITS.items(), ids=UNITS)


def read(unit: str) -> dict[str, list[str]]:
    """Return the values of a unit by key, from all sections."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / f"{unit}.container").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def plain(text: str) -> str:
    """Return a value of the compose file with its defaults filled in."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_every_unit_is_known() -> None:
    assert {path.stem for path in FOLDER.glob("*.container")} == set(UNITS.values())


@every_unit
def test_a_unit_has_the_confinement_and_limits_of_the_service(service: str, unit: str) -> None:
    one, unit_values = SERVICES[service], read(unit)
    assert unit_values["Image"] == [plain(one["image"])]
    assert unit_values["ReadOnly"] == unit_values["NoNewPrivileges"] == ["true"]
    assert unit_values["DropCapability"] == ["all"]
    assert set(" ".join(unit_values.get("AddCapability", [])).split()) == set(one.get("cap_add", []))
    assert (unit_values.get("RunInit") == ["true"]) is one["init"]
    assert unit_values["PodmanArgs"] == [f"--memory={one['mem_limit']} --cpus={one['cpus']}"]
    assert unit_values["PidsLimit"] == [str(one["pids_limit"])]
    assert unit_values["StopTimeout"] == [one["stop_grace_period"].removesuffix("s")]
    assert unit_values.get("Tmpfs", []) == one.get("tmpfs", [])
    assert int(unit_values["TimeoutStopSec"][0]) > int(unit_values["StopTimeout"][0])


@every_unit
def test_a_unit_has_the_mounts_and_command_of_the_service(service: str, unit: str) -> None:
    one, unit_values = SERVICES[service], read(unit)
    ours = {volume.replace("%E/agent-service/", "./", 1) for volume in unit_values["Volume"]}
    theirs = {re.sub(r"^(\w+):", r"agent-\1.volume:", volume) for volume in one["volumes"]}
    assert ours == theirs
    assert shlex.split(" ".join(unit_values.get("Exec", []))) == one.get("command", [])
    published = [port.replace("%i", "8000") for port in unit_values.get("PublishPort", [])]
    assert published == [plain(port) for port in one.get("ports", [])]
    networks = {line.partition(".")[0].removeprefix("agent-") for line in unit_values["Network"]}
    assert networks == set(one["networks"])
    named = [line.partition("alias=")[2] for line in unit_values["Network"] if "alias=" in line]
    assert named == [service]


@every_unit
def test_a_unit_has_the_environment_of_the_service(service: str, unit: str) -> None:
    one, unit_values = SERVICES[service], read(unit)
    ours = dict(pair.split("=", 1) for line in unit_values.get("Environment", []) for pair in line.split())
    theirs = {name: text for name, value in one.get("environment", {}).items() if (text := plain(str(value)))}
    assert ours == theirs


@every_unit
def test_a_unit_has_the_health_check_of_the_service(service: str, unit: str) -> None:
    check, unit_values = SERVICES[service].get("healthcheck"), read(unit)
    if check is None:
        assert "HealthCmd" not in unit_values
        return
    assert ["CMD", *json.loads(unit_values["HealthCmd"][0])] == check["test"]
    assert unit_values["HealthInterval"] == [check["interval"]]
    assert unit_values["HealthTimeout"] == [check["timeout"]]
    assert unit_values["HealthStartPeriod"] == [check["start_period"]]
    assert unit_values["HealthRetries"] == [str(check["retries"])]


def test_the_server_starts_after_its_dependencies_are_healthy() -> None:
    needed = {"agent-postgres.service", "agent-redis.service"}
    unit_values = read("agent-app@")
    assert set(unit_values["Requires"][0].split()) == set(unit_values["After"][0].split()) == needed
    assert [read(unit)["Notify"] for unit in ("agent-postgres", "agent-redis", "agent-app@")] == [["healthy"]] * 3


def test_the_data_network_is_internal() -> None:
    assert "Internal=true" in (FOLDER / "agent-data.network").read_text().splitlines()
