"""All metric instruments, declared once (docs/reference/metrics.md is generated from here).

Names and units follow the OpenTelemetry semantic conventions, for models in an earlier version; ``LATEST`` maps them to
the current names. Labels have bounded values: never an id, never a client's input.
"""

from app.infra.telemetry import labels as of
from app.infra.telemetry.instruments import Counter, Gauge, Histogram, TracedHistogram
from app.infra.telemetry.shared_buffer import SharedMetricsBuffer

RUN_SECONDS = (0.005, 0.01, 0.05, 0.1, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0, 300.0, 600.0)
MODEL_SECONDS = (0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92)
FIRST_TOKEN_SECONDS = (0.001, 0.005, 0.01, 0.02, 0.04, 0.06, 0.08, 0.1, 0.25, 0.5, 0.75, 1.0, 2.5, 5.0, 7.5, 10.0)
TOKENS = (1, 4, 16, 64, 256, 1024, 4096, 16384, 65536, 262144, 1048576, 4194304, 16777216, 67108864)
LAG_SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 5.0, 10.0)
POOL_SECONDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0)

OPT_IN = "gen_ai_latest_experimental"
"""The value of ``OTEL_SEMCONV_STABILITY_OPT_IN`` that selects ``LATEST``."""
LATEST = {
    "gen_ai.client.operation.duration": "gen_ai.client.inference.duration",
    "gen_ai.server.time_to_first_token": "gen_ai.client.inference.time_to_first_chunk",
}

_MODEL = (of.OPERATION, "gen_ai.provider.name", "gen_ai.request.model")
_POOL = (of.POOL,)


class ServerMeters:
    """Metrics of the process, its requests and its connections."""

    def __init__(self, buffer: SharedMetricsBuffer) -> None:
        self.http_server_request_duration = TracedHistogram(
            buffer,
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests, streams until their end.",
            (of.METHOD, "http.route", of.HTTP_STATUS),
        )
        self.streams_open = Gauge(buffer, "agent.streams.open", "{stream}", "Open streaming and long-poll responses.")
        self.loop_lag = Histogram(
            buffer, "agent.event_loop.lag", "s", "Delay with which the event loop runs a timer.", bounds=LAG_SECONDS
        )
        self.tasks = Gauge(
            buffer, "agent.event_loop.tasks", "{task}", "Tasks of the event loops, including those of open requests."
        )
        self.pool_connections = Gauge(
            buffer,
            "db.client.connection.count",
            "{connection}",
            "Database connections of the pool, by state.",
            (of.POOL, of.POOL_STATE),
        )
        self.pool_most = Gauge(
            buffer, "db.client.connection.max", "{connection}", "Maximum connections of the pool.", _POOL
        )
        self.pool_waiting = Gauge(
            buffer, "db.client.connection.pending_requests", "{request}", "Requests that wait for a connection.", _POOL
        )
        self.pool_timeouts = Counter(
            buffer, "db.client.connection.timeouts", "{timeout}", "Waits for a connection that timed out.", _POOL
        )
        self.pool_wait = Histogram(
            buffer,
            "db.client.connection.wait_time",
            "s",
            "Time to get a connection, including new ones.",
            _POOL,
            POOL_SECONDS,
        )
        self.pool_use = Histogram(
            buffer, "db.client.connection.use_time", "s", "Time that a connection was in use.", _POOL, POOL_SECONDS
        )
        self.workers = Gauge(buffer, "agent.workers", "{worker}", "Running worker processes.")
        self.cpu = Counter(buffer, "process.cpu.time", "s", "CPU time of the workers.", (of.CPU_MODE,))
        self.memory = Gauge(buffer, "process.memory.usage", "By", "Resident memory of the workers.")
        self.descriptors = Gauge(
            buffer, "process.unix.file_descriptor.count", "{file_descriptor}", "Open descriptors of the workers."
        )
        self.lines_dropped = Counter(
            buffer, "agent.log.dropped", "{line}", "Log lines that were dropped because the sink blocked."
        )
        self.push_failures = Counter(
            buffer, "agent.otlp.failures", "{request}", "Requests of the OTLP exporter that failed.", (of.SIGNAL,)
        )
        self.spans_dropped = Counter(
            buffer,
            "agent.otlp.spans_dropped",
            "{span}",
            "Spans that were dropped because export failed or was too slow.",
        )


