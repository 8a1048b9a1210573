"""The command ``agent-service``: parses, runs one verb, and turns what goes wrong into one line."""

import argparse
import importlib
import os
import sys
from collections.abc import Sequence

from app.base.errors import AgentServiceError, UsageError

VERBS = {
    "dev": "start a server on an embedded PostgreSQL, for this machine",
    "serve": "start a production server on your PostgreSQL",
    "migrate": "bring the database to the newest schema",
    "keys": "create, list and revoke API keys",
    "agents": "list the configured agents, or check that each loads",
    "version": "print the version",
}
"""Each is a module of this package with ``declare(parser)`` and ``run(arguments) -> int``, imported when it is used."""

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


class Help(argparse.RawDescriptionHelpFormatter):
    """The library's form, with headings that stand out where somebody looks."""

    def start_section(self, heading: str | None) -> None:
        """Begin a group of lines."""
        if heading is not None and sys.stdout.isatty():
            from app.cli.output import BOLD, styled

            heading = styled(heading, BOLD)
        super().start_section(heading)


class Parser(argparse.ArgumentParser):
    """Wrong use is one line, like every other error."""

    def error(self, message: str) -> None:  # type: ignore[override]
        """End with the line."""
        raise UsageError(f"{message} (see {self.prog} --help)")


def parser_for(arguments: Sequence[str]) -> Parser:
    """The parser of the command; only the verb that ``arguments`` name is imported."""
    parser = Parser(
        prog="agent-service",
        description="A self-hosted production server for AI agents.",
        epilog="example: agent-service dev",
        formatter_class=Help,
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    asked = next((word for word in arguments if not word.startswith("-")), "")
    for name, words in VERBS.items():
        sub = verbs.add_parser(name, help=words, description=f"{words[:1].upper()}{words[1:]}.", formatter_class=Help)
        if name == asked:
            importlib.import_module(f"app.cli.{name}").declare(sub)
    return parser


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; the exit code: 0, 1 for a failure, 2 for wrong use, 130 for Ctrl-C."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        given = parser_for(words).parse_args(words)
        return int(importlib.import_module(f"app.cli.{given.verb}").run(given))
    except UsageError as error:
        return _said(str(error), WRONG_USE)
    except AgentServiceError as error:
        return _said(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # the edge: a person gets a line, whatever it was
        if _wants_traceback():
            raise
        return _said(f"{type(error).__name__}: {error}; set LOG_LEVEL=debug for the traceback", FAILED)


def _said(sentence: str, code: int) -> int:
    print(f"agent-service: {' '.join(sentence.split())}", file=sys.stderr)
    return code


def _wants_traceback() -> bool:
    from app.settings import load

    try:
        return load().server.log_level == "debug"
    except AgentServiceError:
        return False


if __name__ == "__main__":
    sys.exit(main())
