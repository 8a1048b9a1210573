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


def sub_command(commands: Any, name: str, does: str, example: str) -> argparse.ArgumentParser:
    """Add the command ``name`` to ``commands``, the result of ``add_subparsers``."""
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=does, description=f"{does[:1].upper()}{does[1:]}.", epilog=f"example: agent-service {example}"
    )
    return added
