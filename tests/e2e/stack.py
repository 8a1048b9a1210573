"""A deployment folder of `agent-service init`, and the stack that compose starts from it."""

import contextlib
import json
import shutil
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any

from tests.e2e.podman import Failed, Podman, Ticker
from tests.ports import free_port

ROOT = Path(__file__).parents[2]
PROJECT = "agent-service-e2e"
SERVICES = ("app", "app-2", "postgres", "redis", "prometheus", "otel-collector")
WITHOUT_CHECK = {"otel-collector"}


def until(holds: Callable[[], bool], seconds: float, what: str) -> float:
    """Wait for a condition; return the seconds it took. Raises ``Failed``."""
    started_at = time.monotonic()
    while not holds():
        if time.monotonic() - started_at > seconds:
            raise Failed(f"not within {seconds:g} s: {what}")
        time.sleep(0.05)
    return time.monotonic() - started_at


def status(url: str) -> int:
    """Return the status of a GET; 0 without a response."""
    try:
        with urllib.request.urlopen(url, timeout=2) as answer:
            code: int = answer.status
            return code
    except urllib.error.HTTPError as error:
        return error.code
    except OSError:
        return 0


def get_json(url: str) -> Any:
    """Return the JSON of a GET."""
    with contextlib.closing(urllib.request.urlopen(url, timeout=5)) as answer:
        return json.load(answer)


def clone(folder: Path) -> Path:
    """Copy the files that git knows to ``folder``."""
    names = subprocess.run(
        ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"],
        cwd=ROOT,
        stdout=subprocess.PIPE,
        check=True,
    ).stdout
    for name in names.decode().split("\0"):
        if name and (ROOT / name).is_file():
            (folder / name).parent.mkdir(parents=True, exist_ok=True)
            shutil.copy2(ROOT / name, folder / name)
    return folder


class Stack:
    """A deployment folder with its ports and containers."""

    def __init__(self, podman: Podman, folder: Path, image: str) -> None:
        self.podman = podman
        self.folder = folder
        self.app, self.other, self.prometheus = free_port(), free_port(), free_port()
        done = subprocess.run(
            [sys.executable, "-m", "app", "init", str(folder)], cwd=ROOT, capture_output=True, text=True, check=False
        )
        if done.returncode:
            raise Failed(f"agent-service init: {done.stderr.strip()}")
        (folder / ".env").write_text(
            f"APP_IMAGE={image}\nAPP_PORT={self.app}\nAPP_2_PORT={self.other}\nPROMETHEUS_PORT={self.prometheus}\n"
            f"COMPOSE_PROFILES=pair\nROOT_PATH=/agents\n",
            "utf-8",
        )

    def compose(self, *words: str, seconds: float = 300) -> str:
        """Run a compose command on this stack."""
        return self.podman.compose(self.folder, "-p", PROJECT, "--profile", "pair", *words, seconds=seconds)

    def containers(self) -> dict[str, str]:
        """Return the names of running containers by service."""
        lines = self.podman("ps", "--filter", f"name={PROJECT}", "--format", "{{.Names}}").splitlines()
        found: dict[str, str] = {}
        for service in SERVICES:
            for line in lines:
                if line.removeprefix(PROJECT)[1:-2] == service:
                    found[service] = line
        return found

    def health(self, service: str) -> str:
        """Return podman's health status: ``healthy``, ``starting``, …"""
        name = self.containers().get(service)
        state = self.podman.inspect(name)["State"] if name else {}
        word: str = (state.get("Health") or state.get("Healthcheck") or {}).get("Status") or "none"
        return word

    def is_up(self) -> bool:
        """Whether every service runs, and those with a health check are healthy."""
        there = self.containers()
        return set(there) == set(SERVICES) and all(
            self.health(service) == "healthy" for service in SERVICES if service not in WITHOUT_CHECK
        )

    def ticker(self) -> Ticker:
        """Return a ticker for the health checks of its containers."""
        return Ticker(
            self.podman,
            lambda: [name for service, name in self.containers().items() if service not in WITHOUT_CHECK],
        )

    def key(self) -> str:
        """Create an API key of the role operator, for a tenant without a rate limit."""
        words = ("exec", "-T", "app", "agent-service", "keys", "create", "--name", "e2e", "--role", "operator")
        lines = self.compose(*words).split()
        found = [word for word in lines if word.startswith("as_")]
        if not found:
            raise Failed("agent-service keys create printed no key")
        self.compose("exec", "-T", "app", "agent-service", "tenants", "limits", "default", "--set", "rate_per_minute=0")
        return found[0]

    def ready(self, port: int) -> bool:
        """Whether the server on ``port`` is ready."""
        return status(f"http://127.0.0.1:{port}/readyz") == 200

    def down(self) -> None:
        """Remove everything, including the data."""
        self.compose("down", "--volumes", "--timeout", "20")
