"""Settings of the server and its runs."""

from typing import Annotated, Literal

import msgspec

from app.infra.secrets.secret import Secret
from app.infra.settings.declaration import is_


class ServerSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Server"""

    environment: Annotated[
        Literal["development", "production"],
        is_("APP_ENV", "The environment; `production` refuses settings meant for tests."),
    ] = "development"
    crash_at: Annotated[
        str,
        is_("AGENT_CRASH_AT", "For tests: where the process crashes (`app.base.crash_points`). Refused in production."),
    ] = ""
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], is_("LOG_LEVEL", "The minimum level that is logged.")
    ] = "info"
    log_format: Annotated[
        Literal["console", "json"], is_("LOG_FORMAT", "Readable lines, or one JSON object per line.")
    ] = "console"
    log_runs: Annotated[
        bool,
        is_(
            "AGENT_LOG_RUNS",
            "For development, and on in `agent-service dev`: log a line for each run that ends, and tracebacks of "
            "errors in agents and tools, whose text may hold what users wrote.",
        ),
    ] = False
    host: Annotated[
        str, is_("HOST", "The address to listen on. Any but a loopback address requires authentication.")
    ] = "127.0.0.1"
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
        is_("AGENT_ROLE", "`api` serves requests, `worker` executes runs (and serves health and metrics)."),
    ] = "all"
    workers: Annotated[int, is_("WORKERS", "Worker processes of `agent-service serve`.", ge=1, le=256)] = 1
    stuck_seconds: Annotated[
        float,
        is_(
            "AGENT_STUCK_SECONDS",
            "Seconds for which a worker's event loop may be blocked before it is killed (0: never killed).",
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
        float,
        is_(
            "AGENT_WORKER_MAX_RSS",
            "Megabytes of memory above which a worker is replaced (0: never).",
            ge=0,
            le=1_000_000,
        ),
    ] = 0
    trusted_proxies: Annotated[
        str,
        is_(
            "AGENT_TRUSTED_PROXIES",
            "Addresses and networks, comma-separated, whose X-Forwarded-For is trusted.",
            examples=["10.0.0.0/8,127.0.0.1"],
        ),
    ] = ""
    allowed_hosts: Annotated[
        str,
        is_(
            "AGENT_ALLOWED_HOSTS",
            "Host names that are served, comma-separated; *.example.com matches all subdomains. Unset: all; "
            "without authentication: loopback names only.",
            examples=["agents.example.com,*.internal"],
        ),
    ] = ""
    cors_origins: Annotated[
        str,
        is_(
            "AGENT_CORS_ORIGINS",
            "Exact browser origins that may read responses, comma-separated. Unset: none; without authentication: "
            "those on loopback names.",
            examples=["https://app.example.com"],
        ),
    ] = ""
    public_url: Annotated[
        str,
        is_(
            "AGENT_PUBLIC_URL",
            "The URL, with its path, at which clients reach this server. Unset: the one that they request.",
            pattern=r"^https?://[^/].*[^/]$",
            examples=["https://agents.example.com"],
        ),
    ] = ""
    mcp_admin: Annotated[
        Literal["on", "off"],
        is_("AGENT_MCP_ADMIN", "`on`: operations of the server are MCP tools at `/mcp/admin`, for operators."),
    ] = "off"
    root_path: Annotated[
        str,
        is_("ROOT_PATH", "The path under which a proxy serves this server.", pattern="^/.*[^/]$", examples=["/agents"]),
    ] = ""
    console: Annotated[
        Literal["on", "off"],
        is_("AGENT_CONSOLE", "Whether browsers get the console at `/`; other clients get a table of contents."),
    ] = "on"
    card_key: Annotated[
        Secret | None,
        is_(
            "AGENT_CARD_KEY",
            "Signs A2A agent cards (ES256): the output of `openssl rand -hex 32`. Unset: cards are not signed.",
        ),
    ] = None


class AgentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Agents"""

    config: Annotated[
        str,
        is_(
            "AGENT_CONFIG",
            "The file that declares the agents. Unset: `agents.toml` in the working directory, if it exists.",
        ),
    ] = ""


class RunSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Runs"""

    drain_seconds: Annotated[
        float, is_("AGENT_DRAIN_SECONDS", "Seconds that running steps may take to finish after SIGTERM.", ge=0, le=3600)
    ] = 30
    max_runs: Annotated[
        int, is_("AGENT_WORKER_RUNS", "Runs that one worker process executes at once; others wait.", ge=1, le=100_000)
    ] = 1000
    request_bytes: Annotated[
        int,
        is_(
            "AGENT_REQUEST_BYTES",
            "Maximum bytes of a request with messages: a run, a state, a new thread. A run takes about eight times "
            "that in memory, and blocks the event loop for about 4 ms per megabyte.",
            ge=1_048_576,
            le=33_554_432,
        ),
    ] = 8 * 1024 * 1024
    state_bytes: Annotated[
        int,
        is_(
            "AGENT_STATE_BYTES",
            "Maximum bytes of a thread's values as JSON. A run that would exceed them fails, a state update or an "
            "imported history gets 413, and the thread stays as it was.",
            ge=1_048_576,
            le=1_073_741_824,
        ),
    ] = 64 * 1024 * 1024
    streams_per_key: Annotated[
        int,
        is_(
            "AGENT_STREAMS_PER_KEY",
            "Open streams of one key on one process, and as many WebSocket connections.",
            ge=1,
            le=100_000,
        ),
    ] = 2000
    lease_seconds: Annotated[
        float,
        is_("AGENT_LEASE_SECONDS", "Seconds for which a worker owns a run without renewing its lease.", ge=3, le=3600),
    ] = 30
    request_seconds: Annotated[
        float,
        is_(
            "AGENT_REQUEST_SECONDS",
            "Seconds until the response to a request must begin; then it gets 503. Streams, waits for a run and "
            "uploads have their own timeouts.",
            ge=1,
            le=3600,
        ),
    ] = 120
