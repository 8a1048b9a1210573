"""The units for systemd say what ``compose.yaml`` says."""

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
    """The values of a unit by their keys, whatever section they are in."""
    found: dict[str, list[str]] = {}
    for line in (FOLDER / f"{unit}.container").read_text().splitlines():
        if "=" in line and not line.startswith("#"):
            key, _, value = line.partition("=")
            found.setdefault(key, []).append(value)
    return found


def plain(text: str) -> str:
    """A value of the compose file with its defaults filled in."""
    return re.sub(r"\$\{\w+:-([^}]*)\}", r"\1", text)


def test_every_unit_is_known() -> None:
    assert {path.stem for path in FOLDER.glob("*.container")} == set(UNITS.values())


@every_unit
def test_a_unit_contains_and_limits_as_the_service_does(service: str, unit: str) -> None:
    one, told = SERVICES[service], read(unit)
    assert told["Image"] == [plain(one["image"])]
    assert told["ReadOnly"] == told["NoNewPrivileges"] == ["true"]
    assert told["DropCapability"] == ["all"]
    assert set(" ".join(told.get("AddCapability", [])).split()) == set(one.get("cap_add", []))
    assert (told.get("RunInit") == ["true"]) is one["init"]
    assert told["PodmanArgs"] == [f"--memory={one['mem_limit']} --cpus={one['cpus']}"]
    assert told["PidsLimit"] == [str(one["pids_limit"])]
    assert told["StopTimeout"] == [one["stop_grace_period"].removesuffix("s")]
    assert told.get("Tmpfs", []) == one.get("tmpfs", [])
    assert int(told["TimeoutStopSec"][0]) > int(told["StopTimeout"][0])


@every_unit
def test_a_unit_mounts_and_starts_as_the_service_does(service: str, unit: str) -> None:
    one, told = SERVICES[service], read(unit)
    ours = {volume.replace("%E/agent-service/", "./", 1) for volume in told["Volume"]}
    theirs = {re.sub(r"^(\w+):", r"agent-\1.volume:", volume) for volume in one["volumes"]}
    assert ours == theirs
    assert shlex.split(" ".join(told.get("Exec", []))) == one.get("command", [])
    published = [port.replace("%i", "8000") for port in told.get("PublishPort", [])]
    assert published == [plain(port) for port in one.get("ports", [])]
    networks = {line.partition(".")[0].removeprefix("agent-") for line in told["Network"]}
    assert networks == set(one["networks"])
    named = [line.partition("alias=")[2] for line in told["Network"] if "alias=" in line]
    assert named == [service]


@every_unit
def test_a_unit_is_told_what_the_service_is(service: str, unit: str) -> None:
    one, told = SERVICES[service], read(unit)
    ours = dict(pair.split("=", 1) for line in told.get("Environment", []) for pair in line.split())
    theirs = {name: text for name, value in one.get("environment", {}).items() if (text := plain(str(value)))}
    assert ours == theirs


@every_unit
def test_a_unit_is_asked_after_its_health_as_the_service_is(service: str, unit: str) -> None:
    check, told = SERVICES[service].get("healthcheck"), read(unit)
    if check is None:
        assert "HealthCmd" not in told
        return
    assert ["CMD", *json.loads(told["HealthCmd"][0])] == check["test"]
    assert told["HealthInterval"] == [check["interval"]]
    assert told["HealthTimeout"] == [check["timeout"]]
    assert told["HealthStartPeriod"] == [check["start_period"]]
    assert told["HealthRetries"] == [str(check["retries"])]


def test_the_server_starts_when_what_it_needs_is_healthy() -> None:
    needed = {"agent-postgres.service", "agent-redis.service"}
    told = read("agent-app@")
    assert set(told["Requires"][0].split()) == set(told["After"][0].split()) == needed
    assert [read(unit)["Notify"] for unit in ("agent-postgres", "agent-redis", "agent-app@")] == [["healthy"]] * 3


def test_the_network_of_the_data_leads_nowhere() -> None:
    assert "Internal=true" in (FOLDER / "agent-data.network").read_text().splitlines()
