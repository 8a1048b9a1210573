"""Run ``agent-service`` as a process, in an environment that the test controls."""

import contextlib
import os
import re
import signal
import subprocess
import sys
from pathlib import Path

from tests import fork_server
from tests.waiting import until

ROOT = Path(__file__).parents[2]
PEPPER = "0123456789abcdef" * 4
SECONDS = 60


def environment(**settings: str) -> dict[str, str]:
    """Return this process's environment, from which ``tests.conftest`` removed settings, with ``settings``."""
    path = os.pathsep.join([str(ROOT), *filter(None, [os.environ.get("PYTHONPATH")])])
    return {**os.environ, "PYTHONPATH": path, **settings}


def run_command(folder: Path, *words: str, **settings: str) -> subprocess.CompletedProcess[str]:
    """Run a command in ``folder`` and wait for its end."""
    return fork_server.run("app", *words, cwd=folder, env=environment(**settings), timeout=SECONDS)


def only_line(done: subprocess.CompletedProcess[str]) -> str:
    """Return the one line of a failed command, without its prefix."""
    assert done.stdout == ""
    [line] = done.stderr.splitlines()
    return line.removeprefix("agent-service: ")


class Running:
    """A command in the background; ``fresh``: in a new interpreter, which takes two seconds to import it."""

    process: fork_server.ForkedProcess | subprocess.Popen[bytes]

    def __init__(self, folder: Path, *words: str, fresh: bool = False, **settings: str) -> None:
        self._output = folder / f"output-{len(list(folder.glob('output-*')))}"
        env = environment(**settings)
        with self._output.open("wb") as output:
            if fresh:
                command, err = [sys.executable, "-m", "app", *words], subprocess.STDOUT
                self.process = subprocess.Popen(
                    command, cwd=folder, env=env, stdout=output, stderr=err, start_new_session=True
                )
            else:
                self.process = fork_server.start(
                    "app", *words, cwd=folder, env=env, stdout=output, start_new_session=True
                )

    def output(self) -> str:
        """Return its output so far."""
        return self._output.read_text()

    def printed(self, pattern: str) -> re.Match[str]:
        """Wait until ``pattern`` matches its output and return the first match."""

        def found() -> re.Match[str] | None:
            assert self.process.poll() is None or re.search(pattern, self.output()), self.output()
            return re.search(pattern, self.output())

        match: re.Match[str] = until(found, SECONDS)
        return match

    def stop(self, number: signal.Signals) -> int:
        """Send signal ``number`` and return the exit code."""
        self.process.send_signal(number)
        return self.process.wait(SECONDS)

    def terminate(self) -> None:
        """Stop it gracefully, so that its children stop, too; then kill its process group."""
        with contextlib.suppress(subprocess.TimeoutExpired):
            self.stop(signal.SIGTERM)
        with contextlib.suppress(ProcessLookupError):
            os.killpg(self.process.pid, signal.SIGKILL)
        self.process.wait()
