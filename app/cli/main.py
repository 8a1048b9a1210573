"""The command ``agent-service``: parses, runs one verb, and turns what goes wrong into one line."""

import importlib
import os
import sys
from collections.abc import Sequence

from app.base.errors import AgentServiceError, UsageError
from app.cli.terminal.parser import CommandParser, sub_command

VERBS = {
    "dev": ("start a server on an embedded PostgreSQL, for this machine", "dev --port 8001 --reload"),
    "serve": ("start a production server on your PostgreSQL", "serve --host 0.0.0.0 --workers 2"),
    "init": ("write a deployment folder: compose.yaml, secrets, an example agent; overwrite nothing", "init my-agents"),
    "migrate": ("bring the database to the newest schema", "migrate"),
    "keys": ("create, list, rotate and revoke API keys", "keys create --name ci --expires 90d"),
    "tenants": ("a tenant's own limits, and what it has spent", "tenants limits acme --set rate_per_minute=600"),
    "data": (
        "export or delete what belongs to a tenant or to one person",
        "data export --tenant acme --out acme.jsonl",
    ),
    "store": (
        "load the long-term memory of a tenant from a file, or write it into one",
        "store import items.jsonl.zst --tenant acme",
    ),
    "doctor": ("go through the deployment checklist, row by row", "doctor --url http://127.0.0.1:8000 --quick"),
    "agents": ("list the configured agents, or check that each loads", "agents check --agents agents.toml"),
    "version": ("print the version", "version"),
}
"""Each is a module of this package with ``declare(parser)`` and ``run(arguments) -> int``, imported when it is used."""

FAILED, WRONG_USE, INTERRUPTED = 1, 2, 130


def parser_for(arguments: Sequence[str]) -> CommandParser:
    """The parser of the command; only the verb that ``arguments`` name is imported."""
    parser = CommandParser(
        prog="agent-service",
        description="A self-hosted production server for AI agents.",
        epilog="example: agent-service dev",
    )
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB", required=True)
    asked = next((word for word in arguments if not word.startswith("-")), "")
    for name, (does, example) in VERBS.items():
        added = sub_command(verbs, name, does, example)
        if name == asked:
            importlib.import_module(f"app.cli.{name}").declare(added)
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
    except Exception as error:  # noqa: BLE001  the edge: whatever it was, a person gets a line
        from app.cli.terminal.unexpected_errors import unexpected

        return _said(unexpected(error), FAILED)


def _said(sentence: str, code: int) -> int:
    print(f"agent-service: {' '.join(sentence.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
