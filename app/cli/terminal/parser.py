"""The form of the command line: one look for every help, one line for every wrong use."""

import argparse
import sys
from typing import Any, NoReturn

from app.base.errors import UsageError


class HelpFormatter(argparse.RawDescriptionHelpFormatter):
    """The library's form, with headings that stand out where somebody looks."""

    def start_section(self, heading: str | None) -> None:
        """Begin a group of lines."""
        if heading is not None and sys.stdout.isatty():
            from app.cli.terminal.output import BOLD, styled

            heading = styled(heading, BOLD)
        super().start_section(heading)


class CommandParser(argparse.ArgumentParser):
    """Wrong use is one line, like every other error."""

    def __init__(self, **options: Any) -> None:
        super().__init__(**{"formatter_class": HelpFormatter, **options})

    def error(self, message: str) -> NoReturn:
        """End with the line."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def sub_command(commands: Any, name: str, does: str, example: str) -> argparse.ArgumentParser:
    """Add the command ``name`` to ``commands`` (what ``add_subparsers`` gave)."""
    added: argparse.ArgumentParser = commands.add_parser(
        name, help=does, description=f"{does[:1].upper()}{does[1:]}.", epilog=f"example: agent-service {example}"
    )
    return added
