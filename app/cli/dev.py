"""``agent-service dev``: everything for one machine, started by one command."""

import argparse
import asyncio
import contextlib
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any

from app.base.errors import StartError, UsageError
from app.cli.apart import apart
from app.cli.health import ask
from app.cli.output import BOLD, DIM, GREEN, styled
from app.cli.serve import application, check
from app.db.embedded import EmbeddedDatabase
from app.server import Listening, check_port, serve
from app.settings import Settings, is_loopback, load

READY_SECONDS = 60.0
DRAIN_SECONDS = 5.0
"""A developer waits less for a stop than an operator."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Where, with which data and agents."""
    parser.epilog = "example: agent-service dev --port 8001 --agents agents.toml --reload"
    parser.add_argument("--port", help="the port to listen on (PORT, 8000)")
    parser.add_argument("--host", help="the address to listen on (HOST, 127.0.0.1)")
    parser.add_argument("--data-dir", metavar="FOLDER", help="where the database lives (AGENT_DATA_DIR, .data)")
    parser.add_argument("--agents", metavar="FILE", help="the agents file (AGENT_CONFIG, agents.toml)")
    parser.add_argument("--reload", action="store_true", help="start anew when a source or the agents file changes")


def run(arguments: argparse.Namespace) -> int:
    """Start PostgreSQL, migrate, serve; stop PostgreSQL at the end."""
    began = time.monotonic()
    signal.signal(signal.SIGTERM, _leave)
    settings = _settings(arguments)
    check_port(settings.server.host, settings.server.port)
    database = EmbeddedDatabase(Path(settings.database.data_dir))
    url = database.start()
    try:
        settings = _settings(arguments, DATABASE_URL=url, MIGRATE_DATABASE_URL=url, AGENT_MIGRATE_ON_START="1")
        facts = apart(lambda: prepare(settings))
        _announce(settings, facts, began)
        serve(
            Listening(
                host=settings.server.host,
                port=settings.server.port,
                workers=1,
                drain_seconds=settings.runs.drain_seconds,
                reload_paths=_watched(settings) if arguments.reload else (),
            ),
            lambda: _application(settings, forgiving=arguments.reload),
        )
    finally:
        database.stop()
    return 0


def _leave(*_: Any) -> None:
    raise SystemExit(0)


def _settings(arguments: argparse.Namespace, **more: str) -> Settings:
    given = {
        "PORT": arguments.port,
        "HOST": arguments.host,
        "AGENT_DATA_DIR": arguments.data_dir,
        "AGENT_CONFIG": arguments.agents,
    }
    overrides = {name: value for name, value in given.items() if value is not None} | more
    defaults = {"AGENT_AUTH": "none", "AGENT_DRAIN_SECONDS": f"{DRAIN_SECONDS:g}"}
    settings = load(overrides=overrides, defaults=defaults)
    if settings.auth.mode == "none" and not is_loopback(settings.server.host):
        raise UsageError(f"dev on {settings.server.host} would be open to everybody; leave out --host, or use serve")
    return settings


def prepare(settings: Settings) -> dict[str, Any]:
    """Migrate, check that everything loads, and tell what the first screen says."""
    from app.agents.config import read
    from app.llm.registry import Registry
    from app.telemetry.meters import Meters

    check(settings)

    async def facts() -> dict[str, Any]:
        models = Registry(settings.llm, Meters())
        try:
            model, reason = models.default()
            return {"model": model, "reason": reason, "agents": list(read(settings.agents.config).agents)}
        finally:
            await models.aclose()

    return asyncio.run(facts())


def _announce(settings: Settings, facts: dict[str, Any], began: float) -> None:
    """Print the first screen from a child of its own once the server is ready; the parent serves meanwhile."""
    sys.stdout.flush()
    if os.fork() != 0:
        return
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.signal(signal.SIGINT, signal.SIG_DFL)
    parent = os.getppid()
    deadline = time.monotonic() + READY_SECONDS
    with contextlib.suppress(OSError):
        while os.getppid() == parent and time.monotonic() < deadline:
            if not ask(settings.server.host, settings.server.port):
                print(screen(settings, facts, time.monotonic() - began), flush=True)
                break
            time.sleep(0.03)
    os._exit(0)


def screen(settings: Settings, facts: dict[str, Any], seconds: float) -> str:
    """The first screen: what serves, where, with which model and why, and one thing to try."""
    base = f"http://{settings.server.host}:{settings.server.port}"
    body = '{"assistant_id": "assistant", "input": "What time is it, and what is 12*(3+4)?", "stream_mode": "messages-tuple"}'
    rows = [
        ("API", f"{base}/api/v1"),
        ("Docs", f"{base}/docs"),
        ("Model", f"{facts['model']} ({facts['reason']})"),
        ("Agents", ", ".join(facts["agents"])),
        ("Data", str(Path(settings.database.data_dir).resolve())),
    ]
    lines = [f"\n  {styled('agent-service', BOLD)} is {styled('ready', GREEN)} in {seconds:.1f} s\n"]
    lines += [f"  {styled(name.ljust(7), DIM)} {value}" for name, value in rows]
    lines += [
        f"\n  {styled('Try', DIM)}",
        f"  curl -N {base}/api/v1/runs/stream -H 'Content-Type: application/json' \\",
        f"    -d '{body}'",
        f"\n  {styled('Ctrl-C stops it. For this machine alone; for others use agent-service serve.', DIM)}\n",
    ]
    return "\n".join(lines)


def _watched(settings: Settings) -> tuple[Path, ...]:
    places = {Path.cwd(), Path(settings.agents.config).resolve().parent if settings.agents.config else Path.cwd()}
    return tuple(sorted(places))


def _application(settings: Settings, *, forgiving: bool) -> Any:
    if not forgiving:
        return application(settings)
    try:
        return application(settings)
    except StartError as error:
        words = str(error)
        print(f"agent-service: {words}; waiting for a change", file=sys.stderr)
        return _broken(words)


def _broken(words: str) -> Any:
    """An application that tells everybody what is wrong with the sources until they are mended."""

    async def answer(scope: Any, receive: Any, send: Any) -> None:
        if scope["type"] == "lifespan":
            for kind in ("startup", "shutdown"):
                await receive()
                await send({"type": f"lifespan.{kind}.complete"})
            return
        headers = [(b"content-type", b"text/plain; charset=utf-8")]
        await send({"type": "http.response.start", "status": 503, "headers": headers})
        await send({"type": "http.response.body", "body": words.encode()})

    return answer