class StatusMeters(ServerMeters):
    """Status metrics, sampled every few seconds and used by the alerts in ``deploy/prometheus``."""

    def __init__(self, buffer: SharedMetricsBuffer) -> None:
        super().__init__(buffer)
        self._declare_status(buffer)
        self.streams_limit = Gauge(buffer, "agent.streams.limit", "{stream}", "Maximum open responses.")
        self.slo_target = Gauge(
            buffer, "agent.slo.target", "1", "Objective: the fraction of good events.", (of.SLO,), greatest=True
        )
        self.redis_connected = Gauge(
            buffer, "agent.redis.connected", "{worker}", "Workers that reach Redis, if configured.", (of.USE,)
        )
        self.redis_memory = Gauge(
            buffer, "agent.redis.memory", "By", "Memory of Redis, used and limit.", (of.STATE,), greatest=True
        )
        self.secret_age = Gauge(buffer, "agent.secret.age", "s", "Age of a secret's file.", ("name",), greatest=True)
        self.secret_refused = Gauge(
            buffer,
            "agent.secret.refused",
            "{secret}",
            "1 while a new value of the secret is refused.",
            ("name",),
            greatest=True,
        )
        self.storage_size = Gauge(
            buffer, "agent.storage.size", "By", "Size of the database, and of parts of it.", (of.PART,), greatest=True
        )
        self.storage_limit = Gauge(
            buffer,
            "agent.storage.limit",
            "By",
            "Disk size of the database from the settings; 0: unknown.",
            greatest=True,
        )
        self.budget_used = Gauge(
            buffer,
            "agent.budget.used",
            "1",
            "Highest used fraction of a tenant's daily dollars, or of its storage limit.",
            (of.BUDGET,),
            greatest=True,
        )
        self.runs_orphaned = Gauge(
            buffer, "agent.runs.orphaned", "{run}", "Running runs with an expired lease.", greatest=True
        )
        self.oldest_run = Gauge(buffer, "agent.runs.oldest_age", "s", "Age of the oldest running run.", greatest=True)

    def _declare_status(self, buffer: SharedMetricsBuffer) -> None:
        self.workers_ready = Gauge(
            buffer,
            "agent.workers.ready",
            "{worker}",
            "Workers that have started, do not drain, and reach the database.",
        )
        self.workers_lost = Counter(
            buffer,
            "agent.worker.lost",
            "{worker}",
            "Workers that exited without a graceful shutdown, and were replaced.",
        )
        self.uptime = Gauge(buffer, "process.uptime", "s", "Uptime of the server.", greatest=True)
        self.migrations_lacking = Gauge(
            buffer, "agent.migrations.lacking", "{migration}", "Pending migrations.", greatest=True
        )
        self.migrations_ahead = Gauge(
            buffer, "agent.migrations.ahead", "1", "1 while the database is newer than this program.", greatest=True
        )


