"""The composition root: settings in, the House out. The only place that picks adapters and connects rooms."""

import os
import socket
from typing import TYPE_CHECKING

import msgspec

from app.agents.catalog import AgentCatalog
from app.agents.config.agents_file import AgentsFile, read
from app.base.errors import UsageError
from app.base.ids import new_id, owner_id
from app.base.tasks import Tasks, TaskWatchdog
from app.engine.execution.journal import Journal
from app.engine.queue.claims import RunAdmission, RunQueue
from app.engine.queue.run_claimer import QueueMetrics
from app.engine.streams.feed_registry import FeedRegistry
from app.engine.streams.frame_transport import FramePublisher, FrameTransport
from app.engine.streams.postgres_transport import PostgresFrameTransport
from app.engine.streams.signals import Signals
from app.engine.supervisor import RunEngine, Supervisor
from app.features.access.custom_auth import CustomAuth, acting_user, build_custom_auth
from app.features.access.guard import Authenticator
from app.features.access.open_streams import OpenStreamAccess
from app.features.assistants.service import AssistantService
from app.features.crons.scheduler import CronScheduler
from app.features.crons.service import CronService
from app.features.documents.service import DocumentService, IngestRunStarter
from app.features.runs.creation import RunFactory
from app.features.runs.service import RunService
from app.features.store.index.maintenance import StoreMaintenance, VectorBackfill
from app.features.store.index.versions import build_versions
from app.features.store.service import StoreService
from app.features.system.database_probe import DatabaseProbe
from app.features.system.readiness import Readiness
from app.features.system.service import DurableRedis, SystemService, version
from app.features.threads.service import ThreadService
from app.features.webhooks.dispatcher import WebhookDispatcher
from app.features.webhooks.service import WebhookService
from app.features.webhooks.signing import key_of
from app.infra.cache.caches import Caches, build_caches
from app.infra.db.engine import Database
from app.infra.egress.addresses import AddressAllowlist
from app.infra.egress.client import EgressClient
from app.infra.http.client_address import TrustedProxies
from app.infra.http.open_streams import MAX_STREAMS, OpenStreams
from app.infra.secrets.rotating_secret import SecretStore
from app.infra.secrets.secret import Secret
from app.infra.settings.environment import Settings
from app.infra.telemetry.meters import OPT_IN, Meters
from app.infra.telemetry.process_metrics import LoopLag, ProcessCollector
from app.infra.telemetry.prometheus_page import MetricsPage
from app.infra.telemetry.shared_buffer import MetricsBuffers
from app.infra.telemetry.tool_calls import ToolCallRecorder
from app.infra.telemetry.tracing import Tracer, TraceRecorder
from app.providers.embeddings.registry import build_embedder
from app.providers.llm.registry import ModelRegistry
from app.security.access.service import AccessService
from app.security.access.structs import SERVICE, ActingUser, AuditEvent
from app.security.audit.service import AuditService
from app.security.limits.budgets import Budgets
from app.security.limits.limiter import Limiter
from app.security.limits.prices import Prices
from app.security.limits.storage_quota import StorageQuota
from app.server.composition.documents import OWN, DocumentServices
from app.server.composition.telemetry import build_exporters
from app.server.routes import BASE_PATH

if TYPE_CHECKING:  # they load their libraries
    from app.engine.streams.redis_transport import RedisFrameTransport
    from app.infra.telemetry.otlp_export import OtlpPush
    from app.security.access.jwks import JwksCache


class AuthStack(msgspec.Struct, frozen=True):
    """Who gets in: ``authenticator`` checks credentials (None: authentication is off)."""

    audit: AuditService
    keys: AccessService
    authenticator: Authenticator | None
    token_keys: "JwksCache | None" = None
    """Keeps the public keys of the issuer of tokens."""
    people: CustomAuth | None = None
    """Lets in whom the handlers of the agents file know, in place of ``authenticator``."""


class AppServices(msgspec.Struct, frozen=True, kw_only=True):
    """Every live object of one worker, connected but not yet started (``app.server.lifespan`` does that)."""

    settings: Settings
    meters: Meters
    tracer: Tracer
    push: "OtlpPush | None"
    metrics_page: MetricsPage
    loop_lag: LoopLag
    background: Tasks
    supervision: TaskWatchdog
    readiness: Readiness
    database: Database
    caches: Caches
    models: ModelRegistry
    catalog: AgentCatalog
    redis: DurableRedis | None
    engine: RunEngine
    supervisor: Supervisor
    vault: SecretStore
    waiting: QueueMetrics
    entrance: AuthStack
    limiter: Limiter
    quota: StorageQuota
    proxies: TrustedProxies
    assistants: AssistantService
    threads: ThreadService
    runs: RunService
    crons: CronService
    scheduler: CronScheduler
    store: StoreService
    keeping: StoreMaintenance
    documents: DocumentService
    webhooks: WebhookService
    dispatcher: WebhookDispatcher
    streams: OpenStreams
    prober: DatabaseProbe
    system: SystemService


