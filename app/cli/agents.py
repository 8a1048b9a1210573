"""``agent-service agents``: what is configured, and whether it loads. Needs no database."""

import argparse
import asyncio

from app.agents.catalog import build
from app.agents.config import AgentsFile, AgentSpec, read
from app.base.errors import AgentServiceError
from app.cli.output import GREEN, RED, styled, table
from app.llm.registry import Registry
from app.settings import load
from app.telemetry.meters import Meters


def declare(parser: argparse.ArgumentParser) -> None:
    """list, check."""
    parser.epilog = "example: agent-service agents check --agents agents.toml"
    verbs = parser.add_subparsers(dest="action", metavar="ACTION", required=True)
    for name, words in (("list", "list the agents"), ("check", "load every agent and say what is wrong")):
        verb = verbs.add_parser(name, help=words)
        verb.add_argument("--agents", metavar="FILE", help="the agents file (default: AGENT_CONFIG, or agents.toml)")


def run(arguments: argparse.Namespace) -> int:
    """Print a table; 1 when an agent does not load."""
    return asyncio.run(_run(arguments))


async def _run(arguments: argparse.Namespace) -> int:
    settings = load()
    file = read(arguments.agents or settings.agents.config)
    models = Registry(settings.llm, Meters())
    try:
        if arguments.action == "list":
            default = models.default()[0]
            rows = [
                (name, "tool loop", spec.model or default, ", ".join(spec.tools) or "-")
                for name, spec in file.agents.items()
            ]
            print(table(("NAME", "KIND", "MODEL", "TOOLS"), rows))
            return 0
        problems = [_check(name, spec, file, models) for name, spec in file.agents.items()]
        return 1 if any(problems) else 0
    finally:
        await models.aclose()


def _check(name: str, spec: AgentSpec, file: AgentsFile, models: Registry) -> bool:
    try:
        build(name, spec, file, models.model, lambda *_: None)
    except AgentServiceError as error:
        print(f"{styled('failed', RED)}  {name}: {error}")
        return True
    print(f"{styled('ok', GREEN)}  {name}")
    return False
