"""Run podman and compose; run health checks where no systemd does."""

import json
import os
import shlex
import shutil
import subprocess
import threading
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any, Self

SECONDS = 900
"""Timeout of a command."""


class Missing(Exception):
    """A requirement is missing: the test is skipped."""


class Failed(Exception):
    """A check failed; the message says which."""


class Podman:
    """Podman and compose; ``PODMAN`` and ``COMPOSE`` in the environment set their commands."""

    def __init__(self) -> None:
        self.words = shlex.split(os.environ.get("PODMAN", "podman"))
        if shutil.which(self.words[0]) is None:
            raise Missing(f"{self.words[0]} is not installed (PODMAN names another)")
        self.version = self("--version").removeprefix("podman version ")
        self.compose_words = shlex.split(os.environ.get("COMPOSE", shlex.join([*self.words, "compose"])))
        done = self._run_command([*self.compose_words, "version"], None, 60)
        if done.returncode:
            raise Missing(
                f"`{shlex.join(self.compose_words)}` does not work: podman 4.7 with docker-compose or podman-compose, "
                f"or the words of another in COMPOSE"
            )
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "version" in line.lower()]
        self.compose_version = lines[0].strip() if lines else "unknown"

    def __call__(self, *words: str, folder: Path | None = None, seconds: float = SECONDS) -> str:
        """Run a command and return its output. Raises ``Failed``."""
        return self._output([*self.words, *words], folder, seconds)

    def compose(self, folder: Path, *words: str, seconds: float = SECONDS) -> str:
        """Run a compose command in ``folder`` and return its output. Raises ``Failed``."""
        return self._output([*self.compose_words, *words], folder, seconds)

    def holds(self, *words: str) -> bool:
        """Whether the command succeeds."""
        return self._run_command([*self.words, *words], None, SECONDS).returncode == 0

    def both(self, *words: str) -> str:
        """Run a command; return its standard output and error, also if it fails."""
        done = self._run_command([*self.words, *words], None, SECONDS)
        return done.stdout + done.stderr

    def inspect(self, name: str) -> dict[str, Any]:
        """Return the inspection of a container."""
        found: list[dict[str, Any]] = json.loads(self("container", "inspect", name))
        return found[0]

    def _output(self, command: Sequence[str], folder: Path | None, seconds: float) -> str:
        done = self._run_command(command, folder, seconds)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "no output").splitlines()[-5:]
            raise Failed(f"{shlex.join(command)}: exit code {done.returncode}: {' | '.join(last)}")
        return done.stdout.strip()

    @staticmethod
    def _run_command(command: Sequence[str], folder: Path | None, seconds: float) -> subprocess.CompletedProcess[str]:
        try:
            return subprocess.run(
                command,
                cwd=folder,
                stdin=subprocess.DEVNULL,
                capture_output=True,
                text=True,
                timeout=seconds,
                check=False,
            )
        except subprocess.TimeoutExpired as error:
            raise Failed(f"{shlex.join(command)} was not done after {seconds:g} s") from error


class Ticker:
    """Runs health checks of the containers that ``names`` returns, where no systemd does so for podman."""

    def __init__(self, podman: Podman, names: Callable[[], Sequence[str]]) -> None:
        self._podman = podman
        self._names = names
        self._stopped = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        if not Path("/run/systemd/system").is_dir() or os.environ.get("HEALTH_TICKER"):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._stopped.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._stopped.wait(1.0):
            try:
                for name in self._names():
                    self._podman.holds("healthcheck", "run", name)
            except Failed:
                continue  # containers that are not running are ignored
