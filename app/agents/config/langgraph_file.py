"""Parse ``langgraph.json``, the configuration of LangGraph projects. Errors name the file, the key and the fix.

Format: https://docs.langchain.com/langsmith/cli#configuration-file
"""

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
from dotenv import dotenv_values

from app.agents.config.store_index import IndexSpec, StoreSpec
from app.base.errors import StartError, UsageError
from app.providers.embeddings.hashing import NAME as HASHING
from app.providers.embeddings.registry import dimensions_of

IGNORED = frozenset(
    {
        *("$schema", "api_version", "base_image", "checkpointer", "dockerfile_lines", "image_distro", "keep_pkg_tools"),
        *("node_version", "pip_config_file", "pip_installer", "python_version", "source", "ui", "ui_config"),
        *("webhooks", "disable_persistence"),
    }
)
"""Keys of builds, of other run times, and of parts that have settings of their own here."""
WITHOUT_EFFECT = {
    "checkpointer.ttl": "threads are kept for AGENT_KEEP_THREADS_DAYS, their histories for AGENT_KEEP_HISTORY_DAYS",
    "checkpointer.serde": "values are stored by the types that the graphs' schemas name",
    "http.configurable_headers": "no header reaches config.configurable: name its value there, or return it as a field "
    "of the user in the auth handler",
    "http.cors": "browsers of AGENT_CORS_ORIGINS may read responses",
    "http.mount_prefix": "ROOT_PATH is the path under which a proxy serves this server",
    "webhooks": "AGENT_WEBHOOK_SECRET signs webhooks, and AGENT_EGRESS_ALLOW names private hosts that they may reach",
    "auth.cache": "the auth handler is called for each request",
    "disable_persistence": "the state of every thread is stored",
}
"""Keys whose part is configured elsewhere here, and how."""
SERVED_ANYWAY = "its routes are served to those who may call them: refuse them in the auth handlers or in the proxy"
KNOWN = ("graphs", "dependencies", "env", "store", "auth", "http")


class GraphSpec(msgspec.Struct, frozen=True, kw_only=True):
    """A graph: the code that defines it, ``./file.py:variable``."""

    path: str
    description: str = ""


class GraphsSpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """How graphs run: which ``python`` (path of an interpreter; empty: ours), ``env`` (variables, or a file of them).

    ``dependencies``: folders on the module search path, relative to the file.
    """

    python: str = ""
    dependencies: list[str] = []
    env: str | dict[str, str] = {}

    def paths(self, folder: Path) -> tuple[str, ...]:
        """Return the folders on the module search path; packages are installed by the project."""
        local = [folder / one for one in self.dependencies if one.startswith(".") or (folder / one).is_dir()]
        found = [one for root in local for one in (root, root / "src") if one.is_dir()]
        return tuple(dict.fromkeys(str(one.resolve()) for one in (folder, *found)))

    def environment(self, folder: Path) -> dict[str, str]:
        """Return the variables for the process that runs the graphs. Raises ``StartError`` if their file is missing."""
        if isinstance(self.env, dict):
            return self.env
        if not (folder / self.env).is_file():
            raise StartError(f"env names the file {self.env!r}, which is not in {folder}")
        return {name: text or "" for name, text in dotenv_values(folder / self.env).items()}

    def interpreter(self, folder: Path) -> str:
        """Return the path of the interpreter; empty for ours."""
        return str(folder / self.python) if self.python.startswith(".") else self.python


class LangGraphFile(msgspec.Struct, frozen=True, kw_only=True):
    """What a ``langgraph.json`` configures."""

    graphs: dict[str, GraphSpec]
    settings: GraphsSpec
    store: StoreSpec
    auth: dict[str, Any] | None
    ignored: tuple[str, ...] = ()


def parse(text: str, file: Path) -> LangGraphFile:
    """Parse ``text``, the content of ``file``. Raises ``StartError``."""
    try:
        document = msgspec.json.decode(text, type=dict[str, Any])
    except (msgspec.DecodeError, msgspec.ValidationError) as error:
        raise StartError(f"{file}: is not a JSON object: {error}") from error
    for key in document:
        if key not in KNOWN and key not in IGNORED:
            raise StartError(f"{file}: unknown key {key!r}; use {', '.join(KNOWN)}")
    if (document.get("http") or {}).get("app"):
        raise StartError(f"{file}: http.app is not served: run that application beside this server, behind one proxy")
    if (document.get("checkpointer") or {}).get("path"):
        raise StartError(
            f"{file}: checkpointer.path is not supported: this server stores the checkpoints of every graph"
        )
    settings = {key: document[key] for key in ("dependencies", "env") if key in document}
    try:
        return LangGraphFile(
            graphs={name: _graph(given) for name, given in (document.get("graphs") or {}).items()},
            settings=msgspec.convert(settings, GraphsSpec),
            store=_store(document.get("store") or {}),
            auth=document.get("auth"),
            ignored=tuple(f"{key} of {file}: {what}" for key, what in _without_effect(document)),
        )
    except msgspec.ValidationError as error:
        raise StartError(f"{file}: {error}") from error


def _without_effect(document: dict[str, Any]) -> Iterator[tuple[str, str]]:
    """Yield the keys of ``document`` that change nothing here although they would elsewhere, and what does."""
    for key, what in WITHOUT_EFFECT.items():
        part, _, name = key.partition(".")
        found = document.get(part)
        if (found.get(name) if isinstance(found, dict) else None) if name else found:
            yield key, what
    for name, disabled in (document.get("http") or {}).items():
        if name.startswith("disable_") and disabled:
            yield f"http.{name}", SERVED_ANYWAY


def _graph(given: Any) -> GraphSpec:
    return GraphSpec(path=given) if isinstance(given, str) else msgspec.convert(given, GraphSpec)


def _check_embedder(name: str, dimensions: int) -> None:
    """Refuse functions of the project and vendors that this server does not embed with. Raises ``ValidationError``."""
    try:
        dimensions_of(name or HASHING, dimensions)
    except UsageError as error:
        raise msgspec.ValidationError(
            f"store.index: {error}. Functions of the project and other vendors do not embed here: with hashing the "
            "store is searched by words, with minilm or openai:MODEL by meaning"
        ) from error


def _store(given: dict[str, Any]) -> StoreSpec:
    """Return the store's configuration: one index over everything, and the default time to live in minutes."""
    index, ttl = given.get("index") or {}, given.get("ttl") or {}
    _check_embedder(str(index.get("embed") or ""), int(index.get("dims") or 0))
    found: dict[str, Any] = {}
    if index:
        found["index"] = [
            IndexSpec(
                fields=index.get("fields"),
                embedder=str(index.get("embed") or ""),
                dimensions=int(index.get("dims") or 0),
            )
        ]
    if ttl.get("default_ttl"):
        found["ttl"] = float(ttl["default_ttl"])
    if "refresh_on_read" in ttl:
        found["refresh_on_read"] = bool(ttl["refresh_on_read"])
    return StoreSpec(**found)
