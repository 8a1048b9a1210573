"""``agent-service serve``: the production server. Refuses to start with unsafe settings."""

import argparse
import signal
from typing import Any, NoReturn

from app.base.hide_modules import hide_modules
from app.cli.child_process import run_in_child
from app.cli.terminal.parser import agents_file, declare_agents_file
from app.infra.telemetry.shared_buffer import MetricsBuffers
from app.server.parent import SPARE_NUMBERS, ParentProcess
from app.server.parent_log import parent_logger
from app.server.sockets import listen
from app.server.worker_context import WorkerContext
from app.server.worker_renewal import ReplacementPolicy

ROLES = ("all", "api", "worker")

GRACE_SECONDS = 10.0
"""Seconds that a worker has in addition to its drain timeout before it is killed."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options."""
    parser.add_argument("--host", help="the address to listen on (default: HOST, or 127.0.0.1)")
    parser.add_argument("--port", metavar="N", help="the port to listen on (default: PORT, or 8000)")
    parser.add_argument("--workers", metavar="N", help="worker processes (default: WORKERS, or 1)")
    declare_agents_file(parser)
    parser.add_argument("--strict", action="store_true", help="refuse to start if a graph cannot be loaded")
    parser.add_argument("--role", choices=ROLES, help="answer requests, execute runs, or both (default: all)")


def run(arguments: argparse.Namespace) -> int:
    """Check the settings, then serve until a signal arrives."""
    signal.signal(signal.SIGTERM, exit_before_serving)
    arguments.agents = agents_file(arguments)
    overrides = given_settings(
        arguments, HOST="host", PORT="port", WORKERS="workers", AGENT_CONFIG="agents", AGENT_ROLE="role"
    )
    plan = run_in_child(lambda: prepare(overrides, strict=arguments.strict))

    say, host, port = parent_logger(plan["log_format"]), plan["host"], plan["port"]
    listeners = listen(host, port, plan["workers"])
    metrics = listen(host, plan["metrics_port"])[0] if plan["metrics_port"] not in {0, port} else None
    metrics_buffers = MetricsBuffers(plan["workers"] + SPARE_NUMBERS)

    def work(context: WorkerContext) -> int:
        with hide_modules("rich"):  # structlog would import it for coloured tracebacks, unused here: 4 MB
            from app.server.application import work

        context.metrics = metrics
        return work(context, metrics_buffers, overrides, {})

    parent = ParentProcess(listeners, work, grace=plan["drain"] + GRACE_SECONDS, say=say)
    parent.renewal = ReplacementPolicy(**plan["renewal"])
    parent.reloads = True
    parent.on_end = metrics_buffers.on_worker_exit
    parent.on_ready = lambda about: say(
        "info", "serving", host=host, port=port, model=about.get("model", ""), agents=about.get("agents", "")
    )
    return parent.run()


def exit_before_serving(*_: object) -> NoReturn:
    """Exit on SIGTERM during start-up: process 1 of a container ignores it without a handler."""
    raise SystemExit(0)


def given_settings(arguments: argparse.Namespace, **names: str) -> dict[str, str]:
    """Return the given arguments by setting; they take precedence over the environment."""
    given = {setting: getattr(arguments, name) for setting, name in names.items()}
    return {setting: text for setting, text in given.items() if text is not None}


def require_graphs(config: str) -> None:
    """Load the graphs of the agents file ``config``. Raises ``StartError`` for those that cannot be used."""
    from app.agents.config.agents_file import read
    from app.cli import agent_checks

    agent_checks.require_graphs(read(config))


def prepare(overrides: dict[str, str], *, strict: bool = False) -> dict[str, Any]:
    """Check the settings, migrate if configured, and return what the parent needs. Runs in a child process."""
    from app.agents.config.agents_file import read
    from app.infra.settings.environment import check_serving, load

    settings = load(overrides=overrides)
    check_serving(settings, handled=read(settings.agents.config).auth is not None)
    if strict:
        require_graphs(settings.agents.config)
    if settings.database.migrate_on_start and (owner := settings.database.owner_url) is not None:
        from app.infra.db.migrations import upgrade

        upgrade(owner.reveal())
    server = settings.server
    return {
        "host": server.host,
        "port": server.port,
        "metrics_port": server.metrics_port,
        "workers": server.workers,
        "log_format": server.log_format,
        "drain": settings.runs.drain_seconds,
        "renewal": {
            "stuck": server.stuck_seconds,
            "lifetime": server.worker_lifetime,
            "max_rss": server.worker_max_rss,
        },
    }
