"""Every instrument of this program, declared once (docs/reference/metrics.md is generated from here).

Names and units follow the OpenTelemetry semantic conventions, those of models in the version that the contract of this
program was written for; ``LATEST`` has what they are called since. Labels are bounded: never an id, never what a client
sent.
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
"""What ``OTEL_SEMCONV_STABILITY_OPT_IN`` must name for ``LATEST``."""
LATEST = {
    "gen_ai.client.operation.duration": "gen_ai.client.inference.duration",
    "gen_ai.server.time_to_first_token": "gen_ai.client.inference.time_to_first_chunk",
}

_MODEL = (of.OPERATION, "gen_ai.provider.name", "gen_ai.request.model")
_POOL = (of.POOL,)


class ServerMeters:
    """The process, its requests and its connections."""

    def __init__(self, board: SharedMetricsBuffer) -> None:
        self.http_server_request_duration = TracedHistogram(
            board,
            "http.server.request.duration",
            "s",
            "Duration of HTTP server requests, streams until their end.",
            (of.METHOD, "http.route", of.HTTP_STATUS),
        )
        self.streams_open = Gauge(
            board, "agent.streams.open", "{stream}", "Answers that are being streamed or waited for now."
        )
        self.loop_lag = Histogram(
            board, "agent.event_loop.lag", "s", "How late the event loop runs a timer.", bounds=LAG_SECONDS
        )
        self.tasks = Gauge(
            board, "agent.event_loop.tasks", "{task}", "Tasks of the event loops, those of open requests included."
        )
        self.pool_connections = Gauge(
            board,
            "db.client.connection.count",
            "{connection}",
            "Database connections of the pool, by state.",
            (of.POOL, of.POOL_STATE),
        )
        self.pool_most = Gauge(
            board, "db.client.connection.max", "{connection}", "Connections that the pool may have.", _POOL
        )
        self.pool_waiting = Gauge(
            board, "db.client.connection.pending_requests", "{request}", "Who waits for a connection now.", _POOL
        )
        self.pool_timeouts = Counter(
            board, "db.client.connection.timeouts", "{timeout}", "Waits for a connection that were given up.", _POOL
        )
        self.pool_wait = Histogram(
            board,
            "db.client.connection.wait_time",
            "s",
            "How long it took to get a connection, those included that had to be made.",
            _POOL,
            POOL_SECONDS,
        )
        self.pool_use = Histogram(
            board, "db.client.connection.use_time", "s", "How long a connection was in use.", _POOL, POOL_SECONDS
        )
        self.workers = Gauge(board, "agent.workers", "{worker}", "Worker processes that serve now.")
        self.cpu = Counter(board, "process.cpu.time", "s", "CPU time of the workers.", (of.CPU_MODE,))
        self.memory = Gauge(board, "process.memory.usage", "By", "Resident memory of the workers.")
        self.descriptors = Gauge(
            board, "process.unix.file_descriptor.count", "{file_descriptor}", "Open descriptors of the workers."
        )
        self.lines_dropped = Counter(
            board, "agent.log.dropped", "{line}", "Log lines that nobody took in time and that were thrown away."
        )
        self.push_failures = Counter(
            board, "agent.otlp.failures", "{request}", "Requests of the OTLP exporter that failed.", (of.SIGNAL,)
        )
        self.spans_dropped = Counter(
            board, "agent.otlp.spans_dropped", "{span}", "Spans that could not be sent, or not soon enough."
        )


class StandingMeters(ServerMeters):
    """How things stand: sampled every few seconds, and watched by the rules in ``deploy/prometheus``."""

    def __init__(self, board: SharedMetricsBuffer) -> None:
        super().__init__(board)
        self._declare_standing(board)
        self.streams_limit = Gauge(board, "agent.streams.limit", "{stream}", "Answers that may be open at once.")
        self.slo_target = Gauge(
            board, "agent.slo.target", "1", "The part of events that shall be good.", (of.SLO,), greatest=True
        )
        self.redis_connected = Gauge(
            board, "agent.redis.connected", "{worker}", "Workers that reach Redis, where one is set.", (of.USE,)
        )
        self.redis_memory = Gauge(
            board, "agent.redis.memory", "By", "Memory of Redis, used and at most.", (of.STATE,), greatest=True
        )
        self.secret_age = Gauge(
            board, "agent.secret.age", "s", "How old the file of a secret is.", ("name",), greatest=True
        )
        self.secret_refused = Gauge(
            board, "agent.secret.refused", "{secret}", "1 while a new value is not used.", ("name",), greatest=True
        )
        self.storage_size = Gauge(
            board, "agent.storage.size", "By", "Size of the database, and of parts of it.", (of.PART,), greatest=True
        )
        self.storage_limit = Gauge(
            board, "agent.storage.limit", "By", "Its room, as the settings say; 0: not told.", greatest=True
        )
        self.budget_used = Gauge(
            board,
            "agent.budget.used",
            "1",
            "The part used of today's dollars, or of the bytes that may be stored, by the tenant nearest to its limit.",
            (of.BUDGET,),
            greatest=True,
        )
        self.runs_orphaned = Gauge(
            board, "agent.runs.orphaned", "{run}", "Runs under way whose lease nobody renews.", greatest=True
        )
        self.oldest_run = Gauge(
            board, "agent.runs.oldest_age", "s", "How long the oldest run that is under way has taken.", greatest=True
        )

    def _declare_standing(self, board: SharedMetricsBuffer) -> None:
        self.workers_ready = Gauge(
            board, "agent.workers.ready", "{worker}", "Workers that are started, not draining, and have their database."
        )
        self.workers_lost = Counter(
            board, "agent.worker.lost", "{worker}", "Workers that ended without closing, and were replaced."
        )
        self.uptime = Gauge(board, "process.uptime", "s", "How long the server has been up.", greatest=True)
        self.migrations_lacking = Gauge(
            board, "agent.migrations.lacking", "{migration}", "Migrations that the database lacks.", greatest=True
        )
        self.migrations_ahead = Gauge(
            board, "agent.migrations.ahead", "1", "1 while the database is newer than this program.", greatest=True
        )


class Meters(StandingMeters):
    """The instruments of one worker, on its ``board``. Built by the wiring and passed to who counts.

    ``latest``: models are counted under the names of ``LATEST``.
    """

    def __init__(self, board: SharedMetricsBuffer | None = None, *, latest: bool = False) -> None:
        self.board = board = board or SharedMetricsBuffer()
        super().__init__(board)
        names = LATEST if latest else {}
        self._declare_runs(board)
        self._declare_caches(board)
        self.model_duration = TracedHistogram(
            board,
            names.get("gen_ai.client.operation.duration", "gen_ai.client.operation.duration"),
            "s",
            "Duration of calls to a model.",
            (*_MODEL, of.MODEL_TROUBLE),
            MODEL_SECONDS,
        )
        self.first_token = TracedHistogram(
            board,
            names.get("gen_ai.server.time_to_first_token", "gen_ai.server.time_to_first_token"),
            "s",
            "From the question to the first piece of a model's answer, tries that failed included.",
            _MODEL,
            FIRST_TOKEN_SECONDS,
        )
        self.model_tokens = Histogram(
            board,
            "gen_ai.client.token.usage",
            "{token}",
            "Tokens read and written by a model.",
            (*_MODEL, of.TOKEN_TYPE),
            TOKENS,
        )
        self.tool_duration = TracedHistogram(
            board,
            "gen_ai.execute_tool.duration",
            "s",
            "Duration of tool calls.",
            ("gen_ai.tool.name", of.TOOL_TROUBLE),
            MODEL_SECONDS,
        )
        self._declare_models(board)
        self._open(board)

    def _declare_models(self, board: SharedMetricsBuffer) -> None:
        """What the conventions have no names for."""
        model_labels = ("gen_ai.provider.name", "gen_ai.request.model")
        self.model_attempts = Counter(
            board,
            "agent.model.attempts",
            "{attempt}",
            "Requests to providers, each try counted, and how they failed.",
            (*model_labels, of.MODEL_TROUBLE),
        )
        self.model_fallbacks = Counter(
            board,
            "agent.model.fallbacks",
            "{call}",
            "Calls that went on to the next model, by who was left.",
            model_labels,
        )
        self.model_cost = Counter(
            board, "agent.model.cost", "{USD}", "What models have cost, by the price list.", model_labels
        )
        self.breaker_open = Gauge(
            board,
            "agent.model.breaker.open",
            "{worker}",
            "Workers that do not ask a provider at the moment.",
            model_labels[:1],
        )

    def _declare_runs(self, board: SharedMetricsBuffer) -> None:
        self.runs = Counter(board, "agent.runs", "{run}", "Runs that ended.", (of.RUN_STATUS, "assistant"))
        self.run_duration = TracedHistogram(
            board, "agent.run.duration", "s", "Start to end of a run.", (of.RUN_STATUS, "assistant"), RUN_SECONDS
        )
        self.runs_left = Counter(
            board,
            "agent.runs.left_behind",
            "{run}",
            "Runs that ended while their code went on: it did not stop when its time was over or it was cancelled.",
            ("assistant",),
        )
        self.runs_active = Gauge(board, "agent.runs.active", "{run}", "Runs that are worked on now.")
        self.queue_depth = Gauge(
            board,
            "agent.queue.depth",
            "{run}",
            "Runs in the database whose time has come and that wait for their turn, at most 10,000 counted.",
            greatest=True,
        )
        self.queue_age = Gauge(
            board, "agent.queue.oldest_age", "s", "How long the oldest of them has waited.", greatest=True
        )
        self.checkpoints = Histogram(
            board,
            "agent.checkpoint.duration",
            "s",
            "From a step's end until it is durable; else LeaseLost, cancelled or Unavailable (the database).",
            (of.STEP_TROUBLE,),
        )
        self.leases_lost = Counter(
            board, "agent.lease.lost", "{run}", "Runs stopped here because their lease was lost."
        )
        self.webhooks = Counter(board, "agent.webhooks", "{attempt}", "Webhook calls, by outcome.", (of.WEBHOOK,))
        self.ratelimit_rejected = Counter(
            board, "agent.ratelimit.rejected", "{request}", "Requests that a limit refused.", (of.LIMIT,)
        )
        self.secret_rotations = Counter(
            board,
            "agent.secret.rotations",
            "{rotation}",
            "Secrets that were read anew, and new ones that were refused.",
            ("name", of.SECRET),
        )
        self.tool_calls = Counter(board, "agent.tool.calls", "{call}", "Tool calls that ended.", ("tool", of.TOOL))

    def _declare_caches(self, board: SharedMetricsBuffer) -> None:
        self.cache_requests = Counter(
            board,
            "agent.cache.requests",
            "{value}",
            "Values that were looked for in a cache, by outcome: the hit ratio is `hit` and `shared` over all.",
            (of.CACHE, of.CACHE_OUTCOME),
        )
        self.cache_tokens = Counter(
            board,
            "agent.cache.tokens",
            "{token}",
            "Tokens of answers that came out of the cache: they were not paid for.",
            ("gen_ai.provider.name", "gen_ai.request.model", of.TOKEN_TYPE),
        )

    def _open(self, board: SharedMetricsBuffer) -> None:
        """Take over what a worker before has counted; what its declarations no longer are is left alone."""
        lost = board.occupy()
        declared = {part.name: part for part in self.instruments()}
        for row in board.refresh():
            if row.name in declared:
                declared[row.name].take_over(row.labels, row.at, row.width)
        for part in declared.values():
            part.begin()
        if lost:
            self.workers_lost.add(1)

    def instruments(self) -> list[Counter | Gauge | Histogram]:
        """All of them, in the order of their declaration."""
        return [part for part in vars(self).values() if isinstance(part, Counter | Histogram)]
