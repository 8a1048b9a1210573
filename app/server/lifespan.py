"""Starts the parts of a worker in order, drains them, and closes them in reverse, also when a start fails half-way."""

import asyncio
from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine, Iterator
from contextlib import AbstractAsyncContextManager, AsyncExitStack, asynccontextmanager
from typing import Any, Protocol

import structlog

from app.agents.langgraph.worker import GraphWorker
from app.agents.mcp.servers import McpServers
from app.server.composition.services import AppServices

log = structlog.get_logger(__name__)

HAND_OVER_SECONDS = 2.0
"""What may pass until runs are handed over, after the time in which their steps may finish."""
CLOSE_SECONDS = 2.0
CUT_SECONDS = 1.0
"""What ends as soon as the database is cut."""

Part = tuple[str, AbstractAsyncContextManager[Any]]
"""A name, and what starts on entry and closes on exit."""


class Startable(Protocol):
    """A part that works in the background."""

    def start(self) -> None:
        """Begin."""

    async def aclose(self) -> None:
        """End; harmless if it has not begun."""


@asynccontextmanager
async def running(part: Startable) -> AsyncIterator[None]:
    """Start ``part`` for the block. A start that raises is closed too: it may have begun half of its work."""
    try:
        part.start()
        yield
    finally:
        await part.aclose()


@asynccontextmanager
async def _settled(part: GraphWorker | McpServers) -> AsyncIterator[None]:
    """Run ``part`` for the block, which starts when its graphs or servers are usable or known to be broken."""
    async with running(part):
        await part.wait()
        yield


@asynccontextmanager
async def closing(close: Callable[[], Awaitable[Any]]) -> AsyncIterator[None]:
    """Await ``close`` after the block, for parts that need no start."""
    try:
        yield
    finally:
        await close()


def outer_parts(services: AppServices) -> Iterator[Part]:
    """Telemetry, which outlives everything else: it reports how that ended."""
    yield "metrics buffer", _metrics_buffer(services)
    if services.telemetry.push is not None:
        yield "push", _pushing(services)


def parts(services: AppServices) -> Iterator[Part]:
    """Every other part, in the order in which they start; they close in reverse."""
    persistence, engine, features = services.persistence, services.engine, services.features
    yield "database", _database(services)
    yield "models", closing(services.agents.models.aclose)
    yield "caches", running(persistence.caches)
    yield "audit", running(persistence.audit)
    yield "keys", closing(services.auth.keys.aclose)
    yield "secrets", running(persistence.secrets)
    yield "limiter", running(services.limits.limiter)
    yield "quota", running(services.limits.quota)
    if services.auth.token_keys is not None:
        yield "token keys", running(services.auth.token_keys)
    yield "engine", running(engine.parts)
    if services.agents.remote.servers.needed:
        yield "MCP servers", _settled(services.agents.remote.servers)
    if services.agents.graphs is not None:
        yield "graphs", _settled(services.agents.graphs)  # after the servers, whose tools their modules may ask for
    if services.agents.remote.peers.needed:
        yield "A2A agents", running(services.agents.remote.peers)
    yield "threads", running(features.threads)
    yield "store", _store(services)
    yield "supervisor", _supervisor(services)
    yield "scheduler", running(features.scheduler)
    if services.settings.server.role != "api":
        yield "queue metrics", running(engine.queue_metrics)
        yield "webhooks", _webhooks(services)
        yield "store maintenance", running(services.agents.memory.maintenance)
        yield "quota sweep", running(services.limits.quota.sweep)
        yield "removed documents", running(features.documents.removing)
    yield "streams", closing(services.streams.tasks.aclose)
    yield "projections", closing(services.gateway.projections.aclose)
    yield "loop lag", _loop_lag(services)
    yield "probe", running(services.health.probe)
    yield "watchdog", running(services.health.watchdog)


