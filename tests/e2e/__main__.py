"""``make e2e``: image, stack, Prometheus, SDK, rolling restart, cold start and stop, on real containers.

The environment may set the commands PODMAN, COMPOSE and NGINX_PROGRAM. Without podman, compose or the images
(E2E_PULL=1 pulls them) it prints SKIPPED and exits with 0. It uses only loopback and podman's
networks, and every step has a timeout.
"""

import asyncio
import os
import re
import shutil
import sys
import tempfile
import time
import tomllib
from collections.abc import Callable
from pathlib import Path

from tests.e2e import checks
from tests.e2e.podman import Failed, Missing, Podman
from tests.e2e.rolling import rolling
from tests.e2e.stack import ROOT, Stack, clone, until

IMAGE = "localhost/agent-service:e2e"
PROFILED = {"GRAFANA_IMAGE"}


def needed() -> list[str]:
    """Return the images of the Containerfile and compose.yaml, except the optional ones."""
    text = (ROOT / "compose.yaml").read_text("utf-8")
    named = [(name, image) for name, image in re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", text) if name != "APP_IMAGE"]
    base = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Containerfile").read_text("utf-8"), re.MULTILINE)
    return [*base, *(image for name, image in named if name not in PROFILED)]


def require_images(podman: Podman) -> None:
    """Pull missing images if E2E_PULL is set. Raises ``Missing``."""
    missing = [image for image in needed() if not podman.holds("image", "exists", image)]
    if missing and os.environ.get("E2E_PULL"):
        missing = [image for image in missing if not podman.holds("pull", "--quiet", image)]
    if missing:
        raise Missing(f"no image {', '.join(missing)}: pull them, or set E2E_PULL=1 to have them pulled")


class StepLog:
    """Runs steps, prints their results and times, and counts failures."""

    def __init__(self) -> None:
        self.failed = 0
        self.left = 0

    def step(self, name: str, do: Callable[[], str]) -> bool:
        """Run a step; return whether it succeeded."""
        started_at = time.monotonic()
        try:
            seen, word = do(), "ok"
        except Failed as error:
            seen, word = str(error), "FAILED"
            self.failed += 1
        except Missing as error:
            seen, word = str(error), "SKIPPED"
            self.left += 1
        print(f"{word:8}{name:12}{time.monotonic() - started_at:7.1f} s  {seen}", flush=True)
        return word == "ok"


def build(podman: Podman, folder: Path) -> str:
    """Build the image from a clone."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    words = ("--network", "host", "--format", "docker", "--quiet", "--build-arg", f"VERSION={version}")
    podman("build", *words, "--tag", IMAGE, ".", folder=clone(folder))
    return "built"


def up(stack: Stack) -> str:
    """Start all services and wait until they are healthy."""
    started_at = time.monotonic()
    stack.compose("up", "--detach")
    until(stack.is_up, 120, "every service is healthy")
    return f"{len(stack.containers())} containers healthy after {time.monotonic() - started_at:.1f} s"


def run_steps(steps: StepLog, stack: Stack, folder: Path) -> None:
    """Run the steps that need the stack."""
    with stack.ticker():
        if not steps.step("up", lambda: up(stack)):
            return
        key = stack.key()
        steps.step("contained", lambda: checks.contained(stack))
        steps.step("sdk", lambda: asyncio.run(checks.conversation(stack, key)))
        steps.step("doctor", lambda: checks.doctor(stack, key, folder))
        steps.step("scraped", lambda: checks.scraped(stack))
        steps.step("traced", lambda: checks.traced(stack))
        steps.step("rolling", lambda: asyncio.run(rolling(stack, key, folder)))
        steps.step("cold start", lambda: checks.cold_start(stack))
        steps.step("stop", lambda: checks.stopped(stack))


def main() -> int:
    """Run everything; 0 if all steps succeeded or podman is missing, else 1."""
    steps = StepLog()
    folder = Path(tempfile.mkdtemp(prefix="agent-service-e2e-"))
    folder.chmod(0o755)  # nginx' workers and the users of containers need access
    try:
        podman = Podman()
        require_images(podman)
        print(f"podman {podman.version}; {podman.compose_version}", flush=True)
        for name in ("clone", "stack", "nginx", "extended"):
            (folder / name).mkdir()
        if not steps.step("build", lambda: build(podman, folder / "clone")):
            return 1
        steps.step("image", lambda: checks.image(podman, IMAGE))
        steps.step("extended", lambda: checks.extended(podman, IMAGE, folder / "extended"))
        stack = Stack(podman, folder / "stack", IMAGE)
        try:
            run_steps(steps, stack, folder / "nginx")
        finally:
            stack.down()
    except Missing as error:
        print(f"SKIPPED: nothing was run: {error}")
        return 0
    except Failed as error:
        print(f"FAILED  {error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("all steps succeeded" if not steps.failed + steps.left else f"{steps.failed} failed, {steps.left} skipped")
    return 1 if steps.failed else 0


if __name__ == "__main__":
    sys.exit(main())
