"""The settings by room: what each may hold, in the words of the page ``docs/configuration.md``."""

from typing import Annotated, Any, Literal

import msgspec

from app.secrets.secret import Secret

_SHORTEST_PEPPER = 32


def _is(variable: str, meaning: str, **rules: Any) -> msgspec.Meta:
    return msgspec.Meta(description=meaning, extra={"variable": variable}, **rules)


_POSTGRES: dict[str, Any] = {
    "pattern": r"^postgres(ql)?://",
    "examples": ["postgresql://user:password@host/database?sslmode=require", "postgresql:///database?host=/folder"],
}
_HTTP: dict[str, Any] = {"pattern": r"^https?://[^/]"}
_ISSUER: dict[str, Any] = {"pattern": r"^(https://[^/]|http://(127\.0\.0\.1|localhost|\[::1\])[:/])"}
"""Keys that come without TLS could be anybody's."""


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Server"""

    environment: Annotated[
        Literal["development", "production"],
        _is("APP_ENV", "What this process serves; `production` refuses whatever is meant for tests."),
    ] = "development"
    crash_at: Annotated[
        str, _is("AGENT_CRASH_AT", "For tests: where the process dies (`app.base.crashes`). Refused in production.")
    ] = ""
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
    role: Annotated[
        Literal["all", "api", "worker"],
        _is("AGENT_ROLE", "`api` answers requests, `worker` executes runs (it serves health and metrics too)."),
    ] = "all"
    workers: Annotated[int, _is("WORKERS", "Worker processes of `agent-service serve`.", ge=1, le=256)] = 1
    stuck_seconds: Annotated[
        float,
        _is(
            "AGENT_STUCK_SECONDS",
            "Seconds for which a worker's event loop may stand still before it is killed (0: for ever).",
            ge=0,
            le=3600,
        ),
    ] = 30
    worker_lifetime: Annotated[
        float,
        _is(
            "AGENT_WORKER_LIFETIME",
            "Seconds after which a worker is replaced (0: never).",
            ge=0,
            le=31_536_000,
        ),
    ] = 0
    worker_max_rss: Annotated[
        float, _is("AGENT_WORKER_MAX_RSS", "Megabytes of memory from which on it is (0: never).", ge=0, le=1_000_000)
    ] = 0
    trusted_proxies: Annotated[
        str,
        _is(
            "AGENT_TRUSTED_PROXIES",
            "Addresses and networks, with commas between them, whose X-Forwarded-For is believed.",
            examples=["10.0.0.0/8,127.0.0.1"],
        ),
    ] = ""
    allowed_hosts: Annotated[
        str,
        _is(
            "AGENT_ALLOWED_HOSTS",
            "Names in Host that are served, with commas between them; *.example.com takes all below. Unset: all.",
            examples=["agents.example.com,*.internal"],
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        _is(
            "AGENT_CORS_ORIGINS",
            "Exact origins of browsers that may read answers, with commas between them. Unset: none.",
            examples=["https://app.example.com"],
        ),
    ] = ""
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
    direct_url: Annotated[
        Secret | None,
        _is(
            "DATABASE_DIRECT_URL",
            "The same past any pooler, for LISTEN. Unset: `DATABASE_URL`.",
            **_POSTGRES,
        ),
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


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Redis"""

    url: Annotated[
        Secret | None,
        _is(
            "REDIS_URL",
            "Carries frames of runs to readers in other processes. Unset: PostgreSQL does.",
            pattern=r"^(rediss?|unix)://",
            examples=["redis://user:password@host:6379/0"],
        ),
    ] = None


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
        Literal["none", "api_key", "jwt"],
        _is(
            "AGENT_AUTH",
            "`api_key`: requests need a key. `jwt`: a token of the issuer, or a key if AGENT_KEY_PEPPER is set. "
            "`none`: loopback only; what `agent-service dev` takes.",
        ),
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
    jwt_issuer: Annotated[
        str,
        _is("AGENT_JWT_ISSUER", "Who signs tokens: their `iss`.", examples=["https://login.example.com"], **_ISSUER),
    ] = ""
    jwt_audience: Annotated[str, _is("AGENT_JWT_AUDIENCE", "For whom tokens are: their `aud` must name it.")] = ""
    jwt_jwks_url: Annotated[
        str,
        _is(
            "AGENT_JWT_JWKS_URL",
            "Where the issuer's keys are. Unset: what its discovery document says.",
            examples=["https://login.example.com/jwks.json"],
            **_ISSUER,
        ),
    ] = ""
    jwt_algorithms: Annotated[
        str, _is("AGENT_JWT_ALGORITHMS", "Signature algorithms that are accepted, with commas between them.")
    ] = "RS256,ES256,EdDSA"
    jwt_tenant_claim: Annotated[
        str, _is("AGENT_JWT_TENANT_CLAIM", "The claim that names the tenant. Unset: all are the tenant `default`.")
    ] = ""
    jwt_roles_claim: Annotated[
        str,
        _is(
            "AGENT_JWT_ROLES_CLAIM",
            "The claim (dots lead into objects) that lists roles: read-only, member, operator, admin. Unset: member.",
            examples=["realm_access.roles"],
        ),
    ] = ""
    jwt_leeway: Annotated[
        float, _is("AGENT_JWT_LEEWAY", "Seconds by which the issuer's clock may differ.", ge=0, le=300)
    ] = 10


class EgressSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Calls to addresses that users name"""

    allow: Annotated[
        str,
        _is(
            "AGENT_EGRESS_ALLOW",
            "Private hosts, addresses and networks that webhooks may reach, with commas between them.",
            examples=["hooks.internal,10.1.0.0/16"],
        ),
    ] = ""
    webhook_secret: Annotated[
        Secret | None, _is("AGENT_WEBHOOK_SECRET", "Signs webhooks (Standard Webhooks). Unset: they are not signed.")
    ] = None
    webhook_secret_secondary: Annotated[
        Secret | None, _is("AGENT_WEBHOOK_SECRET_SECONDARY", "Signs them as well: for rotation.")
    ] = None


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Runs"""

    drain_seconds: Annotated[
        float, _is("AGENT_DRAIN_SECONDS", "How long running steps may take to finish after SIGTERM.", ge=0, le=3600)
    ] = 30
    most: Annotated[
        int, _is("AGENT_WORKER_RUNS", "Runs that one worker process executes at once; others wait.", ge=1, le=100_000)
    ] = 1000
    streams_per_key: Annotated[
        int, _is("AGENT_STREAMS_PER_KEY", "Streams that one key may have open on one process.", ge=1, le=100_000)
    ] = 2000
    lease_seconds: Annotated[
        float, _is("AGENT_LEASE_SECONDS", "How long a worker owns a run without renewing its lease.", ge=3, le=3600)
    ] = 30
    request_seconds: Annotated[
        float, _is("AGENT_REQUEST_SECONDS", "How long a request that does not stream may take.", ge=1, le=3600)
    ] = 120


def _rate(variable: str, meaning: str) -> msgspec.Meta:
    return _is(variable, f"{meaning} a minute (0: no limit).", ge=0, le=1_000_000_000)


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and budgets"""

    rate_per_minute: Annotated[
        int,
        _is(
            "AGENT_RATE_PER_MINUTE",
            "Requests that start runs, of one key, a minute (0: no limit). With AGENT_AUTH=none only if it is set.",
            ge=0,
            le=1_000_000_000,
        ),
    ] = 60
    requests_per_minute: Annotated[int, _rate("AGENT_REQUESTS_PER_MINUTE", "All requests of one key")] = 0
    tenant_requests_per_minute: Annotated[
        int, _rate("AGENT_TENANT_REQUESTS_PER_MINUTE", "All requests of one tenant")
    ] = 0
    tokens_per_minute: Annotated[int, _rate("AGENT_TOKENS_PER_MINUTE", "Tokens of models that one tenant uses")] = 0
    reserve_tokens: Annotated[
        int,
        _is(
            "AGENT_RESERVE_TOKENS",
            "Tokens that a run reserves before it starts, when tokens or cost are limited; more as it uses them up.",
            ge=1,
            le=10_000_000,
        ),
    ] = 2000
    cost_per_day: Annotated[
        float,
        _is(
            "AGENT_COST_PER_DAY",
            "Dollars that one tenant may spend on models a day in UTC (0: no limit).",
            ge=0,
            le=1e9,
        ),
    ] = 0
    prices: Annotated[
        str, _is("AGENT_PRICES", "A TOML file with prices of models, in place of those that come along.")
    ] = ""
    runs: Annotated[
        int,
        _is("AGENT_TENANT_RUNS", "Runs of one tenant that may be executed at once (0: no limit).", ge=0, le=1_000_000),
    ] = 0
    queued_runs: Annotated[
        int, _is("AGENT_TENANT_QUEUE", "Runs of one tenant that may wait (0: no limit).", ge=0, le=1_000_000_000)
    ] = 0
