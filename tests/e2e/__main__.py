"""``make e2e``: image, whole stack, Prometheus, SDK, rolling restart, cold start and stop, on real containers.

Words from the environment: PODMAN, COMPOSE, NGINX_PROGRAM. Without podman, its compose, or the images (E2E_PULL=1 has
them pulled) it says SKIPPED and ends with 0. Everything is on loopback and podman's networks, and bounded in time.
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
    """The images that the Containerfile and compose.yaml name, but for the optional ones."""
    text = (ROOT / "compose.yaml").read_text("utf-8")
    named = [(name, image) for name, image in re.findall(r"\$\{(\w+_IMAGE):-([^}]+)\}", text) if name != "APP_IMAGE"]
    base = re.findall(r"^ARG PYTHON_IMAGE=(\S+)", (ROOT / "Containerfile").read_text("utf-8"), re.MULTILINE)
    return [*base, *(image for name, image in named if name not in PROFILED)]


def look_for_images(podman: Podman) -> None:
    """Raise ``Missing`` for those that are not there."""
    lacking = [image for image in needed() if not podman.holds("image", "exists", image)]
    if lacking and os.environ.get("E2E_PULL"):
        lacking = [image for image in lacking if not podman.holds("pull", "--quiet", image)]
    if lacking:
        raise Missing(f"no image {', '.join(lacking)}: pull them, or set E2E_PULL=1 to have them pulled")


class Sheet:
    """Says each step with its time; remembers whether one failed."""

    def __init__(self) -> None:
        self.failed = 0
        self.left = 0

    def step(self, name: str, do: Callable[[], str]) -> bool:
        """Do it; whether it held."""
        began = time.monotonic()
        try:
            seen, word = do(), "ok"
        except Failed as error:
            seen, word = str(error), "FAILED"
            self.failed += 1
        except Missing as error:
            seen, word = str(error), "SKIPPED"
            self.left += 1
        print(f"{word:8}{name:12}{time.monotonic() - began:7.1f} s  {seen}", flush=True)
        return word == "ok"


def build(podman: Podman, folder: Path) -> str:
    """The image out of a clone."""
    version = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["version"]
    words = ("--network", "host", "--format", "docker", "--quiet", "--build-arg", f"VERSION={version}")
    podman("build", *words, "--tag", IMAGE, ".", folder=clone(folder))
    return "built"


def up(stack: Stack) -> str:
    """All services, healthy."""
    began = time.monotonic()
    stack.compose("up", "--detach")
    until(stack.is_up, 120, "every service is healthy")
    return f"{len(stack.containers())} containers healthy after {time.monotonic() - began:.1f} s"


def through(sheet: Sheet, stack: Stack, folder: Path) -> None:
    """What is looked at while the stack is up."""
    with stack.ticker():
        if not sheet.step("up", lambda: up(stack)):
            return
        key = stack.key()
        sheet.step("contained", lambda: checks.contained(stack))
        sheet.step("sdk", lambda: asyncio.run(checks.conversation(stack, key)))
        sheet.step("doctor", lambda: checks.doctor(stack, key, folder))
        sheet.step("scraped", lambda: checks.scraped(stack))
        sheet.step("traced", lambda: checks.traced(stack))
        sheet.step("rolling", lambda: asyncio.run(rolling(stack, key, folder)))
        sheet.step("cold start", lambda: checks.cold_start(stack))
        sheet.step("stop", lambda: checks.stopped(stack))


def main() -> int:
    """0 when all held or podman is not here, 1 otherwise."""
    sheet = Sheet()
    folder = Path(tempfile.mkdtemp(prefix="agent-service-e2e-"))
    folder.chmod(0o755)  # nginx' workers and the users of containers go through it
    try:
        podman = Podman()
        look_for_images(podman)
        print(f"podman {podman.version}; {podman.compose_version}", flush=True)
        for name in ("clone", "stack", "nginx", "extended"):
            (folder / name).mkdir()
        if not sheet.step("build", lambda: build(podman, folder / "clone")):
            return 1
        sheet.step("image", lambda: checks.image(podman, IMAGE))
        sheet.step("extended", lambda: checks.extended(podman, IMAGE, folder / "extended"))
        stack = Stack(podman, folder / "stack", IMAGE)
        try:
            through(sheet, stack, folder / "nginx")
        finally:
            stack.down()
    except Missing as error:
        print(f"SKIPPED: nothing was tried: {error}")
        return 0
    except Failed as error:
        print(f"FAILED  {error}")
        return 1
    finally:
        shutil.rmtree(folder, ignore_errors=True)
    print("all held" if not sheet.failed + sheet.left else f"{sheet.failed} failed, {sheet.left} skipped")
    return 1 if sheet.failed else 0


if __name__ == "__main__":
    sys.exit(main())
