"""``agent-service dev``: a development server with an embedded PostgreSQL and automatic reload.

Changed sources are found by polling modification times: no thread, no dependency.
"""

import argparse
import contextlib
import math
import os
import signal
import time
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

from app.base.errors import StartError, UsageError
from app.base.hide_modules import hide_modules
from app.cli.child_process import run_in_child
from app.cli.health import LOOPBACK_FOR, probe
from app.cli.serve import GRACE_SECONDS, exit_before_serving, given_settings, require_graphs
from app.cli.terminal.output import BOLD, DIM, GREEN, styled
from app.cli.terminal.parser import agents_file, declare_agents_file
from app.infra.db.embedded import EmbeddedDatabase
from app.infra.settings.environment import Settings, is_loopback, load
from app.infra.telemetry.shared_buffer import MetricsBuffers
from app.server.parent import SPARE_NUMBERS, ParentProcess
from app.server.parent_log import LogFunction, parent_logger
from app.server.sockets import listen
from app.server.worker_context import WorkerContext

SUFFIX = ".py"
SKIPPED = frozenset({"__pycache__", "node_modules", "site-packages"})
MIN_INTERVAL = 0.4
"""Minimum seconds between two scans."""
MAX_LOAD = 20
"""Scans may take one part in so many of the time: large folders are scanned less often."""

READY_SECONDS = 10.0

RELAUNCH_SECONDS = 5.0
"""Seconds between attempts to start a database that has ended."""

DEFAULT_FILE = "agents.toml"
"""Copied from ``app.agents.config.agents_file``, whose import would use the parent's memory."""


