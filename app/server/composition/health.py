"""Whether this worker works: probes, liveness, readiness, and the gauges that show it."""

import msgspec

from app.base.tasks import TaskWatchdog
from app.features.system.collectors import StatusCollector, StatusSources, StorageCollector
from app.features.system.database_probe import DatabaseProbe
from app.features.system.readiness import Readiness
from app.features.system.service import SystemService
from app.infra.db.engine import Database
from app.infra.settings.environment import Settings
from app.server.composition.engine import EngineStack
from app.server.composition.limits import Limits
from app.server.composition.models import AgentRuntime
from app.server.composition.persistence import Persistence
from app.server.composition.telemetry import Telemetry


class Health(msgspec.Struct, frozen=True):
    """``watchdog`` is the evidence that essential tasks move, ``probe`` what the database answers."""

    watchdog: TaskWatchdog
    readiness: Readiness
    probe: DatabaseProbe
    system: SystemService


def build_health(
    watchdog: TaskWatchdog, telemetry: Telemetry, database: Database, engine: EngineStack, sources: StatusSources
) -> Health:
    """Build the probes; the status gauges, made from ``sources``, are sampled with the lag of the event loop."""
    readiness, models, redis = Readiness(), sources.models, engine.redis
    watchdog.database_answers = database.is_usable
    probe = DatabaseProbe(database, readiness, models.probe, *([] if redis is None else [redis.probe]))
    probe.also(StorageCollector(database, telemetry.meters).refresh)
    telemetry.loop_lag.also(StatusCollector(telemetry.meters, probe, readiness, sources).sample)
    system = SystemService(probe, readiness, models, redis, watchdog, cache=sources.cache)
    return Health(watchdog, readiness, probe, system)


def status_sources(
    settings: Settings, persistence: Persistence, agents: AgentRuntime, limits: Limits, engine: EngineStack
) -> StatusSources:
    """Collect what the status gauges are made from."""
    return StatusSources(
        settings=settings,
        models=agents.models,
        secrets=persistence.secrets,
        budgets=limits.budgets,
        quota=limits.quota,
        redis=engine.redis,
        cache=persistence.caches.shared,
    )
