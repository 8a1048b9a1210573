"""``agent-service mcp``: make MCP clients use the agents of this server."""

import argparse

from app.cli.mcp_config import declare_config, run_config


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the actions."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    declare_config(actions)


def run(arguments: argparse.Namespace) -> int:
    """Run one action."""
    return run_config(arguments)
