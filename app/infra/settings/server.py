"""The server itself, and what runs in it."""

from typing import Annotated, Literal

import msgspec

from app.infra.settings.declaration import is_


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Server"""

    environment: Annotated[
        Literal["development", "production"],
        is_("APP_ENV", "What this process serves; `production` refuses whatever is meant for tests."),
    ] = "development"
    crash_at: Annotated[
        str,
        is_("AGENT_CRASH_AT", "For tests: where the process dies (`app.base.crash_points`). Refused in production."),
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], is_("LOG_LEVEL", "The least level that is logged.")
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"], is_("LOG_FORMAT", "Lines for a person, or one JSON object a line.")
    ] = "console"
    host: Annotated[str, is_("HOST", "The address to listen on. Any but a loopback one needs authentication.")] = (
        "127.0.0.1"
    )
    port: Annotated[int, is_("PORT", "The port to listen on.", ge=1, le=65535)] = 8000
    metrics_port: Annotated[
        int,
        is_(
            "METRICS_PORT",
            "The port on which `agent-service serve` answers `/metrics`, and nothing else (0: on `PORT`).",
            ge=0,
            le=65535,
        ),
    ] = 0
    role: Annotated[
        Literal["all", "api", "worker"],
        is_("AGENT_ROLE", "`api` answers requests, `worker` executes runs (it serves health and metrics too)."),
    ] = "all"
    workers: Annotated[int, is_("WORKERS", "Worker processes of `agent-service serve`.", ge=1, le=256)] = 1
    stuck_seconds: Annotated[
        float,
        is_(
            "AGENT_STUCK_SECONDS",
            "Seconds for which a worker's event loop may stand still before it is killed (0: for ever).",
            ge=0,
            le=3600,
        ),
    ] = 30
    worker_lifetime: Annotated[
        float,
        is_(
            "AGENT_WORKER_LIFETIME",
            "Seconds after which a worker is replaced (0: never).",
            ge=0,
            le=31_536_000,
        ),
    ] = 0
    worker_max_rss: Annotated[
        float, is_("AGENT_WORKER_MAX_RSS", "Megabytes of memory from which on it is (0: never).", ge=0, le=1_000_000)
    ] = 0
    trusted_proxies: Annotated[
        str,
        is_(
            "AGENT_TRUSTED_PROXIES",
            "Addresses and networks, with commas between them, whose X-Forwarded-For is believed.",
            examples=["10.0.0.0/8,127.0.0.1"],
        ),
    ] = ""
    allowed_hosts: Annotated[
        str,
        is_(
            "AGENT_ALLOWED_HOSTS",
            "Names in Host that are served, with commas between them; *.example.com takes all below. Unset: all; "
            "without authentication: loopback names alone.",
            examples=["agents.example.com,*.internal"],
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        is_(
            "AGENT_CORS_ORIGINS",
            "Exact origins of browsers that may read answers, with commas between them. Unset: none; without "
            "authentication: those on loopback names.",
            examples=["https://app.example.com"],
        ),
    ] = ""
    root_path: Annotated[
        str,
        is_("ROOT_PATH", "The path under which a proxy serves this server.", pattern="^/.*[^/]$", examples=["/agents"]),
    ] = ""


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Agents"""

    config: Annotated[
        str,
        is_("AGENT_CONFIG", "The file that names the agents. Unset: `agents.toml` here, if there is one."),
    ] = ""


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Runs"""

    drain_seconds: Annotated[
        float, is_("AGENT_DRAIN_SECONDS", "How long running steps may take to finish after SIGTERM.", ge=0, le=3600)
    ] = 30
    most: Annotated[
        int, is_("AGENT_WORKER_RUNS", "Runs that one worker process executes at once; others wait.", ge=1, le=100_000)
    ] = 1000
    request_bytes: Annotated[
        int,
        is_(
            "AGENT_REQUEST_BYTES",
            "Bytes of a request that carries messages: a run, a state, a new thread. A run takes some eight times as "
            "many of memory, and blocks others for some four milliseconds a megabyte.",
            ge=1_048_576,
            le=33_554_432,
        ),
    ] = 8 * 1024 * 1024
    streams_per_key: Annotated[
        int, is_("AGENT_STREAMS_PER_KEY", "Streams that one key may have open on one process.", ge=1, le=100_000)
    ] = 2000
    lease_seconds: Annotated[
        float, is_("AGENT_LEASE_SECONDS", "How long a worker owns a run without renewing its lease.", ge=3, le=3600)
    ] = 30
    request_seconds: Annotated[
        float,
        is_(
            "AGENT_REQUEST_SECONDS",
            "Seconds until the answer to a request must begin; then it gets 503. Not for streams, waits for a run, and "
            "uploads, which have deadlines of their own.",
            ge=1,
            le=3600,
        ),
    ] = 120