class Lifespan:
    """The life of the parts of one worker."""

    def __init__(self, services: AppServices, parts: Callable[[AppServices], Iterator[Part]] = parts) -> None:
        self._services = services
        self._parts = parts
        self._outer = AsyncExitStack()
        self._inner = AsyncExitStack()

    async def open(self) -> None:
        """Check the database, start every part, report ready. What had started is closed again if one fails."""
        async with AsyncExitStack() as outer:
            for _, part in outer_parts(self._services):
                await outer.enter_async_context(part)
            async with AsyncExitStack() as inner:
                for _, part in self._parts(self._services):
                    await inner.enter_async_context(part)
                self._inner = inner.pop_all()
            self._outer = outer.pop_all()
        self._services.health.readiness.ready()
        log.info("started", agents=len(self._services.agents.catalog.names()))

    async def retire(self) -> None:
        """Report unready and take no new runs; running steps finish or are handed over. Open responses continue.

        Bounded by AGENT_DRAIN_SECONDS and ``HAND_OVER_SECONDS``.
        """
        services, supervisor = self._services, self._services.engine.supervisor
        if supervisor.draining:
            return
        services.health.readiness.drain()
        log.info("draining", runs=supervisor.active, streams=len(services.streams))
        await self._within(services.settings.runs.drain_seconds + HAND_OVER_SECONDS, self._hand_over(), "drain")

    async def drain(self) -> None:
        """Retire, then end open responses."""
        supervisor, streams = self._services.engine.supervisor, self._services.streams
        supervisor.closing = True
        await self.retire()
        if not streams.draining:
            supervisor.feeds.drain()
            streams.drain()

    async def close(self) -> None:
        """Drain, then close every part in reverse order."""
        await self.drain()
        await self._within(CLOSE_SECONDS, self._inner.aclose(), "close")
        await self._outer.aclose()
        log.info("stopped")

    async def _hand_over(self) -> None:
        await self._services.features.scheduler.aclose()
        await self._services.engine.supervisor.retire(self._services.settings.runs.drain_seconds)

    async def _within(self, seconds: float, work: Coroutine[Any, Any, None], part: str) -> None:
        """Do ``work``; if it takes too long, cut the database connections, which alone can hold it up.

        No run is lost by that: their leases expire.
        """
        task = self._services.background.start(work, name=part)
        done, _ = await asyncio.wait({task}, timeout=seconds)
        if not done:
            log.warning("stop_cut", part=part, seconds=seconds)
            self._services.persistence.database.abort()
            await asyncio.wait({task}, timeout=CUT_SECONDS)


@asynccontextmanager
async def _metrics_buffer(services: AppServices) -> AsyncIterator[None]:
    try:
        yield
    finally:
        services.telemetry.meters.buffer.close()


@asynccontextmanager
async def _pushing(services: AppServices) -> AsyncIterator[None]:
    push = services.telemetry.push
    assert push is not None
    push.start()
    try:
        yield
    finally:
        await asyncio.to_thread(push.shut_down)


@asynccontextmanager
async def _database(services: AppServices) -> AsyncIterator[None]:
    database = services.persistence.database
    try:
        await database.check()
        yield
    finally:
        await database.aclose()


@asynccontextmanager
async def _store(services: AppServices) -> AsyncIterator[None]:
    store = services.features.store
    try:
        await store.open()
        yield
    finally:
        await store.aclose()


@asynccontextmanager
async def _supervisor(services: AppServices) -> AsyncIterator[None]:
    supervisor = services.engine.supervisor
    try:
        supervisor.start()
        yield
    finally:
        if not supervisor.draining:  # the start of a later part failed
            await supervisor.retire(0)


@asynccontextmanager
async def _webhooks(services: AppServices) -> AsyncIterator[None]:
    dispatcher = services.engine.dispatcher
    if services.settings.server.environment == "production" and not dispatcher.signs:
        log.warning("webhooks_unsigned", detail="AGENT_WEBHOOK_SECRET is not set: receivers cannot know our calls")
    async with running(dispatcher), running(services.engine.push_dispatcher):
        yield


@asynccontextmanager
async def _loop_lag(services: AppServices) -> AsyncIterator[None]:
    lag = services.telemetry.loop_lag
    lag.start()
    try:
        yield
    finally:
        lag.stop()
