"""Checks that run other programs: make in a source tree, podman or docker."""

import json
import os
import shutil
import signal
import subprocess
from functools import partial
from pathlib import Path
from typing import Any

from app.cli.doctor.checklist import Checklist, CheckUnavailable

SOURCE = {
    "lint": 300,
    "format-check": 300,
    "types": 900,
    "contracts": 300,
    "migrations": 600,
    "secrets-scan": 600,
    "test": 7200,
    "image": 1800,
}
"""Targets of make, with their timeouts in seconds."""
SLOW = ("test", "image")
NO_PRIVILEGES = "no-new-privileges"


def source(checklist: Checklist, folder: Path | None, *, quick: bool) -> None:
    """Run each make target in ``folder``."""
    if folder is None:
        checklist.omit("source", "tree", "no --source, and this folder is not a source tree")
        return
    for target, seconds in SOURCE.items():
        if quick and target in SLOW:
            checklist.omit("source", target, "--quick")
        else:
            command = ["make", "-C", str(folder), "--no-print-directory", target]
            checklist.check("source", target, " ".join(command), "exit code 0", partial(run_command, command, seconds))


def is_source(folder: Path) -> bool:
    """Whether ``folder`` is a source tree of this program."""
    project = folder / "pyproject.toml"
    return (folder / "Makefile").is_file() and project.is_file() and 'name = "agent-service"' in project.read_text()


def run_command(command: list[str], seconds: float) -> tuple[bool, str]:
    """Run ``command``; return whether it succeeds within ``seconds``, and the last line of its output.

    Raises ``CheckUnavailable`` if it is not installed. On a timeout its whole process group is killed.
    """
    if shutil.which(command[0]) is None:
        raise CheckUnavailable(f"{command[0]} is not installed")
    with subprocess.Popen(
        command, stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, start_new_session=True
    ) as process:
        try:
            output, _ = process.communicate(timeout=seconds)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, signal.SIGKILL)
            return False, f"not done after {seconds:g} s"
        except BaseException:
            os.killpg(process.pid, signal.SIGKILL)
            raise
    lines = [line for line in output.decode("utf-8", "replace").splitlines() if line.strip()]
    if process.returncode == 0:
        return True, "exit code 0"
    relevant = [line for line in lines if not line.startswith("make")]
    return False, f"exit code {process.returncode}: {(relevant or lines or [''])[-1]}"


def container(checklist: Checklist, name: str) -> None:
    """Check the hardening of the running container ``name``."""
    if not name:
        checklist.omit("container", "hardened", "no --container")
        return
    engine = next((one for one in ("podman", "docker") if shutil.which(one)), "podman")
    inspect = f"{engine} inspect {name}"
    inspected: dict[str, Any] = {}

    def running() -> tuple[bool, str]:
        if shutil.which(engine) is None:
            raise CheckUnavailable("neither podman nor docker is installed")
        done = subprocess.run([engine, "inspect", name], capture_output=True, text=True, timeout=30, check=False)
        found = json.loads(done.stdout or "[]")
        if not found:
            return False, f"no container {name}"
        inspected.update(found[0])
        return inspected["State"]["Status"] == "running", inspected["State"]["Status"]

    if not checklist.check("container", "running", inspect, "running", running):
        checklist.omit("container", "hardened", "it does not run")
        return
    host = inspected["HostConfig"]
    user = str(inspected["Config"].get("User") or "root")
    dropped = [one.upper().removeprefix("CAP_") for one in host.get("CapDrop") or []]
    # podman lists each dropped capability and the effective ones; docker repeats the configuration
    left = (
        inspected["EffectiveCaps"] or []
        if "EffectiveCaps" in inspected
        else []
        if "ALL" in dropped
        else ["the default ones"]
    )
    left = [*left, *(host.get("CapAdd") or [])]
    options = host.get("SecurityOpt") or []
    health = (inspected["State"].get("Health") or inspected["State"].get("Healthcheck") or {}).get("Status") or "none"
    rows = (
        ("user", "not root", user.partition(":")[0] not in {"0", "root"}, user),
        ("read-only root", "true", bool(host.get("ReadonlyRootfs")), str(host.get("ReadonlyRootfs")).lower()),
        ("capabilities", "none", not left, ", ".join(left) or "none"),
        (NO_PRIVILEGES, "set", any(one.startswith(NO_PRIVILEGES) for one in options), ", ".join(options) or "none"),
        ("privileged", "false", not host.get("Privileged"), str(bool(host.get("Privileged"))).lower()),
        ("memory limit", "set", bool(host.get("Memory")), f"{(host.get('Memory') or 0) / 1e6:.0f} MB"),
        ("health check", "healthy", health == "healthy", health),
    )
    for check, expected, holds, seen in rows:
        checklist.check("container", check, inspect, expected, lambda h=holds, s=seen: (h, s))  # type: ignore[misc]
