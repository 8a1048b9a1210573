"""The composition root: settings in, the House out. The only place that picks adapters and connects rooms."""

import os
import socket
from typing import TYPE_CHECKING

import msgspec

from app.access.guard import Authenticator
from app.access.open_streams import OpenStreamAccess
from app.access.people import People, acting_of, people_of
from app.access.service import AccessService
from app.access.structs import SERVICE, Acting, Note
from app.agents.catalog import Catalog
from app.agents.config import AgentsFile, read
from app.assistants.service import AssistantService
from app.audit.service import AuditService
from app.base.errors import UsageError
from app.base.ids import new_id, owner_id
from app.base.tasks import Supervision, Tasks
from app.bus.postgres_relay import PostgresCarrier
from app.bus.relay import Carrier, Outlet
from app.bus.signals import Signals
from app.cache.caches import Caches, caches_of
from app.crons.scheduler import Scheduler
from app.crons.service import CronService
from app.db.engine import Database
from app.documents.beginning import Beginning
from app.documents.building import OWN, Building
from app.documents.service import DocumentService
from app.egress.addresses import Allowed
from app.egress.client import Egress
from app.embed.registry import embedder_of
from app.limits.budgets import Budgets
from app.limits.prices import Prices
from app.limits.service import Limiter
from app.limits.storage import StorageQuota
from app.llm.registry import Registry
from app.routes import BASE_PATH
from app.runs.admission import Admission
from app.runs.claims import Claims
from app.runs.creation import Creation
from app.runs.feeds import Feeds
from app.runs.journal import Journal
from app.runs.service import RunService
from app.runs.supervisor import Parts, Supervisor
from app.runs.waiting import Waiting
from app.secrets.ring import Vault
from app.secrets.secret import Secret
from app.settings import Settings
from app.store.backfill import Backfill
from app.store.keeping import Keeping
from app.store.service import StoreService
from app.store.versions import versions_of
from app.system.prober import Prober
from app.system.service import Lossless, SystemService, version
from app.system.state import Readiness
from app.telemetry.board import Boards
from app.telemetry.export import MetricsPage
from app.telemetry.exporting import exporting
from app.telemetry.lag import LoopLag, Vitals
from app.telemetry.meters import OPT_IN, Meters
from app.telemetry.tools import ToolCalls
from app.telemetry.tracing import Telling, Tracer
from app.threads.service import ThreadService
from app.web.proxies import Proxies
from app.web.streams import MOST, Streams
from app.webhooks.dispatcher import Dispatcher
from app.webhooks.service import WebhookService
from app.webhooks.signing import key_of

if TYPE_CHECKING:  # they load their libraries
    from app.access.keyset import KeySet
    from app.bus.redis_relay import RedisCarrier
    from app.telemetry.otlp import Push


class Entrance(msgspec.Struct, frozen=True):
    """Who gets in: ``authenticator`` checks credentials (None: authentication is off)."""

    audit: AuditService
    keys: AccessService
    authenticator: Authenticator | None
    token_keys: "KeySet | None" = None
    """Keeps the public keys of the issuer of tokens."""
    people: People | None = None
    """Lets in whom the handlers of the agents file know, in place of ``authenticator``."""


class House(msgspec.Struct, frozen=True, kw_only=True):
    """Every live object of one worker, connected but not yet started (``app.lifespan`` does that)."""

    settings: Settings
    meters: Meters
    tracer: Tracer
    push: "Push | None"
    metrics_page: MetricsPage
    loop_lag: LoopLag
    background: Tasks
    supervision: Supervision
    readiness: Readiness
    database: Database
    caches: Caches
    models: Registry
    catalog: Catalog
    redis: Lossless | None
    engine: Parts
    supervisor: Supervisor
    vault: Vault
    waiting: Waiting
    entrance: Entrance
    limiter: Limiter
    quota: StorageQuota
    proxies: Proxies
    assistants: AssistantService
    threads: ThreadService
    runs: RunService
    crons: CronService
    scheduler: Scheduler
    store: StoreService
    keeping: Keeping
    documents: DocumentService
    webhooks: WebhookService
    dispatcher: Dispatcher
    streams: Streams
    prober: Prober
    system: SystemService