def build(
    settings: Settings, *, streams: int = MAX_STREAMS, boards: MetricsBuffers | None = None, number: int = 1
) -> AppServices:
    """Connect the rooms as ``settings`` says. Raises ``StartError`` for what cannot work.

    ``streams``: answers open at once. ``boards``: what the workers count on; this one is the worker ``number``.
    """
    supervision = TaskWatchdog()
    with supervision.collecting():
        house = _build(settings, streams, boards or MetricsBuffers(), number, supervision)
    supervision.database_answers = house.database.answers
    return house


def _build(
    settings: Settings, streams: int, boards: MetricsBuffers, number: int, supervision: TaskWatchdog
) -> AppServices:
    meters, readiness = Meters(boards.of(number), latest=settings.telemetry.opts_in(OPT_IN)), Readiness()
    push, telling = build_exporters(settings, meters, version())
    vault, database, audit = persistence = _persistence(settings, telling)
    caches = build_caches(settings.redis, vault, meters)
    models = ModelRegistry(settings.llm, meters, vault=vault, tracer=telling.tracer, answers=caches.answers)
    agents = read(settings.agents.config)
    entrance = _entrance(persistence, settings, agents)
    building, keeping = _long_term_memory(database, agents, models, caches, acting_user(entrance.people))
    catalog = AgentCatalog(agents, models.model, ToolCallRecorder(*telling), building.library, building.agents)
    signals, carrier, redis = _carriers(settings, vault, database)
    limiter, budgets, quota = _limits(database, settings, vault, meters, catalog)
    engine = _engine(_charging(budgets, models, building), database, settings, signals, carrier, telling)
    allowed = AddressAllowlist(settings.egress.allow.split(","))
    dispatcher = _dispatcher(database, vault, allowed, meters)
    supervisor = _supervisor(settings, engine, catalog, telling, dispatcher)
    assistants = _assistants(database, catalog, signals)
    creation = RunFactory(database, assistants, catalog, lambda: supervisor.owner, allowed)
    runs = RunService(database, engine.claims, supervisor, creation, RunAdmission(budgets, quota), audit)
    prober = DatabaseProbe(database, readiness, models.probe, *([] if redis is None else [redis.probe]))
    return AppServices(
        settings=settings,
        meters=meters,
        tracer=telling.tracer,
        push=push,
        metrics_page=MetricsPage(meters, boards, version()),
        loop_lag=LoopLag(meters, ProcessCollector(meters).sample, database.sample),
        background=Tasks("background"),
        supervision=supervision,
        readiness=readiness,
        database=database,
        caches=caches,
        models=models,
        catalog=catalog,
        redis=redis,
        engine=engine,
        supervisor=supervisor,
        vault=vault,
        waiting=QueueMetrics(database, meters),
        entrance=entrance,
        limiter=limiter,
        quota=quota,
        proxies=TrustedProxies(settings.server.trusted_proxies.split(",")),
        assistants=assistants,
        threads=ThreadService(database, catalog, engine.feeds.notify),
        runs=runs,
        crons=CronService(database, assistants, creation, most=settings.limits.crons),
        scheduler=CronScheduler(database, engine.claims, creation, runs),
        store=building.store,
        keeping=keeping,
        documents=building.service(IngestRunStarter(engine.claims, creation, runs, assistants)),
        webhooks=WebhookService(database, dispatcher),
        dispatcher=dispatcher,
        streams=_open_streams(settings, entrance, meters, streams),
        prober=prober,
        system=SystemService(prober, readiness, models, redis, supervision, cache=caches.shared),
    )


def _open_streams(settings: Settings, entrance: AuthStack, meters: Meters, max_streams: int) -> OpenStreams:
    streams = OpenStreams(meters, most=max_streams, most_each=settings.runs.streams_per_key)
    if entrance.authenticator is not None or entrance.people is not None:
        streams.access = OpenStreamAccess(entrance.authenticator, entrance.people, streams.tasks)
    return streams


def _entrance(
    persistence: tuple[SecretStore, Database, AuditService], given: Settings, agents: AgentsFile
) -> AuthStack:
    (vault, database, audit), settings = persistence, given.auth
    peppers = vault.ring("AGENT_KEY_PEPPER", "AGENT_KEY_PEPPER_SECONDARY").good
    access = AccessService(database, peppers if settings.key_pepper else Secret(""), records=audit)
    if agents.auth is not None:
        known = access if settings.mode == "api_key" and settings.key_pepper else None
        base = f"{given.server.root_path}{BASE_PATH}"
        people = build_custom_auth(agents, database, base, keys=known, records=audit, mode=settings.mode)
        return AuthStack(audit, access, known, people=people)
    if settings.mode != "jwt":
        return AuthStack(audit, access, access if settings.mode == "api_key" else None)
    from app.security.access.jwks import JwksCache
    from app.security.access.token_auth import CombinedAuthenticator, TokenService

    keys = JwksCache(settings.jwt_issuer, settings.jwt_jwks_url)
    tokens = TokenService(database, keys, settings)
    return AuthStack(audit, access, CombinedAuthenticator(access, tokens) if settings.key_pepper else tokens, keys)


