"""Everything of one worker, built in the order in which it depends on each other."""

import msgspec
import structlog

from app.agents.a2a.peers import A2APeers
from app.agents.config.agents_file import read
from app.agents.mcp.account_store import DatabaseAccounts
from app.agents.mcp.pin_store import DatabasePins
from app.agents.mcp.servers import Connector, McpServers
from app.base.tasks import Tasks, TaskWatchdog
from app.features.access.custom_auth import acting_user
from app.features.access.open_streams import OpenStreamAccess
from app.features.system.operation import OperationService
from app.features.system.service import version
from app.infra.egress.addresses import AddressAllowlist
from app.infra.http.client_address import TrustedProxies
from app.infra.http.open_streams import MAX_STREAMS, OpenStreams
from app.infra.settings.environment import Settings
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.shared_buffer import MetricsBuffers
from app.protocols.a2a.card import AgentCards
from app.protocols.a2a.controller import A2AParts
from app.protocols.gateway import ProtocolGateway
from app.protocols.mcp.controller import McpParts
from app.protocols.mcp.sign_in import McpSignIns
from app.protocols.projection import ProjectedRuns
from app.server.composition.auth import AuthStack, build_auth
from app.server.composition.engine import EngineStack, build_engine
from app.server.composition.features import Features, build_features
from app.server.composition.health import Health, build_health, status_sources
from app.server.composition.limits import Limits, build_limits
from app.server.composition.mcp import build_mcp, check_accounts, own_address, sealing_keys
from app.server.composition.models import AgentRuntime, RemoteTools, build_agents, build_models
from app.server.composition.persistence import Persistence, build_persistence
from app.server.composition.telemetry import Telemetry, build_telemetry

log = structlog.get_logger(__name__)


class AppServices(msgspec.Struct, frozen=True, kw_only=True):
    """Every live object of one worker, connected but not yet started (``app.server.lifespan`` starts them)."""

    settings: Settings
    telemetry: Telemetry
    persistence: Persistence
    auth: AuthStack
    agents: AgentRuntime
    limits: Limits
    engine: EngineStack
    features: Features
    health: Health
    operation: OperationService
    streams: OpenStreams
    gateway: ProtocolGateway
    mcp: McpParts
    mcp_sign_ins: McpSignIns
    a2a: A2AParts
    proxies: TrustedProxies
    background: Tasks


def build(
    settings: Settings, *, streams: int = MAX_STREAMS, buffers: MetricsBuffers | None = None, number: int = 1
) -> AppServices:
    """Build all parts as ``settings`` says. Raises ``StartError`` for what cannot work.

    ``streams``: open responses at once. ``buffers``: metrics of all workers; this is the worker ``number``.
    """
    watchdog = TaskWatchdog()
    with watchdog.collecting():
        return _build(settings, watchdog, streams, buffers or MetricsBuffers(), number)


def _build(
    settings: Settings, watchdog: TaskWatchdog, streams: int, buffers: MetricsBuffers, worker: int
) -> AppServices:
    telemetry = build_telemetry(settings, buffers, worker)
    persistence = build_persistence(settings, telemetry)
    models = build_models(settings, telemetry, persistence)
    file = read(settings.agents.config)
    for sentence in file.ignored:
        log.warning("setting_ignored", detail=sentence)
    auth = build_auth(settings, persistence, file)
    allowed = AddressAllowlist(settings.egress.allow.split(","))
    pins = DatabasePins(persistence.database, persistence.audit)
    check_accounts(settings, file)
    accounts = DatabaseAccounts(persistence.database, sealing_keys(settings, persistence))
    connector = Connector(file.folder, settings.look_up, allowed, accounts, own_address(settings))
    servers = McpServers(file.mcp, connector, pins)
    remote = RemoteTools(servers, A2APeers(file.a2a, settings.look_up, allowed))
    agents = build_agents(file, models, telemetry, persistence, acting_user(auth.custom_auth), remote)
    limits = build_limits(settings, persistence, agents, telemetry.meters)
    engine = build_engine(settings, telemetry, persistence, agents, limits, allowed)
    sources = status_sources(settings, persistence, agents, limits, engine)
    open_streams = _open_streams(settings, auth, telemetry.meters, streams)
    features = build_features(settings, persistence, agents, limits, engine, allowed)
    gateway = ProtocolGateway(
        assistants=features.assistants,
        threads=features.threads,
        runs=features.runs,
        chains=features.chains,
        push=features.push,
        projections=ProjectedRuns(features.runs),
        streams=open_streams,
    )
    return AppServices(
        settings=settings,
        telemetry=telemetry,
        persistence=persistence,
        auth=auth,
        agents=agents,
        limits=limits,
        engine=engine,
        features=features,
        health=build_health(watchdog, telemetry, persistence.database, engine, sources),
        operation=OperationService(persistence.database, limits.budgets.prices, settings, buffers),
        streams=open_streams,
        gateway=gateway,
        mcp_sign_ins=McpSignIns(servers, persistence.audit),
        mcp=build_mcp(settings, file, persistence, features, gateway),
        a2a=A2AParts(
            AgentCards(
                agents.catalog,
                file.default,
                version(),
                authenticated=auth.is_on,
                key=settings.server.card_key,
            ),
            persistence.audit,
        ),
        proxies=TrustedProxies(settings.server.trusted_proxies.split(",")),
        background=Tasks("background"),
    )


def _open_streams(settings: Settings, auth: AuthStack, meters: Meters, max_streams: int) -> OpenStreams:
    streams = OpenStreams(meters, max_streams=max_streams, max_per_holder=settings.runs.streams_per_key)
    if auth.is_on:
        streams.access = OpenStreamAccess(auth.authenticator, auth.custom_auth, streams.tasks)
    return streams