def build(settings: Settings, *, streams: int = MOST, boards: Boards | None = None, number: int = 1) -> House:
    """Connect the rooms as ``settings`` says. Raises ``StartError`` for what cannot work.

    ``streams``: answers open at once. ``boards``: what the workers count on; this one is the worker ``number``.
    """
    supervision = Supervision()
    with supervision.collecting():
        house = _build(settings, streams, boards or Boards(), number, supervision)
    supervision.database_answers = house.database.answers
    return house


def _build(settings: Settings, streams: int, boards: Boards, number: int, supervision: Supervision) -> House:
    meters, readiness = Meters(boards.of(number), latest=settings.telemetry.opts_in(OPT_IN)), Readiness()
    push, telling = exporting(settings, meters, version())
    vault, database, audit = kept = _kept(settings, telling)
    caches = caches_of(settings.redis, vault, meters)
    models = Registry(settings.llm, meters, vault=vault, tracer=telling.tracer, answers=caches.answers)
    agents = read(settings.agents.config)
    entrance = _entrance(kept, settings, agents)
    building, keeping = _memory(database, agents, models, caches, acting_of(entrance.people))
    catalog = Catalog(agents, models.model, ToolCalls(*telling), building.library, building.agents)
    signals, carrier, redis = _carriers(settings, vault, database)
    limiter, budgets, quota = _limits(database, settings, vault, meters, catalog)
    engine = _engine(_charging(budgets, models, building), database, settings, signals, carrier, telling)
    allowed = Allowed(settings.egress.allow.split(","))
    dispatcher = _dispatcher(database, vault, allowed, meters)
    supervisor = _supervisor(settings, engine, catalog, telling, dispatcher)
    assistants = _assistants(database, catalog, signals)
    creation = Creation(database, assistants, catalog, lambda: supervisor.owner, allowed)
    runs = RunService(database, engine.claims, supervisor, creation, Admission(budgets, quota), audit)
    prober = Prober(database, readiness, models.probe, *([] if redis is None else [redis.probe]))
    open_streams = Streams(meters, most=streams, most_each=settings.runs.streams_per_key)
    if entrance.authenticator is not None or entrance.people is not None:
        open_streams.access = OpenStreamAccess(entrance.authenticator, entrance.people, open_streams.tasks)
    return House(
        settings=settings,
        meters=meters,
        tracer=telling.tracer,
        push=push,
        metrics_page=MetricsPage(meters, boards, version()),
        loop_lag=LoopLag(meters, Vitals(meters).sample, database.sample),
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
        waiting=Waiting(database, meters),
        entrance=entrance,
        limiter=limiter,
        quota=quota,
        proxies=Proxies(settings.server.trusted_proxies.split(",")),
        assistants=assistants,
        threads=ThreadService(database, catalog, engine.feeds.tell),
        runs=runs,
        crons=CronService(database, assistants, creation, most=settings.limits.crons),
        scheduler=Scheduler(database, engine.claims, creation, runs),
        store=building.store,
        keeping=keeping,
        documents=building.service(Beginning(engine.claims, creation, runs, assistants)),
        webhooks=WebhookService(database, dispatcher),
        dispatcher=dispatcher,
        streams=open_streams,
        prober=prober,
        system=SystemService(prober, readiness, models, redis, supervision, cache=caches.shared),
    )


def _entrance(kept: tuple[Vault, Database, AuditService], given: Settings, agents: AgentsFile) -> Entrance:
    (vault, database, audit), settings = kept, given.auth
    peppers = vault.ring("AGENT_KEY_PEPPER", "AGENT_KEY_PEPPER_SECONDARY").good
    access = AccessService(database, peppers if settings.key_pepper else Secret(""), records=audit)
    if agents.auth is not None:
        known = access if settings.mode == "api_key" and settings.key_pepper else None
        base = f"{given.server.root_path}{BASE_PATH}"
        people = people_of(agents, database, base, keys=known, records=audit, mode=settings.mode)
        return Entrance(audit, access, known, people=people)
    if settings.mode != "jwt":
        return Entrance(audit, access, access if settings.mode == "api_key" else None)
    from app.access.keyset import KeySet
    from app.access.tokens import Credentials, TokenService

    keys = KeySet(settings.jwt_issuer, settings.jwt_jwks_url)
    tokens = TokenService(database, keys, settings)
    return Entrance(audit, access, Credentials(access, tokens) if settings.key_pepper else tokens, keys)


