"""``agent-service dev``: everything for one machine, started by one command."""

import argparse
import signal
import time
from pathlib import Path

from app.base.errors import StartError, UsageError
from app.base.lean import without
from app.cli.apart import apart
from app.cli.health import EVERY_ADDRESS, ask
from app.cli.output import BOLD, DIM, GREEN, styled
from app.cli.serve import GRACE_SECONDS, leave, words_of
from app.db.embedded import EmbeddedDatabase
from app.serving.changes import Changes
from app.serving.events import sayer
from app.serving.listening import listen
from app.serving.parent import SPARE_NUMBERS, Parent
from app.serving.station import Station
from app.settings import Settings, is_loopback, load
from app.telemetry.board import Boards

DEFAULTS = {"AGENT_AUTH": "none", "AGENT_DRAIN_SECONDS": "5", "AGENT_EGRESS_ALLOW": "localhost,127.0.0.0/8,::1"}
"""A developer is alone, waits less for a stop than an operator, and receives webhooks on the same machine."""

READY_SECONDS = 10.0

DEFAULT_FILE = "agents.toml"
"""As ``app.agents.config`` has it, which would weigh on the parent."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Where, with which data and agents."""
    parser.add_argument("--port", metavar="N", help="the port to listen on (default: PORT, or 8000)")
    parser.add_argument("--host", help="the address to listen on (default: HOST, or 127.0.0.1)")
    parser.add_argument(
        "--data-dir", metavar="FOLDER", help="where the database lives (default: AGENT_DATA_DIR, or .data)"
    )
    parser.add_argument("--agents", metavar="FILE", help="the agents file (default: AGENT_CONFIG, or agents.toml)")
    parser.add_argument(
        "--reload", action="store_true", help="replace the worker when a Python file, the agents file or .env changes"
    )


def run(arguments: argparse.Namespace) -> int:
    """Start PostgreSQL, migrate, serve; stop PostgreSQL at the end."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, leave)
    overrides = words_of(arguments, HOST="host", PORT="port", AGENT_DATA_DIR="data_dir", AGENT_CONFIG="agents")
    overrides["METRICS_PORT"] = "0"
    settings = load(overrides=overrides, defaults=DEFAULTS)
    server = settings.server
    if settings.auth.mode == "none" and not is_loopback(server.host) and not _tells_who_asks(settings):
        raise UsageError(f"dev on {server.host} would be open to everybody; leave out --host, or use serve")
    listeners = listen(server.host, server.port)
    database = EmbeddedDatabase(Path(settings.database.data_dir))
    try:
        url = database.start()
        overrides |= {"DATABASE_URL": url, "MIGRATE_DATABASE_URL": url}
        apart(lambda: _migrate(url))

        boards = Boards(1 + SPARE_NUMBERS)

        def work(station: Station) -> int:
            with without("rich"):  # coloured tracebacks, which nobody here asks structlog for: 4 MB
                from app.cli.application import work

            return work(station, boards, overrides, DEFAULTS)

        parent = Parent(
            listeners, work, grace=settings.runs.drain_seconds + GRACE_SECONDS, say=sayer(server.log_format)
        )
        if arguments.reload:
            agents = Path(settings.agents.config or DEFAULT_FILE)
            parent.changed = Changes({Path.cwd(), agents.resolve().parent}, [agents, Path(".env")]).found
        parent.on_end = boards.left
        parent.on_ready = _Screen(settings, began).show
        return parent.run()
    finally:
        for number in (signal.SIGTERM, signal.SIGINT):
            signal.signal(number, signal.SIG_IGN)  # the database is stopped in order, however impatient one is
        database.stop()


def _tells_who_asks(settings: Settings) -> bool:
    from app.agents.config import read

    return read(settings.agents.config).auth is not None


def _migrate(url: str) -> None:
    from app.db.migrate import upgrade

    upgrade(url)


class _Screen:
    """What a person sees once the server answers, and after each reload."""

    def __init__(self, settings: Settings, began: float) -> None:
        self._settings = settings
        self._began = began
        self._shown = False

    def show(self, about: dict[str, str]) -> None:
        """Called when a worker is ready."""
        if self._shown:
            print(f"  {styled('ready again', GREEN)}: {about.get('agents', '')}\n", flush=True)
            return
        server = self._settings.server
        deadline = time.monotonic() + READY_SECONDS
        while trouble := ask(server.host, server.port):
            if time.monotonic() > deadline:
                raise StartError(f"the server started and does not answer ({trouble}): look at its log above")
            time.sleep(0.02)
        print(first_screen(self._settings, about, time.monotonic() - self._began), flush=True)
        self._shown = True


def first_screen(settings: Settings, about: dict[str, str], seconds: float) -> str:
    """What serves, where, with which model and why, and one thing to try."""
    host = EVERY_ADDRESS.get(settings.server.host, settings.server.host)
    base = f"http://{f'[{host}]' if ':' in host else host}:{settings.server.port}"
    key = " -H 'X-Api-Key: YOUR KEY'" if settings.auth.mode == "api_key" else ""
    body = '{"assistant_id": "assistant", "stream_mode": "updates", "input": "What time is it, and what is 12*(3+4)?"}'
    data = Path(settings.database.data_dir).resolve()
    told = {name.capitalize(): text for name, text in about.items()}
    rows = {"API": f"{base}/api/v1", "Docs": f"{base}/docs", **told, "Data": f"{data} (kept between starts)"}
    lines = [
        f"\n  {styled('agent-service', BOLD)} is {styled('ready', GREEN)} in {seconds:.1f} s\n",
        *(f"  {styled(name.ljust(7), DIM)} {value}" for name, value in rows.items()),
        f"\n  {styled('Try', DIM)}",
        f"  curl -N {base}/api/v1/runs/stream -H 'Content-Type: application/json'{key} \\",
        f"    -d '{body}'",
        f"\n  {styled('Ctrl-C stops it. For this machine alone; for others use agent-service serve.', DIM)}\n",
    ]
    return "\n".join(lines)