def _persistence(settings: Settings, telling: TraceRecorder) -> tuple[SecretStore, Database, AuditService]:
    """The secrets, the database that one of them opens, and the log in it of what becomes of them."""

    def on_change(name: str, outcome: str) -> None:
        telling.meters.secret_rotations.add(1, name, outcome)
        audit.record(AuditEvent(SERVICE, f"secret.{outcome}", "service", name))

    if settings.database.url is None:
        raise UsageError("DATABASE_URL is not set; set it to postgresql://user:password@host/database")
    vault = SecretStore(settings.read_secret, on_change)
    # whoever rotates the password writes the new one first: until the database has it, the one before goes on
    url = vault.ring("DATABASE_URL", keep=True)
    direct = vault.ring("DATABASE_DIRECT_URL", keep=True)
    database = Database(
        lambda: [one.reveal() for one in url.values],
        direct=(lambda: [one.reveal() for one in direct.values]) if settings.database.direct_url else "",
    )
    database.measure(*telling)
    audit = AuditService(database)
    return vault, database, audit


def _dispatcher(database: Database, vault: SecretStore, allowed: AddressAllowlist, meters: Meters) -> WebhookDispatcher:
    ring = vault.ring("AGENT_WEBHOOK_SECRET", "AGENT_WEBHOOK_SECRET_SECONDARY")
    return WebhookDispatcher(
        database, EgressClient(allowed), lambda: [key_of(secret) for secret in ring.values], meters
    )


def _limits(
    database: Database, settings: Settings, vault: SecretStore, meters: Meters, catalog: AgentCatalog
) -> tuple[Limiter, Budgets, StorageQuota]:
    limiter = Limiter(settings.limits, share=1 / settings.server.workers)
    if settings.redis.url is not None:
        from app.security.limits.redis_buckets import SharedBuckets

        limiter = Limiter(settings.limits, SharedBuckets(vault.ring("REDIS_URL").good, str(new_id())))
    limiter.rejected = lambda name: meters.ratelimit_rejected.add(1, name)
    budgets = Budgets(database, limiter, Prices(settings.limits.prices), catalog.model_of, meters)
    return limiter, budgets, StorageQuota(database, limiter)


def _charging(budgets: Budgets, models: ModelRegistry, building: DocumentServices) -> Budgets:
    """``budgets``, which embeddings are charged to and bounded by from now on."""
    models.charge_to = budgets.charge
    building.store.indexing.admit = budgets.admit
    return budgets


def _long_term_memory(
    database: Database, agents: AgentsFile, models: ModelRegistry, caches: Caches, acting: ActingUser
) -> tuple[DocumentServices, StoreMaintenance]:
    shelf = caches.embeddings
    versions = build_versions(
        database, agents, lambda name, dimensions: build_embedder(name, dimensions, models, shelf)
    )
    store = StoreService(database, versions, agents.store)
    return DocumentServices(database, store, acting), StoreMaintenance(database, VectorBackfill(database, versions))


def _carriers(
    settings: Settings, vault: SecretStore, database: Database
) -> "tuple[Signals, FrameTransport, RedisFrameTransport | None]":
    """What wakes other processes, what carries frames to them, and that again where it is Redis."""
    signals = Signals(database)
    carrier = PostgresFrameTransport(database, signals)
    if settings.redis.url is None:
        return signals, carrier, None
    from app.engine.streams.redis_transport import RedisFrameTransport

    redis = RedisFrameTransport(vault.ring("REDIS_URL").good, carrier)
    return signals, redis, redis


def _supervisor(
    settings: Settings, engine: RunEngine, catalog: AgentCatalog, telling: TraceRecorder, dispatcher: WebhookDispatcher
) -> Supervisor:
    most = 0 if settings.server.role == "api" else settings.runs.most
    return Supervisor(engine, catalog, telling, most=most, on_change=dispatcher.wake)


def _engine(
    budgets: Budgets,
    database: Database,
    settings: Settings,
    signals: Signals,
    carrier: FrameTransport,
    telling: TraceRecorder,
) -> RunEngine:
    owner = owner_id(f"{socket.gethostname()} {os.getppid()}")
    return RunEngine(
        database=database,
        claims=RunQueue(database, owner, settings.runs.lease_seconds, telling.tracer),
        journal=Journal(database, timeout=settings.runs.lease_seconds, telling=telling),
        signals=signals,
        feeds=FeedRegistry(database, signals, carrier),
        outlet=FramePublisher(carrier),
        budgets=budgets,
        retention=settings.retention,
    )


def _assistants(database: Database, catalog: AgentCatalog, signals: Signals) -> AssistantService:
    assistants = AssistantService(database, catalog, OWN)
    signals.listen(assistants.on_signal)
    return assistants
