"""Read the environment once into frozen structs; each part of the program gets only its own.

Precedence: the environment, the file ``.env`` of the working directory, the command's defaults, the defaults here. An
empty value counts as unset. A secret may also come from the file that ``NAME_FILE`` names.
``docs/reference/configuration.md`` is generated from the annotations (``make docs-config``).
"""

import difflib
import ipaddress
import os
import re
import sys
import typing
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import Annotated, Any, Literal, TextIO

import msgspec
from dotenv import dotenv_values

from app.base.errors import UsageError
from app.infra.secrets.secret import Secret, secret_file
from app.infra.settings import (
    AgentSettings,
    AuthSettings,
    DatabaseSettings,
    DocumentSettings,
    EgressSettings,
    LimitSettings,
    LlmSettings,
    ObjectiveSettings,
    RedisSettings,
    RetentionSettings,
    RunSettings,
    ServerSettings,
    TelemetrySettings,
)

_OWN_PREFIX = "AGENT_"
MIN_DISTINCT = 10
"""Distinct characters of a random secret: 32 hexadecimal digits hardly ever have fewer."""
MIN_WEBHOOK_SECRET = 24
GENERATE = "set it to the output of: openssl rand -hex 32"
_KUBERNETES_PREFIX = "AGENT_SERVICE_"  # Kubernetes injects these for a Service named agent-service


_OTHERS_SECRET = re.compile(r"OTEL_EXPORTER_OTLP_(\w+_)?HEADERS|PGPASSWORD")
"""Variables that libraries of ours read, which hold tokens and passwords."""


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """All settings. ``warnings`` are sentences about variables that look like settings but are not.

    ``otel`` holds OpenTelemetry's variables, for its SDK, which reads the environment itself.
    """

    server: ServerSettings = ServerSettings()
    database: DatabaseSettings = DatabaseSettings()
    retention: RetentionSettings = RetentionSettings()
    redis: RedisSettings = RedisSettings()
    documents: DocumentSettings = DocumentSettings()
    llm: LlmSettings = LlmSettings()
    agents: AgentSettings = AgentSettings()
    auth: AuthSettings = AuthSettings()
    runs: RunSettings = RunSettings()
    egress: EgressSettings = EgressSettings()
    limits: LimitSettings = LimitSettings()
    telemetry: TelemetrySettings = TelemetrySettings()
    objectives: ObjectiveSettings = ObjectiveSettings()
    otel: dict[str, str] = {}
    warnings: tuple[str, ...] = ()
    read_secret: Callable[[str], Secret | None] = lambda _: None
    """Read the current value of a secret variable, from its file if it has one. Raises ``UsageError``."""
    look_up: Callable[[str], str | None] = lambda _: None
    """Read any variable that an agents file refers to, from the file ``NAME_FILE`` if that is set; None if unset."""
    secret_path: Callable[[str], str] = lambda _: ""
    """Return the file of a secret variable, empty if it has none."""


class Variable(msgspec.Struct, frozen=True):
    """One environment variable: its field, type, constraints and documentation."""

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
    def bounds(self) -> str:
        """The smallest and the largest number, like ``1 to 65535``."""
        bounds = (bound for bound in (self.meta.ge, self.meta.le) if bound is not None)
        return " to ".join(str(int(bound) if float(bound).is_integer() else bound) for bound in bounds)

    @property
    def allowed(self) -> str:
        """The allowed values, as the end of the sentence 'NAME must be …'."""
        if typing.get_origin(self.kind) is Literal:
            return "one of " + ", ".join(typing.get_args(self.kind))
        if self.kind is bool:
            return "true or false"
        if self.kind in (int, float):
            return f"{'a whole' if self.kind is int else 'a'} number from {self.bounds}"
        length = f"of at least {self.meta.min_length} characters, " if self.meta.min_length else ""
        return f"{length}like {' or '.join(self.meta.examples or ())}"


