"""The command ``agent-service``: parse the arguments, run one verb, and report errors in one line."""

import importlib
import os
import sys
from collections.abc import Sequence
from typing import Any

from app.base.errors import AgentServiceError, UsageError
from app.cli.terminal.parser import CommandParser, sub_command

VERBS = {
    "dev": ("start a server on an embedded PostgreSQL, for this machine", "dev --port 8001 --reload"),
    "chat": ("talk to an agent in the terminal", "chat assistant --thread ID"),
    "runs": ("follow the runs of a server", "runs watch"),
    "new": ("write a folder for agents: an agent, a typed tool, a test; overwrite nothing", "new my-agents"),
    "serve": ("start a production server on your PostgreSQL", "serve --host 0.0.0.0 --workers 2"),
    "init": ("write a deployment folder: compose.yaml, secrets, an example agent; overwrite nothing", "init my-agents"),
    "migrate": ("migrate the database to the newest schema", "migrate"),
    "keys": ("create, list, rotate and revoke API keys", "keys create --name ci --expires 90d"),
    "tenants": (
        "show or change a tenant's limits, and show its usage",
        "tenants limits acme --set rate_per_minute=600",
    ),
    "data": (
        "export or delete the data of a tenant or of one person",
        "data export --tenant acme --out acme.jsonl",
    ),
    "store": (
        "import the long-term memory of a tenant from a file, or export it",
        "store import items.jsonl.zst --tenant acme",
    ),
    "import": (
        "bring threads, checkpoints and items from LangGraph's own PostgreSQL tables into a tenant",
        "import langgraph-postgres postgresql://reader@db/app --graph support",
    ),
    "doctor": ("run the deployment checklist", "doctor --url http://127.0.0.1:8000 --quick"),
    "agents": ("list the configured agents, or check that each loads", "agents check --agents agents.toml"),
    "mcp": (
        "inspect MCP servers of agents, or configure MCP clients to use the agents of this server",
        "mcp diff github",
    ),
    "version": ("print the version", "version"),
}
"""Each is a module of this package with ``declare(parser)`` and ``run(arguments) -> int``, imported on use."""

MODULES = {"import": "imports"}
"""Verbs whose module cannot have their name."""

FAILED, WRONG_USAGE, INTERRUPTED = 1, 2, 130


def parser_for(arguments: Sequence[str]) -> CommandParser:
    """Build the parser; import only the verb that ``arguments`` name."""
    parser = CommandParser(
        prog="agent-service",
        description="A self-hosted production server for AI agents.",
        epilog="example: agent-service dev",
    )
    parser.add_argument("--version", action="store_true", help="print the version and end")
    verbs = parser.add_subparsers(title="verbs", dest="verb", metavar="VERB")
    asked = next((word for word in arguments if not word.startswith("-")), "")
    for name, (does, example) in VERBS.items():
        added = sub_command(verbs, name, does, example)
        if name == asked:
            _module(name).declare(added)
    return parser


def _module(verb: str) -> Any:
    return importlib.import_module(f"app.cli.{MODULES.get(verb, verb)}")


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one verb; return the exit code: 0, 1 for a failure, 2 for wrong usage, 130 for Ctrl-C."""
    words = sys.argv[1:] if arguments is None else list(arguments)
    try:
        parser = parser_for(words)
        given = parser.parse_args(words)
        if given.version:
            given.verb = "version"
        if given.verb is None:
            parser.print_help()
            return 0
        return int(_module(given.verb).run(given))
    except UsageError as error:
        return _report(str(error), WRONG_USAGE)
    except AgentServiceError as error:
        return _report(str(error), FAILED)
    except KeyboardInterrupt:
        return INTERRUPTED
    except BrokenPipeError:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return FAILED
    except Exception as error:  # noqa: BLE001  the edge: every error is reported in one line
        from app.cli.terminal.unexpected_errors import unexpected

        return _report(unexpected(error), FAILED)


def _report(message: str, code: int) -> int:
    print(f"agent-service: {' '.join(message.split())}", file=sys.stderr)
    return code


if __name__ == "__main__":
    sys.exit(main())
