"""Parse ``agents.toml``. Errors name the file, the line and the fix."""

import difflib
import re
import tomllib
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec

from app.agents.a2a.spec import A2AAgentSpec
from app.agents.config import langgraph_file, store_index
from app.agents.config.langgraph_file import GraphsSpec
from app.agents.config.store_index import IndexSpec, StoreSpec
from app.agents.mcp.spec import McpServerSpec
from app.agents.tool_loop.agent import RunLimits
from app.agents.tool_loop.approval import ApprovalPolicy
from app.agents.tool_loop.conversation_window import MemorySpec
from app.base.errors import StartError, UsageError

DEFAULT_FILE = "agents.toml"
LANGGRAPH_FILE = "langgraph.json"
DEFAULT = "assistant"
"""The agent of clients that name none, if no file says otherwise."""
MAX_CACHE_TTL = 30 * 86_400
"""Longest lifetime of a cached answer, in seconds."""
NAME = re.compile(r"[A-Za-z0-9][A-Za-z0-9_-]{0,63}")

OF_GRAPHS = frozenset({"graph", "description", "limits", "tools", "approve"})
"""The keys of an agent that is a graph."""

Spec = TypeVar("Spec", bound=msgspec.Struct)
Remote = TypeVar("Remote", McpServerSpec, A2AAgentSpec)

ASSISTANT = """\
You are a helpful assistant. Use your tools when they help: look at the clock for dates and times, calculate with the \
calculator, and keep notes of what the person asks you to remember."""


class CacheSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Response cache of the agent's model: answers are reused for ``ttl`` seconds, within one tenant."""

    ttl: Annotated[float, msgspec.Meta(gt=0, le=MAX_CACHE_TTL)] = 3600.0


class AgentSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One agent of the file. An empty ``model`` is the default model; ``tools`` are names of tools or of functions.

    ``function`` names the code of a function agent, ``graph`` that of a LangGraph graph; without either the agent is
    the built-in one. Without ``cache`` the answers of its model are not cached.
    """

    function: str = ""
    graph: str = ""
    model: str = ""
    fallback: list[str] = []
    instructions: str = ""
    description: str = ""
    tools: list[str] = []
    approve: ApprovalPolicy = ApprovalPolicy()
    limits: RunLimits = RunLimits()
    memory: MemorySpec | None = None
    cache: CacheSpec | None = None
    temperature: float | None = None
    max_tokens: int | None = None


class AuthSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """Custom authentication and authorization: ``path`` names a ``langgraph_sdk.Auth`` object.

    ``tenant`` is the field of its users that names their tenant; without it all belong to the tenant ``default``.
    ``disable_studio_auth``, ``openapi`` and ``cache`` are accepted as in ``langgraph.json`` and ignored.
    """

    path: str
    tenant: str = ""
    disable_studio_auth: bool = True
    openapi: Any = None
    cache: Any = None


class AgentsFile(msgspec.Struct, frozen=True, kw_only=True):
    """The agents of a server by name, its store, and the folder that relative paths in the file start from.

    ``default`` is the agent of clients that name none: as the file says, else its first one. ``ignored``: what is
    configured without effect here, a sentence each.
    """

    agents: dict[str, AgentSpec]
    folder: Path
    store: StoreSpec = StoreSpec()
    auth: AuthSpec | None = None
    graphs: GraphsSpec = GraphsSpec()
    mcp: dict[str, McpServerSpec] = {}
    a2a: dict[str, A2AAgentSpec] = {}
    source: str = "built in"
    default: str = ""
    ignored: tuple[str, ...] = ()


BUILT_IN = {
    "assistant": AgentSpec(
        instructions=ASSISTANT,
        description="Answers questions and uses its tools: clock, calculator, notes.",
        tools=["clock", "calculator", "notes"],
    ),
    "echo": AgentSpec(model="scripted:echo", description="Repeats its input, in one step."),
    "stream100": AgentSpec(model="scripted:stream100", description="Says 100 tokens, at once."),
}
"""Always available; the file may redefine them."""


def read(path: str | None) -> AgentsFile:
    """Read the agents of the file ``path``, by default ``agents.toml`` if it exists. Raises ``StartError``."""
    if not path and not Path(DEFAULT_FILE).is_file():
        unread = (
            f"this folder has a {LANGGRAPH_FILE}, which is read where it is named: agent-service dev {LANGGRAPH_FILE}",
        )
        ignored = unread if Path(LANGGRAPH_FILE).is_file() else ()
        return AgentsFile(agents=dict(BUILT_IN), folder=Path.cwd(), default=DEFAULT, ignored=ignored)
    file = Path(path or DEFAULT_FILE)
    try:
        text = file.read_text(encoding="utf-8")
    except FileNotFoundError as error:
        raise StartError(f"there is no agents file {file}: write one, or check AGENT_CONFIG and --agents") from error
    except (OSError, UnicodeDecodeError) as error:
        raise StartError(f"the agents file {file} cannot be read as UTF-8 text: {error}") from error
    found = _langgraph(text, file) if file.suffix == ".json" else _parse(text, file)
    agents = {**BUILT_IN, **found.agents}
    if found.default and found.default not in agents:
        raise StartError(f"{file}: default names {found.default!r}, which is no agent; use one of {', '.join(agents)}")
    return msgspec.structs.replace(found, agents=agents, default=found.default or next(iter(found.agents), DEFAULT))


def _langgraph(text: str, file: Path) -> AgentsFile:
    """Parse a ``langgraph.json``: its graphs are the agents."""
    found = langgraph_file.parse(text, file)
    for name in found.graphs:
        if not NAME.fullmatch(name):
            raise StartError(
                f"{file}: graph {name!r}: a name has letters, digits, - and _ and begins with a letter or a digit"
            )
    try:
        store_index.check(found.store)
        auth = None if found.auth is None else msgspec.convert(found.auth, AuthSpec)
    except (UsageError, msgspec.ValidationError) as error:
        raise StartError(f"{file}: {error}") from error
    return AgentsFile(
        agents={name: AgentSpec(graph=one.path, description=one.description) for name, one in found.graphs.items()},
        folder=file.resolve().parent,
        store=found.store,
        auth=auth,
        graphs=found.settings,
        source=str(file),
        ignored=found.ignored,
    )


def _parse(text: str, file: Path) -> AgentsFile:
    try:
        document = tomllib.loads(text)
    except tomllib.TOMLDecodeError as error:
        words = re.sub(r" \(at line (\d+), column \d+\)", "", str(error))
        line = re.search(r"at line (\d+)", str(error))
        raise StartError(f"{file}, line {line[1] if line else 'last'}: {words}") from error
    for key in document:
        if key not in {"agents", "store", "auth", "graphs", "mcp", "a2a", "default"}:
            raise StartError(
                f"{file}, line {_line_of(text, key)}: unknown table {key!r}; agents are defined in [agents.NAME], the "
                f"long-term memory in [store], custom authentication in [auth], how graphs run in [graphs], servers of "
                f'tools in [mcp.NAME], other agents in [a2a.NAME]; default = "NAME" names the agent of clients that '
                "name none"
            )
    default = document.get("default", "")
    if not isinstance(default, str):
        raise StartError(f'{file}, line {_line_of(text, "default")}: default names an agent: default = "NAME"')
    agents = document.get("agents", {})
    if not isinstance(agents, dict):
        raise StartError(f"{file}, line {_line_of(text, 'agents')}: agents are defined in tables [agents.NAME]")
    return AgentsFile(
        agents={name: _spec(name, table, text, file) for name, table in agents.items()},
        folder=file.resolve().parent,
        store=_store(document.get("store", {}), text, file),
        auth=_auth(document.get("auth"), text, file),
        graphs=_graphs(document.get("graphs", {}), text, file),
        mcp=_remote(document.get("mcp", {}), "mcp", McpServerSpec, text, file),
        a2a=_remote(document.get("a2a", {}), "a2a", A2AAgentSpec, text, file),
        source=str(file),
        default=default,
    )


def _graphs(table: Any, text: str, file: Path) -> GraphsSpec:
    """Parse the table ``[graphs]``."""
    return _table(
        table, GraphsSpec, "graphs", 'python = "./.venv/bin/python"', f"{file}, line {_line_of(text, 'graphs')}"
    )


def _remote(tables: Any, prefix: str, kind: type[Remote], text: str, file: Path) -> dict[str, Remote]:
    """Parse the tables ``[mcp.NAME]`` or ``[a2a.NAME]``."""
    if not isinstance(tables, dict):
        what = {"mcp": "servers of tools", "a2a": "other agents"}[prefix]
        raise StartError(f"{file}, line {_line_of(text, prefix)}: {what} are defined in tables [{prefix}.NAME]")
    found = {}
    for name, table in tables.items():
        line = f"{file}, line {_line_of(text, f'{prefix}.{name}')}"
        if not NAME.fullmatch(name):
            raise StartError(
                f"{line}: {prefix}.{name}: a name has letters, digits, - and _ and begins with one of the first"
            )
        found[name] = spec = _table(table, kind, f"{prefix}.{name}", 'url = "https://…"', line)
        try:
            spec.check(name)
        except ValueError as error:
            raise StartError(f"{line}: {prefix}.{name}: {error}") from error
    return found


def _auth(table: Any, text: str, file: Path) -> AuthSpec | None:
    """Parse the table ``[auth]``."""
    if table is None:
        return None
    return _table(table, AuthSpec, "auth", 'path = "./auth.py:auth"', f"{file}, line {_line_of(text, 'auth')}")


def _table(table: Any, kind: type[Spec], name: str, example: str, line: str) -> Spec:
    """Parse the table ``name``, which is at ``line``; an ``example`` of its content is part of the error."""
    where = f"{line}: {name}"
    if not isinstance(table, dict):
        raise StartError(f"{where}: write a table [{name}] with {example}")
    for key in table:
        _check_key(key, kind, where)
    try:
        return msgspec.convert(table, kind)
    except msgspec.ValidationError as error:
        raise StartError(f"{where}: {_message(str(error), example.partition(' ')[0])}") from error


def _store(table: Any, text: str, file: Path) -> StoreSpec:
    """Parse the table ``[store]``. Its indexes are ``[[store.index]]``."""
    try:
        for number, index in enumerate(table.get("index", [])):
            for key in index:
                _check_key(
                    key, IndexSpec, f"{file}, line {_line_of(text, 'store', key)}: index {number + 1} of the store"
                )
        for key in table:
            _check_key(key, StoreSpec, f"{file}, line {_line_of(text, 'store', key)}: the store")
        store = msgspec.convert(table, StoreSpec)
        store_index.check(store)
    except (AttributeError, TypeError) as error:
        raise StartError(f"{file}, line {_line_of(text, 'store')}: write [store] and [[store.index]] tables") from error
    except msgspec.ValidationError as error:
        words = _message(str(error), "store")
        raise StartError(f"{file}, line {_line_of(text, 'store', words.partition(':')[0])}: store: {words}") from error
    except UsageError as error:
        raise StartError(f"{file}, line {_line_of(text, 'store')}: store: {error}") from error
    return store


def _check_key(key: str, kind: type[msgspec.Struct], where: str) -> None:
    """Raise ``StartError`` if ``kind`` has no field ``key``."""
    known = kind.__struct_fields__
    if key not in known:
        near = difflib.get_close_matches(key, known, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"use {', '.join(known)}"
        raise StartError(f"{where}: unknown key {key!r}; {hint}")


def _spec(name: str, table: Any, text: str, file: Path) -> AgentSpec:
    where = f"{file}, line {_line_of(text, name)}: agent {name!r}"
    if not NAME.fullmatch(name):
        raise StartError(f"{where}: a name has letters, digits, - and _ and begins with a letter or a digit")
    if not isinstance(table, dict):
        raise StartError(f"{where}: write a table [agents.{name}]")
    for key in table:
        at = f"{file}, line {_line_of(text, name, key)}: agent {name!r}"
        _check_key(key, AgentSpec, at)
        try:
            msgspec.convert({key: table[key]}, AgentSpec)
        except msgspec.ValidationError as error:
            raise StartError(f"{at}: {_message(str(error), key)}") from error
    spec = msgspec.convert(table, AgentSpec)
    if spec.graph and (others := [key for key in table if key not in OF_GRAPHS]):
        raise StartError(f"{where}: {others[0]} does not apply to a graph, which has its own models: remove it")
    return spec


def _message(message: str, key: str) -> str:
    what, _, path = message.partition(" - at `$.")
    return f"{path.rstrip('`') or key}: {what[:1].lower()}{what[1:]}"


def _line_of(text: str, *keys: str) -> int:
    """Return the line number of a table's header, or of a key below it."""
    lines = text.splitlines()
    header = re.compile(rf"^\s*\[\s*(agents\s*\.\s*)?[\"']?{re.escape(keys[0])}[\"']?(\s*\.[^\]]*)?\s*\]")
    at = next((n for n, line in enumerate(lines, 1) if header.match(line)), 1)
    if len(keys) == 1:
        return at
    member = re.compile(rf"^\s*(\[.*\.)?\s*[\"']?{re.escape(keys[1])}[\"']?\s*(\.|=|\])")
    return next((n for n, line in enumerate(lines[at - 1 :], at) if member.match(line)), at)