def variables() -> Iterator[Variable]:
    """Yield every variable, in the order of the structs."""
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

    By variable name, ``overrides`` take precedence over both and ``defaults`` come last. Raises ``UsageError``, which
    names the variable and its allowed values, never a secret.
    """
    try:
        written = {k: v or "" for k, v in dotenv_values(dotenv, interpolate=False).items()}
    except (OSError, UnicodeDecodeError) as error:
        raise UsageError(f"cannot read {dotenv} as UTF-8 text; fix it or remove it") from error
    layers = (overrides or {}, os.environ if environ is None else environ, written, defaults or {})
    parts: dict[str, dict[str, Any]] = {}
    for variable in variables():
        given = parts.setdefault(variable.group, {})
        if text := _text_of(variable, layers):
            given[variable.field] = _value_of(variable, text)
    _no_limit_without_keys(parts)
    kinds = {field.name: field.type for field in msgspec.structs.fields(Settings)}
    groups = {name: kinds[name](**given) for name, given in parts.items()}
    secrets = {variable.name: variable for variable in variables() if variable.is_secret}
    otel = {name: text for layer in reversed(layers) for name, text in layer.items() if name.startswith("OTEL_")}

    def read_secret(name: str) -> Secret | None:
        text = _text_of(secrets[name], layers)
        secret: Secret | None = _value_of(secrets[name], text) if text else None
        return secret

    def look_up(name: str) -> str | None:
        path = secret_path(name)
        return secret_file(f"{name}_FILE", path) if path else next((one[name] for one in layers if name in one), None)

    def secret_path(name: str) -> str:
        return next((path for layer in layers if (path := layer.get(f"{name}_FILE", "").strip())), "")

    warnings = _warnings(layers)
    return Settings(
        **groups, otel=otel, warnings=warnings, read_secret=read_secret, secret_path=secret_path, look_up=look_up
    )


def child_environment(extra: Mapping[str, str]) -> dict[str, str]:
    """Return the environment of a process that runs a project's code: ours without our secrets, and ``extra``.

    Keys of model providers stay in it, as that code calls models.
    """
    withheld = {variable.name for variable in variables() if variable.is_secret and variable.group != "llm"}
    ours = {
        name: text
        for name, text in os.environ.items()
        if name not in withheld and name.removesuffix("_FILE") not in withheld and not _OTHERS_SECRET.fullmatch(name)
    }
    return {**ours, **extra}


def export_variables(variables: Mapping[str, str]) -> None:
    """Export ``variables`` to the environment for a library that reads it, as those of ``.env`` are not there yet."""
    os.environ.update(variables)


def _no_limit_without_keys(parts: dict[str, dict[str, Any]]) -> None:
    """Without keys, apply the limit on each key's runs only if it was set explicitly."""
    if parts["auth"].get("mode") == "none":
        parts["limits"].setdefault("rate_per_minute", 0)


def coloured(out: TextIO | None = None) -> bool:
    """Whether output (to ``out``) may be coloured: it is a terminal and NO_COLOR is not set.

    Source: https://no-color.org
    """
    return (out or sys.stdout).isatty() and not os.environ.get("NO_COLOR")


def is_loopback(host: str) -> bool:
    """Whether only this machine can reach a server that listens on ``host``."""
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host == "localhost"


def check_serving(settings: Settings, *, handled: bool = False) -> None:
    """Validate the settings of ``agent-service serve``. Raises ``UsageError``.

    ``handled``: the agents file names authentication code.
    """
    if settings.database.url is None:
        raise UsageError("DATABASE_URL is not set; set it to postgresql://user:password@host/database")
    if settings.server.crash_at and settings.server.environment == "production":
        raise UsageError("AGENT_CRASH_AT is for tests: unset it, or set APP_ENV=development")
    if settings.auth.mode == "none" and not handled and not is_loopback(settings.server.host):
        raise UsageError(
            f"AGENT_AUTH=none would serve {settings.server.host} without authentication; set "
            "AGENT_AUTH=api_key or HOST=127.0.0.1"
        )
    if settings.auth.mode == "api_key" and settings.auth.key_pepper is None and not handled:
        raise UsageError("AGENT_KEY_PEPPER is not set; set it to the output of: openssl rand -hex 32")
    _check_strength(settings)
    if settings.auth.mode == "jwt":
        for name, given in (("ISSUER", settings.auth.jwt_issuer), ("AUDIENCE", settings.auth.jwt_audience)):
            if not given:
                raise UsageError(f"AGENT_JWT_{name} is not set; AGENT_AUTH=jwt needs it to verify tokens")


def _check_strength(settings: Settings) -> None:
    """Reject guessable secrets; those from before a rotation are accepted until it is done."""
    pepper, webhooks = settings.auth.key_pepper, settings.egress.webhook_secret
    if pepper is not None and distinct_characters(pepper) < MIN_DISTINCT:
        raise UsageError(
            f"AGENT_KEY_PEPPER is not random; {GENERATE}, and AGENT_KEY_PEPPER_SECONDARY to the previous one"
        )
    if webhooks is not None and (
        len(webhooks.reveal()) < MIN_WEBHOOK_SECRET or distinct_characters(webhooks) < MIN_DISTINCT
    ):
        raise UsageError(f"AGENT_WEBHOOK_SECRET is too short or not random; {GENERATE}")


def distinct_characters(secret: Secret) -> int:
    """Return the number of distinct characters of a secret."""
    return len(set(secret.reveal()))
