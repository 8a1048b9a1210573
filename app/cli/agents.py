"""``agent-service agents``: list the configured agents or check that they load. Needs no database."""

import argparse
import asyncio
import sys
from collections.abc import Callable
from typing import TYPE_CHECKING, Any

from app.base.errors import AgentServiceError
from app.cli.terminal.output import print_styled, print_table
from app.cli.terminal.parser import agents_file, declare_agents_file, sub_command

if TYPE_CHECKING:  # imported where it is used, so that --help is quick
    from app.agents.config.agents_file import AgentSpec


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the actions list and check."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    for name, does in (("list", "list the configured agents"), ("check", "load every agent and report errors")):
        action = sub_command(actions, name, does, f"agents {name} agents.toml")
        declare_agents_file(action)


def run(arguments: argparse.Namespace) -> int:
    """Print a table or the checks; exit code 1 if an agent does not load."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    from app.agents.config.agents_file import read
    from app.cli.agent_checks import agent_checks, broken_graphs, broken_servers, mcp_servers
    from app.infra.settings.environment import load
    from app.infra.telemetry.meters import Meters
    from app.providers.llm.registry import ModelRegistry

    settings = load()
    file = read(agents_file(arguments) or settings.agents.config)
    for sentence in file.ignored:
        print_styled(("ignored", "yellow"), (f" {sentence}", ""), out=sys.stderr)
    meters = Meters()
    models = ModelRegistry(settings.llm, meters)
    try:
        if arguments.action == "list":
            default = models.default()[0]
            rows = [
                (
                    name,
                    _kind(spec),
                    spec.model or default,
                    ", ".join(spec.tools) or "-",
                )
                for name, spec in file.agents.items()
            ]
            print_table(("NAME", "KIND", "MODEL", "TOOLS"), rows)
            return 0
        broken = {**await broken_graphs(file), **await broken_servers(settings, file)}
        checks = agent_checks(settings, file, models, meters, broken, mcp_servers(settings, file))
        results = [_print_check(name, check) for name, check in checks]
        return 0 if all(results) else 1
    finally:
        await models.aclose()


def _kind(spec: "AgentSpec") -> str:
    if spec.graph:
        return f"graph {spec.graph}"
    return f"function {spec.function}" if spec.function else "tool loop"


def _print_check(name: str, build: Callable[[], Any]) -> bool:
    try:
        build()
    except AgentServiceError as error:
        print_styled(("failed", "red"), (f"  {name}: {error}", ""))
        return False
    print_styled(("ok", "green"), (f"      {name}", ""))
    return True
