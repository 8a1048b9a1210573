"""Opens the House in order, drains it, and closes it in reverse."""

import asyncio
from collections.abc import Coroutine
from typing import Any

import structlog

from app.features.system.collectors import StatusCollector, StatusSources, StorageCollector
from app.server.composition.services import AppServices

log = structlog.get_logger(__name__)

HAND_OVER_SECONDS = 2.0
"""What may pass until runs are handed over, after the time in which their steps may finish."""
CLOSE_SECONDS = 2.0
CUT_SECONDS = 1.0
"""What ends as soon as the database is cut."""


async def open_services(house: AppServices) -> None:
    """Check the database, start the engine, report ready."""
    await house.database.check()
    if house.push is not None:
        house.push.start()
        house.loop_lag.also(house.push.sample)
    house.vault.start()
    house.entrance.audit.start()
    house.limiter.start()
    house.quota.start()
    if house.entrance.token_keys is not None:
        house.entrance.token_keys.start()
    house.caches.start()
    house.engine.start()
    house.threads.start()
    await house.store.open()
    house.supervisor.start()
    house.scheduler.start()
    if house.settings.server.role != "api":
        house.waiting.start()
        if house.settings.server.environment == "production" and not house.dispatcher.signs:
            log.warning("webhooks_unsigned", detail="AGENT_WEBHOOK_SECRET is not set: receivers cannot know our calls")
        house.dispatcher.start()
        house.keeping.start()
        house.quota.sweep.start()
        house.documents.removing.start()
    house.loop_lag.also(_standing(house).sample)
    house.loop_lag.start()
    house.prober.also(StorageCollector(house.database, house.meters).refresh)
    house.prober.start()
    house.supervision.start()
    house.readiness.ready()
    log.info("started", agents=len(house.catalog.names()))


def _standing(house: AppServices) -> StatusCollector:
    watched = StatusSources(
        settings=house.settings,
        models=house.models,
        vault=house.vault,
        budgets=house.engine.budgets,
        quota=house.quota,
        redis=house.redis,
        cache=house.caches.shared,
    )
    return StatusCollector(house.meters, house.prober, house.readiness, watched)


async def retire_services(house: AppServices) -> None:
    """Unready, no new runs; running steps finish or are handed over. Open answers go on. Bounded by the settings."""
    if house.supervisor.draining:
        return
    house.readiness.drain()
    log.info("draining", runs=house.supervisor.active, streams=len(house.streams))
    await _within(house, house.settings.runs.drain_seconds + HAND_OVER_SECONDS, _let_go(house), "drain")


async def drain_services(house: AppServices) -> None:
    """Do as ``retire_services``, then end open answers."""
    house.supervisor.closing = True
    await retire_services(house)
    if not house.streams.draining:
        house.supervisor.feeds.drain()
        house.streams.drain()


async def _let_go(house: AppServices) -> None:
    await house.scheduler.aclose()
    await house.supervisor.retire(house.settings.runs.drain_seconds)


async def close_services(house: AppServices) -> None:
    """Drain if nobody has, then close what ``open_services`` opened, last first."""
    await drain_services(house)
    await _within(house, CLOSE_SECONDS, _close(house), "close")
    if house.push is not None:
        await asyncio.to_thread(house.push.end)
    house.meters.board.close()
    log.info("stopped")


async def _within(house: AppServices, seconds: float, work: Coroutine[Any, Any, None], part: str) -> None:
    """Do ``work``; when it takes too long, cut the database, which alone can hold it up.

    Its runs are not lost with that: their leases end.
    """
    task = house.background.start(work, name=part)
    done, _ = await asyncio.wait({task}, timeout=seconds)
    if not done:
        log.warning("stop_cut", part=part, seconds=seconds)
        house.database.abort()
        await asyncio.wait({task}, timeout=CUT_SECONDS)


async def _close(house: AppServices) -> None:
    await house.supervision.aclose()
    await house.prober.aclose()
    await house.waiting.aclose()
    house.loop_lag.stop()
    await house.streams.tasks.aclose()
    await house.documents.removing.aclose()
    await house.keeping.aclose()
    await house.quota.sweep.aclose()
    await house.dispatcher.aclose()
    await house.store.aclose()
    await house.threads.aclose()
    await house.engine.aclose()
    if house.entrance.token_keys is not None:
        await house.entrance.token_keys.aclose()
    await house.quota.aclose()
    await house.limiter.aclose()
    await house.vault.aclose()
    await house.entrance.keys.aclose()
    await house.entrance.audit.aclose()
    await house.caches.aclose()
    await house.models.aclose()
    await house.database.aclose()