class SourceWatcher:
    """Watch the Python files below ``folders``, except hidden folders, and ``files``, which may not exist yet."""

    def __init__(self, folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
        self.watch(folders, files)

    def watch(self, folders: Iterable[Path], files: Iterable[Path] = ()) -> None:
        """Watch these folders and files from now on."""
        self._folders = sorted({folder.resolve() for folder in folders})
        self._files = sorted({str(file.absolute()) for file in files})
        self._known = self._scan()

    def found(self) -> str:
        """Return a file that was changed, created or removed since the last scan; empty if none or too soon."""
        if time.monotonic() < self.due:
            return ""
        before, self._known = self._known, self._scan()
        changed = before.items() ^ self._known.items()
        return min(path for path, _ in changed) if changed else ""

    def _scan(self) -> dict[str, int]:
        started_at = time.monotonic()
        seen = dict(entry for folder in self._folders for entry in _modification_times(str(folder)))
        for file in self._files:
            with contextlib.suppress(OSError):
                seen[file] = os.stat(file).st_mtime_ns  # noqa: PTH116  as cheap as the scan above
        now = time.monotonic()
        self.due = now + max(MIN_INTERVAL, (now - started_at) * MAX_LOAD)
        return seen


def _modification_times(folder: str) -> Iterator[tuple[str, int]]:
    try:
        entries = list(os.scandir(folder))
    except OSError:
        return
    for entry in entries:
        try:
            if entry.is_dir(follow_symlinks=False):
                if not entry.name.startswith(".") and entry.name not in SKIPPED:
                    yield from _modification_times(entry.path)
            elif entry.name.endswith(SUFFIX):
                yield entry.path, entry.stat().st_mtime_ns
        except OSError:
            continue


DEFAULTS = {
    "AGENT_AUTH": "none",
    "AGENT_DRAIN_SECONDS": "5",
    "AGENT_EGRESS_ALLOW": "localhost,127.0.0.0/8,::1",
    "AGENT_LOG_RUNS": "true",
}
"""For one developer: no keys, a quick shutdown, and webhooks to the same machine."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--port", metavar="N", help="the port to listen on (default: PORT, or 8000)")
    parser.add_argument("--host", help="the address to listen on (default: HOST, or 127.0.0.1)")
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="where the database lives (default: AGENT_DATA_DIR, or .data)"
    )
    declare_agents_file(parser)
    parser.add_argument("--strict", action="store_true", help="refuse to start if a graph cannot be loaded")
    parser.add_argument(
        "--reload", action="store_true", help="replace the worker when a Python file, the agents file or .env changes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start PostgreSQL, migrate and serve until a signal; then stop PostgreSQL."""
    started_at = time.monotonic()
    signal.signal(signal.SIGTERM, exit_before_serving)
    arguments.agents = agents_file(arguments)
    overrides = given_settings(arguments, HOST="host", PORT="port", AGENT_DATA_DIR="data_dir", AGENT_CONFIG="agents")
    overrides["METRICS_PORT"] = "0"
    settings = load(overrides=overrides, defaults=DEFAULTS)
    server = settings.server
    if settings.auth.mode == "none" and not is_loopback(server.host) and not _has_custom_auth(settings):
        raise UsageError(f"dev on {server.host} would be open to everybody: leave out --host, or use serve")
    if arguments.strict:
        run_in_child(lambda: require_graphs(settings.agents.config))
    listeners = listen(server.host, server.port)
    database = EmbeddedDatabase(Path(settings.database.data_dir))
    try:
        url = database.start()
        overrides |= {"DATABASE_URL": url, "MIGRATE_DATABASE_URL": url}
        run_in_child(lambda: _migrate(url))

        metrics_buffers = MetricsBuffers(1 + SPARE_NUMBERS)

        def work(context: WorkerContext) -> int:
            with hide_modules("rich"):  # structlog would import it for coloured tracebacks, unused here: 4 MB
                from app.server.application import work

            return work(context, metrics_buffers, overrides, DEFAULTS)

        say = parent_logger(server.log_format)
        parent = ParentProcess(listeners, work, grace=settings.runs.drain_seconds + GRACE_SECONDS, say=say)
        if arguments.reload:
            parent.changed = _source_watcher(settings)
        parent.on_end = metrics_buffers.on_worker_exit
        parent.on_ready = _StartupMessage(settings, started_at).show
        parent.tend = DatabaseKeeper(database, say).tend
        return parent.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # an impatient Ctrl-C must not interrupt the database's shutdown
        database.stop()


class DatabaseKeeper:
    """Restarts the embedded database when it has ended, as PostgreSQL does on a full disk, and says why."""

    def __init__(self, database: EmbeddedDatabase, say: LogFunction) -> None:
        self._database = database
        self._say = say
        self._due = 0.0

    def tend(self) -> float:
        """Restart a database that has ended; return the seconds until the next look, which its end precedes."""
        now = time.monotonic()
        if now < self._due:
            return self._due - now
        reason = self._database.ended()
        if not reason:
            return math.inf
        self._say("error", "database_ended", reason=reason, again_in=RELAUNCH_SECONDS)
        self._database.relaunch()
        self._due = now + RELAUNCH_SECONDS
        return RELAUNCH_SECONDS


def _source_watcher(settings: Settings) -> Callable[[], str]:
    """Return what finds changed sources of agents: below the current folder, and where the agents file names code."""
    agents = Path(settings.agents.config or DEFAULT_FILE)
    folders, files = {Path.cwd(), agents.resolve().parent}, {agents, Path(".env")}

    def read_again() -> None:
        with contextlib.suppress(StartError):  # else the change that repairs it is one of the file itself
            named_folders, named_files = run_in_child(lambda: _named_sources(settings))
            folders.update(map(Path, named_folders))
            files.update(map(Path, named_files))

    read_again()
    watcher = SourceWatcher(folders, files)

    def changed() -> str:
        found = watcher.found()
        if found:
            read_again()
            watcher.watch(folders, files)
        return found

    return changed


def _named_sources(settings: Settings) -> tuple[list[str], list[str]]:
    """Return the folders of the code that the agents file names, and the files that it names besides."""
    from app.agents.config.agents_file import read

    file = read(settings.agents.config)
    code = [name.rpartition(":")[0] for spec in file.agents.values() for name in (spec.graph, spec.function)]
    folders = [str((file.folder / name).parent) for name in code if name.endswith(".py")]
    paths = file.graphs.paths(file.folder) if any(spec.graph for spec in file.agents.values()) else ()
    env = file.graphs.env
    return [*folders, *paths], [str(file.folder / env)] if isinstance(env, str) else []


def _has_custom_auth(settings: Settings) -> bool:
    from app.agents.config.agents_file import read

    return read(settings.agents.config).auth is not None


def _migrate(url: str) -> None:
    from app.infra.db.migrations import upgrade

    upgrade(url)


class _StartupMessage:
    """The message printed once the server answers, and after each reload."""

    def __init__(self, settings: Settings, started_at: float) -> None:
        self._settings = settings
        self._started_at = started_at
        self._was_shown = False

    def show(self, about: dict[str, str]) -> None:
        """Print the message. Raises ``StartError`` if the server does not answer."""
        if self._was_shown:
            print(f"  {styled('ready again', GREEN)}: {about.get('agents', '')}\n", flush=True)
            return
        server = self._settings.server
        deadline = time.monotonic() + READY_SECONDS
        while problem := probe(server.host, server.port):
            if time.monotonic() > deadline:
                raise StartError(f"the server started but does not answer ({problem}): see its log above")
            time.sleep(0.02)
        print(startup_message(self._settings, about, time.monotonic() - self._started_at), flush=True)
        self._was_shown = True


def startup_message(settings: Settings, about: dict[str, str], seconds: float) -> str:
    """Format the addresses, the model and why, the agents, the data folder and a first request."""
    host = LOOPBACK_FOR.get(settings.server.host, settings.server.host)
    base = f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"
    key = " -H 'X-Api-Key: YOUR KEY'" if settings.auth.mode == "api_key" else ""
    body = '{"assistant_id": "assistant", "stream_mode": "updates", "input": "What time is it, and what is 12*(3+4)?"}'
    data = Path(settings.database.data_dir).resolve()
    details = {name.capitalize(): text for name, text in about.items()}
    console = {"Console": f"{base}/"} if settings.server.console == "on" else {}
    addresses = {**console, "API": f"{base}/api/v1", "Docs": f"{base}/docs"}
    rows = {**addresses, **details, "Data": f"{data} (kept between starts)"}
    lines = [
        f"\n  {styled('agent-service', BOLD)} is {styled('ready', GREEN)} in {seconds:.1f} s\n",
        *(f"  {styled(name.ljust(7), DIM)} {value}" for name, value in rows.items()),
        f"\n  {styled('Try', DIM)}",
        f"  curl -N {base}/api/v1/runs/stream -H 'Content-Type: application/json'{key} \\",
        f"    -d '{body}'",
        f"\n  {styled('Ctrl-C stops it. For this machine only; for others use agent-service serve.', DIM)}\n",
    ]
    return "\n".join(lines)
