"""Start ``python -m <module>`` by a fork of a process that has imported the program: milliseconds, not two seconds.

A child has its own environment, folder, standard streams and exit code, as a fresh interpreter has. Only the imports
have happened before: use ``subprocess`` where a test is about those, or about the memory that they take.
"""

import array
import atexit
import contextlib
import functools
import gc
import importlib
import json
import os
import pkgutil
import random
import runpy
import select
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import IO, Any

ROOT = Path(__file__).parents[1]
MAX_REQUEST = 1 << 17
STATUS = 2
"""Bytes of an exit code."""
PID = 4
"""Bytes of a process id."""


class ForkedProcess:
    """A started process, used as one of ``subprocess.Popen``."""

    def __init__(self, arguments: Sequence[str], report: int) -> None:
        self.args = [sys.executable, "-m", *arguments]
        self._report = report
        self._lock = threading.Lock()
        self.pid = int.from_bytes(_read(report, PID))
        self.returncode: int | None = None

    def poll(self) -> int | None:
        """Return the exit code, None while it runs."""
        return self._wait(0)

    def wait(self, timeout: float | None = None) -> int:
        """Wait for the exit code. Raises ``subprocess.TimeoutExpired``."""
        code = self._wait(timeout)
        if code is None:
            raise subprocess.TimeoutExpired(self.args, timeout or 0)
        return code

    def _wait(self, timeout: float | None) -> int | None:
        with self._lock:
            if self.returncode is None and select.select([self._report], [], [], timeout)[0]:
                self.returncode = int.from_bytes(_read(self._report, STATUS), signed=True)
                os.close(self._report)
            return self.returncode

    def send_signal(self, number: int) -> None:
        """Send a signal, unless it has ended."""
        if self.poll() is None:
            with contextlib.suppress(ProcessLookupError):
                os.kill(self.pid, number)

    def terminate(self) -> None:
        """Send SIGTERM."""
        self.send_signal(signal.SIGTERM)

    def kill(self) -> None:
        """Send SIGKILL."""
        self.send_signal(signal.SIGKILL)


def _read(report: int, size: int) -> bytes:
    """Read what the server reports: without it nothing is known of the process, neither its id nor how it ended."""
    found = os.read(report, size)
    if len(found) < size:
        raise RuntimeError("the fork server has ended: look for its traceback, or for a lack of memory")
    return found


class ForkServer:
    """The client's end of a fork server, which ends with this process."""

    def __init__(self) -> None:
        self._control, theirs = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
        with theirs:
            self._process = subprocess.Popen(
                [sys.executable, "-m", "tests.fork_server", str(theirs.fileno())],
                cwd=ROOT,
                pass_fds=[theirs.fileno()],
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                start_new_session=True,
            )
        atexit.register(self._close)

    def _close(self) -> None:
        self._control.close()
        self._process.wait()

    def start(self, request: dict[str, Any], streams: Sequence[int]) -> ForkedProcess:
        """Start a process with three ``streams``."""
        ours, theirs = os.pipe()
        descriptors = array.array("i", [*streams, theirs])
        self._control.sendmsg(
            [json.dumps(request).encode()], [(socket.SOL_SOCKET, socket.SCM_RIGHTS, descriptors.tobytes())]
        )
        os.close(theirs)
        return ForkedProcess(request["arguments"], ours)


@functools.cache
def fork_server() -> ForkServer:
    """The fork server of this process, started on first use."""
    return ForkServer()


def start(
    *arguments: str,
    cwd: Path | None = None,
    env: Mapping[str, str] | None = None,
    stdout: IO[Any] | int = subprocess.DEVNULL,
    stderr: IO[Any] | int = subprocess.STDOUT,
    start_new_session: bool = False,
) -> ForkedProcess:
    """Start ``python -m`` with ``arguments``; the parameters are those of ``subprocess.Popen``."""
    request = {
        "arguments": arguments,
        "cwd": str(cwd or Path.cwd()),
        "env": dict(os.environ if env is None else env),
        "new_session": start_new_session,
    }
    with Path(os.devnull).open("r+b", buffering=0) as nothing:
        out = nothing if stdout == subprocess.DEVNULL else stdout
        err = out if stderr == subprocess.STDOUT else stderr
        return fork_server().start(request, [nothing.fileno(), _number(out), _number(err)])


def _number(stream: IO[Any] | int) -> int:
    return stream if isinstance(stream, int) else stream.fileno()


