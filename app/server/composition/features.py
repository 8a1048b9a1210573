"""What the API names: the services that its controllers call."""

import msgspec

from app.engine.queue.claims import RunAdmission
from app.features.assistants.service import AssistantService
from app.features.crons.scheduler import CronScheduler
from app.features.crons.service import CronService
from app.features.documents.service import DocumentService, IngestRunStarter
from app.features.runs.chain import RunChains
from app.features.runs.creation import RunFactory
from app.features.runs.service import RunService
from app.features.store.service import StoreService
from app.features.threads.service import ThreadService
from app.features.webhooks.push import PushConfigs
from app.features.webhooks.service import WebhookService
from app.infra.egress.addresses import AddressAllowlist
from app.infra.settings.environment import Settings
from app.server.composition.documents import OWN
from app.server.composition.engine import EngineStack
from app.server.composition.limits import Limits
from app.server.composition.models import AgentRuntime
from app.server.composition.persistence import Persistence


class Features(msgspec.Struct, frozen=True, kw_only=True):
    """One service per feature, and the scheduler of crons."""

    assistants: AssistantService
    threads: ThreadService
    runs: RunService
    chains: RunChains
    crons: CronService
    scheduler: CronScheduler
    store: StoreService
    documents: DocumentService
    webhooks: WebhookService
    push: PushConfigs


def build_features(
    settings: Settings,
    persistence: Persistence,
    agents: AgentRuntime,
    limits: Limits,
    engine: EngineStack,
    allowed: AddressAllowlist,
) -> Features:
    """Build the services over the engine; webhooks may call what ``allowed`` lets through."""
    database, claims, catalog = persistence.database, engine.parts.claims, agents.catalog
    assistants = AssistantService(database, catalog, OWN)
    engine.parts.signals.listen(assistants.on_signal)
    if (graphs := agents.graphs) is not None:
        engine.parts.signals.listen(lambda signal: graphs.forget_values(signal.erased))
    factory = RunFactory(database, assistants, catalog, lambda: engine.supervisor.owner, allowed)
    admission = RunAdmission(limits.budgets, limits.quota)
    runs = RunService(database, claims, engine.supervisor, factory, admission, persistence.audit)
    return Features(
        assistants=assistants,
        threads=ThreadService(database, catalog, engine.parts.feeds.notify, persistence.state_bytes),
        runs=runs,
        chains=RunChains(database),
        crons=CronService(database, assistants, factory, max_crons=settings.limits.crons),
        scheduler=CronScheduler(database, claims, factory, runs),
        store=agents.memory.store,
        documents=agents.memory.documents.service(IngestRunStarter(claims, factory, runs, assistants)),
        webhooks=WebhookService(database, engine.dispatcher),
        push=PushConfigs(database, allowed, engine.push_dispatcher.wake),
    )