class Meters(StatusMeters):
    """The instruments of one worker, in its ``buffer``.

    ``latest``: use the names of ``LATEST`` for models.
    """

    def __init__(self, buffer: SharedMetricsBuffer | None = None, *, latest: bool = False) -> None:
        self.buffer = buffer = buffer or SharedMetricsBuffer()
        super().__init__(buffer)
        names = LATEST if latest else {}
        self._declare_runs(buffer)
        self._declare_caches(buffer)
        self.model_duration = TracedHistogram(
            buffer,
            names.get("gen_ai.client.operation.duration", "gen_ai.client.operation.duration"),
            "s",
            "Duration of calls to a model.",
            (*_MODEL, of.MODEL_TROUBLE),
            MODEL_SECONDS,
        )
        self.first_token = TracedHistogram(
            buffer,
            names.get("gen_ai.server.time_to_first_token", "gen_ai.server.time_to_first_token"),
            "s",
            "Time from the request to the first chunk of a model's response, including failed attempts.",
            _MODEL,
            FIRST_TOKEN_SECONDS,
        )
        self.model_tokens = Histogram(
            buffer,
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens read and written by a model.",
            (*_MODEL, of.TOKEN_TYPE),
            TOKENS,
        )
        self.tool_duration = TracedHistogram(
            buffer,
            "gen_ai.execute_tool.duration",
            "s",
            "Duration of tool calls.",
            ("gen_ai.tool.name", of.TOOL_TROUBLE),
            MODEL_SECONDS,
        )
        self._declare_models(buffer)
        self._open(buffer)

    def _declare_models(self, buffer: SharedMetricsBuffer) -> None:
        """Declare metrics that the conventions do not define."""
        model_labels = ("gen_ai.provider.name", "gen_ai.request.model")
        self.model_attempts = Counter(
            buffer,
            "agent.model.attempts",
            "{attempt}",
            "Requests to providers, including retries, by error.",
            (*model_labels, of.MODEL_TROUBLE),
        )
        self.model_fallbacks = Counter(
            buffer,
            "agent.model.fallbacks",
            "{call}",
            "Calls that failed over to the next model, by the model that failed.",
            model_labels,
        )
        self.model_cost = Counter(
            buffer, "agent.model.cost", "{USD}", "Cost of models by the price list.", model_labels
        )
        self.breaker_open = Gauge(
            buffer,
            "agent.model.breaker.open",
            "{worker}",
            "Workers whose circuit breaker for a provider is open.",
            model_labels[:1],
        )

    def _declare_runs(self, buffer: SharedMetricsBuffer) -> None:
        self.runs = Counter(buffer, "agent.runs", "{run}", "Runs that ended.", (of.RUN_STATUS, "assistant"))
        self.run_duration = TracedHistogram(
            buffer, "agent.run.duration", "s", "Duration of runs.", (of.RUN_STATUS, "assistant"), RUN_SECONDS
        )
        self.runs_left = Counter(
            buffer,
            "agent.runs.left_behind",
            "{run}",
            "Runs that ended while their code still ran: it did not stop on a timeout or cancellation.",
            ("assistant",),
        )
        self.runs_active = Gauge(buffer, "agent.runs.active", "{run}", "Runs in execution.")
        self.queue_depth = Gauge(
            buffer,
            "agent.queue.depth",
            "{run}",
            "Pending runs that are due, counted up to 10,000.",
            greatest=True,
        )
        self.queue_age = Gauge(
            buffer, "agent.queue.oldest_age", "s", "Waiting time of the oldest pending run.", greatest=True
        )
        self.checkpoints = Histogram(
            buffer,
            "agent.checkpoint.duration",
            "s",
            "Time from a step's end until its checkpoint is durable, by error.",
            (of.STEP_TROUBLE,),
        )
        self.leases_lost = Counter(
            buffer, "agent.lease.lost", "{run}", "Runs that stopped because their lease was lost."
        )
        self.webhooks = Counter(buffer, "agent.webhooks", "{attempt}", "Webhook calls, by outcome.", (of.WEBHOOK,))
        self.ratelimit_rejected = Counter(
            buffer, "agent.ratelimit.rejected", "{request}", "Requests that a limit refused.", (of.LIMIT,)
        )
        self.protocol_requests = Counter(
            buffer,
            "agent.protocol.requests",
            "{request}",
            "Requests of other protocols than the API, by HTTP status (4xx: refused, 5xx: failed).",
            (of.PROTOCOL, of.RESPONSE),
        )
        self.secret_rotations = Counter(
            buffer,
            "agent.secret.rotations",
            "{rotation}",
            "Reloaded secrets, and new values that were refused.",
            ("name", of.SECRET),
        )
        self.tool_calls = Counter(buffer, "agent.tool.calls", "{call}", "Tool calls that ended.", ("tool", of.TOOL))

    def _declare_caches(self, buffer: SharedMetricsBuffer) -> None:
        self.cache_requests = Counter(
            buffer,
            "agent.cache.requests",
            "{value}",
            "Cache requests by outcome; the hit ratio is `hit` plus `shared` over all.",
            (of.CACHE, of.CACHE_OUTCOME),
        )
        self.cache_tokens = Counter(
            buffer,
            "agent.cache.tokens",
            "{token}",
            "Tokens of responses from the cache, which cost nothing.",
            ("gen_ai.provider.name", "gen_ai.request.model", of.TOKEN_TYPE),
        )

    def _open(self, buffer: SharedMetricsBuffer) -> None:
        """Take over the series of a previous worker, except those with another declaration."""
        lost = buffer.attach()
        declared = {part.name: part for part in self.instruments()}
        for row in buffer.refresh():
            if row.name in declared:
                declared[row.name].take_over(row.labels, row.at, row.width)
        for part in declared.values():
            part.begin()
        if lost:
            self.workers_lost.add(1)

    def instruments(self) -> list[Counter | Gauge | Histogram]:
        """Return all instruments, in the order of their declaration."""
        return [part for part in vars(self).values() if isinstance(part, Counter | Histogram)]
