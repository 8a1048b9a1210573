"""The environment, read once into frozen structs. Each room gets only its part.

First match wins: the real environment, the file ``.env`` of the working folder, the command's defaults, those here. An
empty value counts as unset. A secret may also come from the file that ``NAME_FILE`` names.
``docs/configuration.md`` is generated from the annotations below (``make docs-config``).
"""

import difflib
import ipaddress
import os
import typing
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal

import msgspec
from dotenv import dotenv_values

from app.base.errors import UsageError
from app.secrets.secret import Secret
from app.secrets.sources import secret_file

_OWN_PREFIX = "AGENT_"
_KUBERNETES_PREFIX = "AGENT_SERVICE_"  # Kubernetes injects these for a Service named agent-service
_SHORTEST_PEPPER = 32


def _is(variable: str, meaning: str, **rules: Any) -> msgspec.Meta:
    return msgspec.Meta(description=meaning, extra={"variable": variable}, **rules)


_POSTGRES: dict[str, Any] = {
    "pattern": r"^postgres(ql)?://",
    "examples": ["postgresql://user:password@host/database?sslmode=require", "postgresql:///database?host=/folder"],
}
_HTTP: dict[str, Any] = {"pattern": r"^https?://[^/]"}


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Server"""

    environment: Annotated[
        Literal["development", "production"],
        _is("APP_ENV", "What this process serves; `production` refuses whatever is meant for tests."),
    ] = "development"
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], _is("LOG_LEVEL", "The least level that is logged.")
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"], _is("LOG_FORMAT", "Lines for a person, or one JSON object a line.")
    ] = "console"
    host: Annotated[str, _is("HOST", "The address to listen on. Any but a loopback one needs authentication.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, _is("PORT", "The port to listen on.", ge=1, le=65535)] = 8000
    workers: Annotated[int, _is("WORKERS", "Worker processes of `agent-service serve`.", ge=1, le=256)] = 1
    root_path: Annotated[
        str,
        _is("ROOT_PATH", "The path under which a proxy serves this server.", pattern="^/.*[^/]$", examples=["/agents"]),
    ] = ""


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Database"""

    url: Annotated[
        Secret | None, _is("DATABASE_URL", "PostgreSQL 16 or later with pgvector 0.8 or later.", **_POSTGRES)
    ] = None
    migrate_url: Annotated[
        Secret | None,
        _is("MIGRATE_DATABASE_URL", "The same as its owner, for migrations. Unset: `DATABASE_URL`.", **_POSTGRES),
    ] = None
    migrate_on_start: Annotated[
        bool, _is("AGENT_MIGRATE_ON_START", "Apply pending migrations before serving, under an advisory lock.")
    ] = False
    data_dir: Annotated[str, _is("AGENT_DATA_DIR", "The folder of the embedded database of `agent-service dev`.")] = (
        ".data"
    )

    @property
    def owner_url(self) -> Secret | None:
        """The address that migrations use."""
        return self.migrate_url or self.url


class LlmSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Models"""

    default_model: Annotated[
        str,
        _is(
            "AGENT_DEFAULT_MODEL",
            "The model of agents that name none. Unset: chosen by the keys that are set, else `scripted:demo`.",
            pattern="^[^:]+:.+$",
            examples=["openai:gpt-5-mini"],
        ),
    ] = ""
    openai_api_key: Annotated[Secret | None, _is("OPENAI_API_KEY", "The key of the `openai` vendor.")] = None
    openai_api_key_secondary: Annotated[
        Secret | None, _is("OPENAI_API_KEY_SECONDARY", "Tried once when the first key is refused: for rotation.")
    ] = None
    openai_base_url: Annotated[
        str,
        _is(
            "OPENAI_BASE_URL",
            "Any server that speaks Chat Completions (Ollama, vLLM, …). Alone: the first model it lists.",
            examples=["http://localhost:11434/v1"],
            **_HTTP,
        ),
    ] = ""
    anthropic_api_key: Annotated[Secret | None, _is("ANTHROPIC_API_KEY", "The key of the `anthropic` vendor.")] = None
    anthropic_api_key_secondary: Annotated[
        Secret | None, _is("ANTHROPIC_API_KEY_SECONDARY", "Tried once when the first key is refused: for rotation.")
    ] = None
    anthropic_base_url: Annotated[
        str,
        _is("ANTHROPIC_BASE_URL", "Any server that speaks Messages.", examples=["https://api.anthropic.com"], **_HTTP),
    ] = ""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Agents"""

    config: Annotated[
        str,
        _is("AGENT_CONFIG", "The file that names the agents. Unset: `agents.toml` here, if there is one."),
    ] = ""


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Authentication"""

    mode: Annotated[
        Literal["none", "api_key"],
        _is("AGENT_AUTH", "`api_key`: requests need a key. `none`: loopback only; what `agent-service dev` takes."),
    ] = "api_key"
    key_pepper: Annotated[
        Secret | None,
        _is(
            "AGENT_KEY_PEPPER",
            "The secret under which API keys are stored; needed with `api_key`. Changing it voids all keys.",
            min_length=_SHORTEST_PEPPER,
            examples=["the output of: openssl rand -hex 32"],
        ),
    ] = None


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Runs"""

    drain_seconds: Annotated[
        float, _is("AGENT_DRAIN_SECONDS", "How long running steps may take to finish after SIGTERM.", ge=0, le=3600)
    ] = 30
    lease_seconds: Annotated[
        float, _is("AGENT_LEASE_SECONDS", "How long a worker owns a run without renewing its lease.", ge=3, le=3600)
    ] = 30
    request_seconds: Annotated[
        float, _is("AGENT_REQUEST_SECONDS", "How long a request that does not stream may take.", ge=1, le=3600)
    ] = 120


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. ``warnings`` are sentences about names that look like settings and are none."""

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    llm: LlmSettings = LlmSettings()
    agents: AgentSettings = AgentSettings()
    auth: AuthSettings = AuthSettings()
    runs: RunSettings = RunSettings()
    warnings: tuple[str, ...] = ()


class Variable(msgspec.Struct, frozen=True):
    """One variable of the environment: where it goes, what it may hold, and what the page says of it."""

    name: str
    group: str
    field: str
    kind: Any
    meta: msgspec.Meta
    default: Any

    @property
    def is_secret(self) -> bool:
        """Whether the value is hidden and ``NAME_FILE`` is honoured."""
        return bool(self.kind == Secret | None)

    @property
    def allowed(self) -> str:
        """What it may hold, to end the sentence 'NAME must be …'."""
        if typing.get_origin(self.kind) is Literal:
            return "one of " + ", ".join(typing.get_args(self.kind))
        if self.kind is bool:
            return "true or false"
        if self.kind in (int, float):
            return f"{'a whole' if self.kind is int else 'a'} number from {self.meta.ge:g} to {self.meta.le:g}"
        length = f"of at least {self.meta.min_length} characters, " if self.meta.min_length else ""
        return f"{length}like {' or '.join(self.meta.examples or ())}"


def variables() -> Iterator[Variable]:
    """Every variable of the environment, in the order of the structs."""
    for part in msgspec.structs.fields(Settings):
        if not (isinstance(part.type, type) and issubclass(part.type, msgspec.Struct)):
            continue
        hints = typing.get_type_hints(part.type, include_extras=True)
        for field in msgspec.structs.fields(part.type):
            kind, meta = typing.get_args(hints[field.name])
            name = meta.extra["variable"]
            yield Variable(name, part.name, field.name, kind, meta, field.default)


def _text_of(variable: Variable, layers: tuple[Mapping[str, str], ...]) -> str:
    for layer in layers:
        text, path = layer.get(variable.name, "").strip(), ""
        if variable.is_secret:
            path = layer.get(f"{variable.name}_FILE", "").strip()
        if text and path:
            raise UsageError(f"{variable.name} and {variable.name}_FILE are both set; keep one of them")
        if path:
            return secret_file(f"{variable.name}_FILE", path)
        if text:
            return text
    return ""


def _value_of(variable: Variable, text: str) -> Any:
    if variable.name == "AGENT_AUTH" and text.lower() == "jwt":
        raise UsageError("AGENT_AUTH: jwt is not built yet; use api_key")
    kind = str if variable.is_secret else variable.kind
    shown = "" if variable.is_secret else f", not {text!r}"
    if typing.get_origin(kind) is Literal:
        text = text.lower()
    if not text.isprintable():
        raise UsageError(f"{variable.name} holds a line break or another control character; remove it")
    try:
        value = msgspec.convert(text, Annotated[kind, variable.meta], strict=False)
    except msgspec.ValidationError as error:
        raise UsageError(f"{variable.name} must be {variable.allowed}{shown}") from error
    return Secret(value) if variable.is_secret else value


def _warnings(layers: tuple[Mapping[str, str], ...]) -> tuple[str, ...]:
    known = {name for v in variables() for name in ((v.name, f"{v.name}_FILE") if v.is_secret else (v.name,))}
    given = {n for layer in layers for n in layer if n.startswith(_OWN_PREFIX) and not n.startswith(_KUBERNETES_PREFIX)}
    sentences = []
    for name in sorted(given - known):
        near = difflib.get_close_matches(name, known, n=1, cutoff=0.75)
        sentences.append(f"{name} is not a setting and is ignored" + (f"; did you mean {near[0]}?" if near else ""))
    return tuple(sentences)


def load(
    environ: Mapping[str, str] | None = None,
    *,
    dotenv: Path = Path(".env"),
    overrides: Mapping[str, str] | None = None,
    defaults: Mapping[str, str] | None = None,
) -> Settings:
    """Read the environment (this process's own unless given) and the file ``dotenv``, which need not exist.

    By variable name, ``overrides`` win and ``defaults`` lose against both. Raises ``UsageError``: a sentence that
    names the variable and what it may hold, never a secret.
    """
    try:
        written = {k: v or "" for k, v in dotenv_values(dotenv, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {dotenv} as UTF-8 text; mend it or remove it") from error
    layers = (overrides or {}, os.environ if environ is None else environ, written, defaults or {})
    parts: dict[str, dict[str, Any]] = {}
    for variable in variables():
        given = parts.setdefault(variable.group, {})
        if text := _text_of(variable, layers):
            given[variable.field] = _value_of(variable, text)
    kinds = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    return Settings(**{name: kinds[name](**given) for name, given in parts.items()}, warnings=_warnings(layers))


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_serving(settings: Settings) -> None:
    """Refuse what ``agent-service serve`` must not start with. Raises ``UsageError``."""
    if settings.database.url is None:
        raise UsageError("DATABASE_URL is not set; set it to postgresql://user:password@host/database")
    if settings.auth.mode == "none" and not is_loopback(settings.server.host):
        raise UsageError(
            f"AGENT_AUTH=none would open {settings.server.host} to everybody; set AGENT_AUTH=api_key or HOST=127.0.0.1"
        )
    if settings.auth.mode == "api_key" and settings.auth.key_pepper is None:
        raise UsageError("AGENT_KEY_PEPPER is not set; set it to the output of: openssl rand -hex 32")
