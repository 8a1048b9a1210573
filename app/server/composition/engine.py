"""The run engine: queue, journal, signals, feeds, and the supervisor of the runs of this process."""

import os
import socket
from typing import TYPE_CHECKING

import msgspec

from app.base.ids import owner_id
from app.engine.entries import ClaimedRun
from app.engine.execution.journal import Journal
from app.engine.queue.claims import RunQueue
from app.engine.queue.run_claimer import QueueMetrics
from app.engine.streams.feed_registry import FeedRegistry
from app.engine.streams.frame_transport import FramePublisher, FrameTransport
from app.engine.streams.postgres_transport import PostgresFrameTransport
from app.engine.streams.signals import Signals
from app.engine.structs import RunRequest
from app.engine.supervisor import RunEngine, Supervisor
from app.features.runs.chain import RunChains
from app.features.webhooks.dispatcher import WebhookDispatcher
from app.features.webhooks.push import PushNotifications
from app.features.webhooks.signing import key_of
from app.infra.egress.addresses import AddressAllowlist
from app.infra.egress.client import EgressClient
from app.infra.settings.environment import Settings
from app.protocols.a2a.bindings import MEDIA_TYPE
from app.protocols.a2a.push import TaskPayloads
from app.protocols.a2a.tasks import METADATA
from app.server.composition.limits import Limits
from app.server.composition.models import AgentRuntime
from app.server.composition.persistence import Persistence
from app.server.composition.telemetry import Telemetry

if TYPE_CHECKING:  # it loads its library
    from app.engine.streams.redis_transport import RedisFrameTransport


A2A_RUN = f'"{METADATA}"'
"""In the metadata of runs that may have push configurations."""


class EngineStack(msgspec.Struct, frozen=True, kw_only=True):
    """``supervisor`` owns the runs of this process, over ``parts``. ``redis`` carries frames, where one is set."""

    parts: RunEngine
    supervisor: Supervisor
    dispatcher: WebhookDispatcher
    push_dispatcher: WebhookDispatcher
    queue_metrics: QueueMetrics
    redis: "RedisFrameTransport | None"


def build_engine(
    settings: Settings,
    telemetry: Telemetry,
    persistence: Persistence,
    agents: AgentRuntime,
    limits: Limits,
    allowed: AddressAllowlist,
) -> EngineStack:
    """Build the engine; a process of the role ``api`` executes nothing."""
    database = persistence.database
    signals = Signals(database)
    transport: FrameTransport = PostgresFrameTransport(database, signals)
    redis = None
    if settings.redis.url is not None:
        from app.engine.streams.redis_transport import RedisFrameTransport

        transport = redis = RedisFrameTransport(persistence.secrets.rotating("REDIS_URL").good, transport)
    owner = owner_id(f"{socket.gethostname()} {os.getppid()}")
    parts = RunEngine(
        database=database,
        claims=RunQueue(database, owner, settings.runs.lease_seconds, telemetry.tracer),
        journal=Journal(database, timeout=settings.runs.lease_seconds, recorder=telemetry.recorder),
        signals=signals,
        feeds=FeedRegistry(database, signals, transport),
        publisher=FramePublisher(transport),
        budgets=limits.budgets,
        retention=settings.retention,
        state_bytes=persistence.state_bytes,
    )
    keys = persistence.secrets.rotating("AGENT_WEBHOOK_SECRET", "AGENT_WEBHOOK_SECRET_SECONDARY")
    calls = database, EgressClient(allowed), lambda: [key_of(secret) for secret in keys.values], telemetry.meters
    dispatcher = WebhookDispatcher(*calls)
    pushed = PushNotifications(database, TaskPayloads(RunChains(database)).body, MEDIA_TYPE)
    push_dispatcher = WebhookDispatcher(*calls, pushed)

    def on_end(run: ClaimedRun, request: RunRequest) -> None:
        if request.webhook is not None:
            dispatcher.wake()
        if A2A_RUN in run.metadata:
            push_dispatcher.wake()

    max_runs = 0 if settings.server.role == "api" else settings.runs.max_runs
    supervisor = Supervisor(
        parts,
        agents.catalog,
        telemetry.recorder,
        max_runs=max_runs,
        log_runs=settings.server.log_runs,
        on_end=on_end,
    )
    return EngineStack(
        parts=parts,
        supervisor=supervisor,
        dispatcher=dispatcher,
        push_dispatcher=push_dispatcher,
        queue_metrics=QueueMetrics(database, telemetry.meters),
        redis=redis,
    )