def _kept(settings: Settings, telling: Telling) -> tuple[Vault, Database, AuditService]:
    """The secrets, the database that one of them opens, and the log in it of what becomes of them."""

    def told(name: str, outcome: str) -> None:
        telling.meters.secret_rotations.add(1, name, outcome)
        audit.heard(Note(SERVICE, f"secret.{outcome}", "service", name))

    if settings.database.url is None:
        raise UsageError("DATABASE_URL is not set; set it to postgresql://user:password@host/database")
    vault = Vault(settings.read_secret, told)
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


def _dispatcher(database: Database, vault: Vault, allowed: Allowed, meters: Meters) -> Dispatcher:
    ring = vault.ring("AGENT_WEBHOOK_SECRET", "AGENT_WEBHOOK_SECRET_SECONDARY")
    return Dispatcher(database, Egress(allowed), lambda: [key_of(secret) for secret in ring.values], meters)


def _limits(
    database: Database, settings: Settings, vault: Vault, meters: Meters, catalog: Catalog
) -> tuple[Limiter, Budgets, StorageQuota]:
    limiter = Limiter(settings.limits, share=1 / settings.server.workers)
    if settings.redis.url is not None:
        from app.limits.shared import SharedBuckets

        limiter = Limiter(settings.limits, SharedBuckets(vault.ring("REDIS_URL").good, str(new_id())))
    limiter.rejected = lambda name: meters.ratelimit_rejected.add(1, name)
    budgets = Budgets(database, limiter, Prices(settings.limits.prices), catalog.model_of, meters)
    return limiter, budgets, StorageQuota(database, limiter)


def _charging(budgets: Budgets, models: Registry, building: Building) -> Budgets:
    """``budgets``, which embeddings are charged to and bounded by from now on."""
    models.charge_to = budgets.charge
    building.store.indexing.admit = budgets.admit
    return budgets


def _memory(
    database: Database, agents: AgentsFile, models: Registry, caches: Caches, acting: Acting
) -> tuple[Building, Keeping]:
    shelf = caches.embeddings
    versions = versions_of(database, agents, lambda name, dimensions: embedder_of(name, dimensions, models, shelf))
    store = StoreService(database, versions, agents.store)
    return Building(database, store, acting), Keeping(database, Backfill(database, versions))


def _carriers(settings: Settings, vault: Vault, database: Database) -> "tuple[Signals, Carrier, RedisCarrier | None]":
    """What wakes other processes, what carries frames to them, and that again where it is Redis."""
    signals = Signals(database)
    carrier = PostgresCarrier(database, signals)
    if settings.redis.url is None:
        return signals, carrier, None
    from app.bus.redis_relay import RedisCarrier

    redis = RedisCarrier(vault.ring("REDIS_URL").good, carrier)
    return signals, redis, redis


def _supervisor(
    settings: Settings, engine: Parts, catalog: Catalog, telling: Telling, dispatcher: Dispatcher
) -> Supervisor:
    most = 0 if settings.server.role == "api" else settings.runs.most
    return Supervisor(engine, catalog, telling, most=most, told=dispatcher.wake)


def _engine(
    budgets: Budgets, database: Database, settings: Settings, signals: Signals, carrier: Carrier, telling: Telling
) -> Parts:
    owner = owner_id(f"{socket.gethostname()} {os.getppid()}")
    return Parts(
        database=database,
        claims=Claims(database, owner, settings.runs.lease_seconds, telling.tracer),
        journal=Journal(database, patience=settings.runs.lease_seconds, telling=telling),
        signals=signals,
        feeds=Feeds(database, signals, carrier),
        outlet=Outlet(carrier),
        budgets=budgets,
        retention=settings.retention,
    )


def _assistants(database: Database, catalog: Catalog, signals: Signals) -> AssistantService:
    assistants = AssistantService(database, catalog, OWN)
    signals.listen(assistants.hear)
    return assistants
