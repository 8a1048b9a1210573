"""``agent-service`` as a program of its own, with an environment that the test alone decides on."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests.serving.processes import until

ROOT = Path(__file__).parents[2]
PEPPER = "0123456789abcdef" * 4
SECONDS = 60


def environment(**settings: str) -> dict[str, str]:
    """This process's environment (``tests.conftest`` has emptied it of settings) and ``settings``."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **settings}


def ran(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """A command that has ended, run in ``folder``."""
    return subprocess.run(
        [sys.executable, "-m", "app", *words],
        cwd=folder,
        env=environment(**settings),
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """The one line in which a command said what was wrong."""
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return line.removeprefix("agent-service: ")


class Running:
    """A command that goes on until it is told to end."""

    def __init__(self, folder: Path, *words: str, **settings: str) -> None:
        self._output = folder / f"output-{len(list(folder.glob('output-*')))}"
        with self._output.open("wb") as output:
            self.process = subprocess.Popen(
                [sys.executable, "-m", "app", *words],
                cwd=folder,
                env=environment(**settings),
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )

    def output(self) -> str:
        """What it has printed so far."""
        return self._output.read_text()

    def printed(self, pattern: str) -> re.Match[str]:
        """The first place in its output that ``pattern`` matches, once there is one."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None or re.search(pattern, self.output()), self.output()
            return re.search(pattern, self.output())

        match: re.Match[str] = until(found, SECONDS)
        return match

    def ended(self, number: signal.Signals) -> int:
        """Its exit code after ``number``."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def clear_away(self) -> None:
        """End it, first in order, so that what it has started ends too."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.ended(signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
