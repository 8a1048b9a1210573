"""Argument parsers with uniform help, which report wrong usage in one line."""

import argparse
import sys
from typing import Any, NoReturn

from app.base.errors import UsageError


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """Help formatter with bold headings on a terminal."""

    def start_section(self, heading: str | None) -> None:
        """Start a section with its heading."""
        if heading is not None and sys.stdout.isatty():
            from app.cli.terminal.output import BOLD, styled

            heading = styled(heading, BOLD)
        super().start_section(heading)


class CommandParser(argparse.ArgumentParser):
    """Argument parser that raises ``UsageError``, reported in one line like every error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        """Raise ``UsageError``."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def declare_agents_file(parser: argparse.ArgumentParser) -> None:
    """Declare how a command is given its agents file: as an argument or as an option (``agents_file``)."""
    parser.add_argument("file", nargs="?", metavar="FILE", help="an agents.toml or a langgraph.json, as --agents")
    parser.add_argument("--agents", metavar="FILE", help="the agents file (default: AGENT_CONFIG, or agents.toml)")


def agents_file(arguments: argparse.Namespace) -> str | None:
    """Return the agents file that a command was given."""
    given: str | None = arguments.agents or arguments.file
    return given


def sub_command(commands: Any, name: str, does: str, example: str) -> argparse.ArgumentParser:
    """Add the command ``name`` to ``commands``, the result of ``add_subparsers``."""
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=does, description=f"{does[:1].upper()}{does[1:]}.", epilog=f"example: agent-service {example}"
    )
    return added