def run(
    *arguments: str, cwd: Path | None = None, env: Mapping[str, str] | None = None, timeout: float = 60
) -> subprocess.CompletedProcess[str]:
    """Run ``python -m`` with ``arguments`` to its end and capture its output."""
    with _captured() as out, _captured() as err:
        process = start(*arguments, cwd=cwd, env=env, stdout=out, stderr=err)
        try:
            code = process.wait(timeout)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()
            raise
        texts = [os.pread(file, os.fstat(file).st_size, 0).decode() for file in (out, err)]
    return subprocess.CompletedProcess(process.args, code, *texts)


@contextlib.contextmanager
def _captured() -> Any:
    file = os.memfd_create("output")
    try:
        yield file
    finally:
        os.close(file)


# --- the server -------------------------------------------------------------------------------------------------------


def import_program() -> None:
    """Import what servers and commands import, and nothing of any user's."""
    from app.base.hide_modules import hide_modules

    with hide_modules("rich"):  # as ``serve`` and ``dev`` do
        importlib.import_module("app.server.application")
    cli = importlib.import_module("app.cli")
    for module in pkgutil.walk_packages(cli.__path__, "app.cli."):
        importlib.import_module(module.name)
    importlib.import_module("app.infra.db.migrations")


def serve(control: socket.socket) -> dict[str, Any] | None:
    """Fork for each request until the client's end closes: return None; in a child, return its request."""
    ended, wake = os.pipe()
    for descriptor in (ended, wake):
        os.set_blocking(descriptor, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    reports: dict[int, int] = {}
    while True:
        readable, _, _ = select.select([control.fileno(), ended], [], [])
        if ended in readable:
            os.read(ended, 4096)
            _report_ended(reports)
        if control.fileno() in readable:
            text, ancillary, _, _ = control.recvmsg(MAX_REQUEST, socket.CMSG_SPACE(4 * array.array("i").itemsize))
            if not text:
                _end(reports)
                return None
            descriptors = array.array("i")
            descriptors.frombytes(ancillary[0][2])
            pid = os.fork()
            if pid == 0:
                request: dict[str, Any] = json.loads(text)
                _become(request, list(descriptors[:3]))
                return request
            os.write(descriptors[3], pid.to_bytes(PID))
            reports[pid] = descriptors[3]
            for descriptor in descriptors[:3]:
                os.close(descriptor)


def _end(children: Iterable[int]) -> None:
    """Let no server outlive a test process that was killed."""
    for pid in children:
        with contextlib.suppress(ProcessLookupError):
            os.kill(pid, signal.SIGTERM)


def _report_ended(reports: dict[int, int]) -> None:
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            report = reports.pop(ended[0])
            with contextlib.suppress(BrokenPipeError):
                os.write(report, os.waitstatus_to_exitcode(ended[1]).to_bytes(STATUS, signed=True))
            os.close(report)


def _become(request: dict[str, Any], streams: list[int]) -> None:
    signal.set_wakeup_fd(-1)
    signal.signal(signal.SIGCHLD, signal.SIG_DFL)
    if request["new_session"]:
        os.setsid()
    for number, stream in enumerate(streams):
        os.dup2(stream, number)
    os.closerange(3, max(int(open_file.name) for open_file in Path("/proc/self/fd").iterdir()) + 1)
    os.chdir(request["cwd"])
    os.environ.clear()
    os.environ.update(request["env"])
    path = os.environ.get("PYTHONPATH", "")
    sys.path[:1] = [request["cwd"], *filter(None, path.split(os.pathsep))]
    sys.argv = ["-m", *request["arguments"][1:]]
    random.seed()


def main() -> None:
    """Serve on the inherited socket that the argument names; in a child, run the module."""
    import_program()
    gc.freeze()
    with socket.socket(fileno=int(sys.argv[1])) as control:
        request = serve(control)
        control.detach()
    if request is not None:
        try:
            runpy.run_module(request["arguments"][0], run_name="__main__", alter_sys=True)
        except SystemExit as ended:
            if isinstance(ended.code, int):
                _exit(ended.code)
            raise


def _exit(code: int) -> None:
    """End as the interpreter does, without taking a thousand modules apart, which copies their memory."""
    threading._shutdown()  # type: ignore[attr-defined]
    atexit._run_exitfuncs()
    sys.stdout.flush()
    sys.stderr.flush()
    os._exit(code)


if __name__ == "__main__":
    main()
