"""``agent-service mcp config``: the configuration with which an MCP client uses this server."""

import argparse
import json
import sys
from collections.abc import Callable
from typing import Any, NamedTuple

from app.cli.terminal.parser import sub_command

KEY = "AGENT_SERVICE_KEY"
"""The variable that the client reads the API key from."""


def _claude(name: str, url: str, key: bool) -> str:
    server: dict[str, Any] = {"type": "http", "url": url}
    if key:
        server["headers"] = {"Authorization": f"Bearer ${{{KEY}}}"}
    return json.dumps({"mcpServers": {name: server}}, indent=2)


def _cursor(name: str, url: str, key: bool) -> str:
    server: dict[str, Any] = {"url": url}
    if key:
        server["headers"] = {"Authorization": f"Bearer ${{env:{KEY}}}"}
    return json.dumps({"mcpServers": {name: server}}, indent=2)


def _codex(name: str, url: str, key: bool) -> str:
    lines = [f"[mcp_servers.{json.dumps(name)}]", f"url = {json.dumps(url)}"]
    if key:
        lines.append(f"bearer_token_env_var = {json.dumps(KEY)}")
    return "\n".join(lines)


def _vscode(name: str, url: str, key: bool) -> str:
    server: dict[str, Any] = {"type": "http", "url": url}
    settings: dict[str, Any] = {"servers": {name: server}}
    if key:
        server["headers"] = {"Authorization": "Bearer ${input:agent-service-key}"}
        prompt = {"type": "promptString", "id": "agent-service-key", "description": "API key", "password": True}
        settings["inputs"] = [prompt]
    return json.dumps(settings, indent=2)


class Client(NamedTuple):
    """A client: the file that it reads, and how to write that file's content."""

    file: str
    write: Callable[[str, str, bool], str]


CLIENTS = {
    "claude": Client(".mcp.json of the project", _claude),
    "cursor": Client(".cursor/mcp.json of the project", _cursor),
    "codex": Client("~/.codex/config.toml", _codex),
    "vscode": Client(".vscode/mcp.json of the workspace", _vscode),
}


def declare_config(actions: Any) -> None:
    """Declare the action."""
    action = sub_command(
        actions, "config", "print what makes an MCP client use the agents of this server", "mcp config claude"
    )
    action.add_argument("client", metavar="CLIENT", choices=list(CLIENTS), help=f"one of {', '.join(CLIENTS)}")
    action.add_argument("--url", metavar="URL", help="the server (default: AGENT_PUBLIC_URL, or this machine and PORT)")
    which = action.add_mutually_exclusive_group()
    which.add_argument("--assistant", metavar="NAME", help="one agent, or an assistant's id, instead of all agents")
    which.add_argument("--admin", action="store_true", help="operations of the server, where AGENT_MCP_ADMIN is on")


def run_config(arguments: argparse.Namespace) -> int:
    """Print the configuration, and to standard error where it belongs."""
    from app.infra.settings.environment import load

    settings = load()
    server = settings.server
    url = arguments.url or server.public_url or f"http://127.0.0.1:{server.port}{server.root_path}"
    part = "/admin" if arguments.admin else f"/{arguments.assistant}" if arguments.assistant else ""
    name = f"agent-service{part.replace('/', '-')}"
    key = settings.auth.mode != "none"
    client = CLIENTS[arguments.client]
    print(client.write(name, f"{url.rstrip('/')}/mcp{part}", key))
    where = f"For {client.file}."
    if key and arguments.client != "vscode":  # which asks for it
        where += f" Set {KEY} for the client; a key: agent-service keys create --name mcp"
    print(where, file=sys.stderr)
    return 0
