"""The container engine as the steps use it: podman and its compose, with health checks where no systemd runs them."""

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
"""What any one command may take."""


class Missing(Exception):
    """What is needed here and is not: the whole is skipped, loudly."""


class Failed(Exception):
    """A sentence that says what did not hold."""


class Podman:
    """The words that start podman are those of ``PODMAN``; those that start its compose of ``COMPOSE``."""

    def __init__(self) -> None:
        self.words = shlex.split(os.environ.get("PODMAN", "podman"))
        if shutil.which(self.words[0]) is None:
            raise Missing(f"{self.words[0]} is not installed (PODMAN names another)")
        self.version = self("--version").removeprefix("podman version ")
        self.compose_words = shlex.split(os.environ.get("COMPOSE", shlex.join([*self.words, "compose"])))
        done = self._ran([*self.compose_words, "version"], None, 60)
        if done.returncode:
            raise Missing(
                f"`{shlex.join(self.compose_words)}` does not work: podman 4.7 with docker-compose or podman-compose, "
                f"or the words of another in COMPOSE"
            )
        lines = [line for line in (done.stdout + done.stderr).splitlines() if "version" in line.lower()]
        self.compose_version = lines[0].strip() if lines else "unknown"

    def __call__(self, *words: str, folder: Path | None = None, seconds: float = SECONDS) -> str:
        """What the command printed. Raises ``Failed``."""
        return self._output([*self.words, *words], folder, seconds)

    def compose(self, folder: Path, *words: str, seconds: float = SECONDS) -> str:
        """The same of the compose file in ``folder``."""
        return self._output([*self.compose_words, *words], folder, seconds)

    def holds(self, *words: str) -> bool:
        """Whether the command ends well."""
        return self._ran([*self.words, *words], None, SECONDS).returncode == 0

    def both(self, *words: str) -> str:
        """What the command printed, on both ways, whatever came of it."""
        done = self._ran([*self.words, *words], None, SECONDS)
        return done.stdout + done.stderr

    def inspect(self, name: str) -> dict[str, Any]:
        """What podman knows of a container."""
        told: list[dict[str, Any]] = json.loads(self("container", "inspect", name))
        return told[0]

    def _output(self, command: Sequence[str], folder: Path | None, seconds: float) -> str:
        done = self._ran(command, folder, seconds)
        if done.returncode:
            last = (done.stderr.strip() or done.stdout.strip() or "it said nothing").splitlines()[-5:]
            raise Failed(f"{shlex.join(command)}: exit code {done.returncode}: {' | '.join(last)}")
        return done.stdout.strip()

    @staticmethod
    def _ran(command: Sequence[str], folder: Path | None, seconds: float) -> subprocess.CompletedProcess[str]:
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
    """Runs the health checks of the containers that ``names`` gives, where no systemd does so for podman."""

    def __init__(self, podman: Podman, names: Callable[[], Sequence[str]]) -> None:
        self._podman = podman
        self._names = names
        self._ended = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)

    def __enter__(self) -> Self:
        if not Path("/run/systemd/system").is_dir() or os.environ.get("HEALTH_TICKER"):
            self._thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._ended.set()
        if self._thread.is_alive():
            self._thread.join()

    def _run(self) -> None:
        while not self._ended.wait(1.0):
            try:
                for name in self._names():
                    self._podman.holds("healthcheck", "run", name)
            except Failed:
                continue  # what does not run cannot be asked; the steps wait for those that matter
