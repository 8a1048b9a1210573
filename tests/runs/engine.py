"""The run engine of one process on a real database, with agents controlled by tests."""

import asyncio
import contextlib
from collections.abc import AsyncIterator, Awaitable, Callable
from typing import Any
from uuid import UUID, uuid5

import msgspec
import sqlalchemy as sa

from app.agents.port import START_NODE, Agent, RunContext, RunOutcome, Step
from app.base.ids import agent_id, new_id
from app.domain.event_id import START, EventId
from app.domain.events import MessageDelta
from app.domain.messages import AIMessage, HumanMessage
from app.domain.state import State
from app.engine.entries import AcceptEntry, ClaimedRun
from app.engine.execution.journal import Journal
from app.engine.queue.claims import RunQueue
from app.engine.streams.feed_registry import FeedRegistry
from app.engine.streams.frame_transport import FramePublisher, FrameTransport
from app.engine.streams.postgres_transport import PostgresFrameTransport
from app.engine.streams.redis_transport import RedisFrameTransport
from app.engine.streams.signals import Signals
from app.engine.structs import RunRequest
from app.engine.supervisor import RunEngine, Supervisor
from app.features.assistants.tables import assistants
from app.features.runs.run_streams import RunStreams
from app.infra.db.engine import Database
from app.infra.secrets.secret import Secret
from app.infra.settings import LimitSettings
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tracing import NO_TRACER, TraceRecorder
from app.security.limits.budgets import Budgets
from app.security.limits.limiter import Limiter
from app.security.limits.prices import Prices

TENANT = UUID(int=7)
LEASE = 30.0

Behaviour = Callable[[RunContext], Awaitable[RunOutcome]]


def said(text: str) -> AIMessage:
    """A model's message with an id of its own."""
    return AIMessage(content=text, id=f"run--{new_id()}")


def step(text: str, *, following: tuple[str, ...] = ()) -> Step:
    """A step that says ``text``."""
    return Step(node="agent", update={"messages": [said(text)]}, next=following)


async def echo(context: RunContext) -> RunOutcome:
    """Answer at once, in two chunks."""
    asked = msgspec.json.decode(context.state.elements()[-1])["content"]
    answer = said(f"echo: {asked}")
    for piece in ("echo: ", asked):
        context.emit(MessageDelta(message_id=answer.id or "", node="agent", step=context.step, text=piece))
    return RunOutcome(step=Step(node="agent", update={"messages": [answer]}))


class SteeredAgent:
    """An agent that does what the test says."""

    description = ""
    nodes: tuple[str, ...] = ("agent",)

    def __init__(self, name: str, behaviour: Behaviour, seconds: float = 60.0) -> None:
        self.name = name
        self.seconds = seconds
        self._behaviour = behaviour

    def read_input(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """One human message for each text."""
        return {"messages": [HumanMessage(content=t, id=str(uuid5(run_id, str(n)))) for n, t in enumerate(value)]}

    def read_update(self, value: Any, run_id: UUID) -> dict[str, Any]:
        """The same."""
        return self.read_input(value, run_id)

    def after(self, node: str, state: State) -> tuple[str, ...]:
        """Whatever comes, its only node has had its turn then."""
        return self.nodes[:1] if node == START_NODE else ()

    async def run(self, context: RunContext) -> RunOutcome:
        """Do it."""
        return await self._behaviour(context)

    def schemas(self) -> dict[str, Any]:
        """None needed."""
        return {}

    def graph(self) -> dict[str, Any]:
        """None needed."""
        return {}


class Agents:
    """A catalog of steered agents."""

    def __init__(self, *agents: SteeredAgent) -> None:
        self._agents = {agent.name: agent for agent in agents}

    def get(self, name: str) -> Agent | None:
        """The agent ``name``."""
        return self._agents.get(name)

    def names(self) -> list[str]:
        """All names."""
        return list(self._agents)


class Engine:
    """One process's engine: everything that runs need, over ``database``."""

    def __init__(
        self,
        database: Database,
        *agents: SteeredAgent,
        lease: float = LEASE,
        max_runs: int = 1000,
        redis: str = "",
        state_bytes: int = 0,
    ) -> None:
        signals = Signals(database)
        transport: FrameTransport = PostgresFrameTransport(database, signals)
        if redis:
            transport = RedisFrameTransport(Secret(redis), transport)
        self.database = database
        self.meters = Meters()
        recorder = TraceRecorder(self.meters, NO_TRACER)
        self.parts = RunEngine(
            database=database,
            claims=RunQueue(database, new_id(), lease),
            journal=Journal(database, timeout=lease, recorder=recorder),
            signals=signals,
            feeds=FeedRegistry(database, signals, transport),
            publisher=FramePublisher(transport),
            budgets=Budgets(database, Limiter(LimitSettings()), Prices(), lambda _: "", self.meters),
            state_bytes=state_bytes,
        )
        self.claims = self.parts.claims
        self.supervisor = Supervisor(self.parts, Agents(*agents), recorder, max_runs=max_runs)
        self.streams = RunStreams(database, self.supervisor)

    async def start(self, *, sweeping: bool = False) -> None:
        """Start; leases are renewed and runs claimed and recovered only with ``sweeping``."""
        self.parts.start()
        if sweeping:
            self.supervisor.start()

    async def stop(self) -> None:
        """Drain at once and close."""
        await self.supervisor.drain(0)
        await self.parts.aclose()

    async def accept(self, *texts: str, agent: str = "echo", thread: UUID | None = None, **changes: Any) -> ClaimedRun:
        """Accept a run without starting it."""
        modes = changes.pop("modes", ["values"])
        entry = {
            "tenant_id": TENANT,
            "thread_id": thread or new_id(),
            "run_id": new_id(),
            "assistant_id": agent_id(agent),
            "request": msgspec.json.encode(RunRequest(input=list(texts) or None, stream_mode=modes)),
            "metadata": "{}",
            "multitask_strategy": "enqueue",
            "create_thread": True,
            "temporary": False,
            "owner": self.supervisor.owner,
            "delay": 0.0,
        }
        return await self.claims.accept(AcceptEntry(**{**entry, **changes}))

    async def begin(self, *texts: str, **changes: Any) -> ClaimedRun:
        """Accept a run and start it if its thread is free."""
        claimed = await self.accept(*texts, **changes)
        if claimed.started:
            self.supervisor.launch(claimed)
        elif claimed.behind is None:
            self.supervisor.queued()
        return claimed

    async def result(self, claimed: ClaimedRun) -> Any:
        """The run's result, decoded."""
        raw = await asyncio.wait_for(self.streams.result(TENANT, claimed.thread_id, claimed.run_id), 20)
        return msgspec.json.decode(raw)

    async def stream(self, claimed: ClaimedRun, after: EventId = START, modes: set[str] | None = None) -> bytes:
        """The whole stream after ``after``."""
        chunks = self.streams.follow(TENANT, claimed.run_id, after=after, modes=modes)
        async with asyncio.timeout(20):
            return b"".join([chunk async for chunk in chunks])


async def fetch(database: Database, sql: str, *parameters: Any) -> list[dict[str, Any]]:
    """Rows of ``sql`` as the engine sees them."""
    async with database.engine_connection() as connection:
        return [dict(row) for row in await connection.fetch(sql, *parameters)]


async def add_assistants(database: Database, *names: str) -> None:
    """Give the tests' tenant a system assistant for each agent name."""
    async with database.writing(TENANT) as session:
        for name in names:
            await session.execute(
                sa.insert(assistants).values(tenant_id=TENANT, assistant_id=agent_id(name), graph_id=name, name=name)
            )


@contextlib.asynccontextmanager
async def engine_on(
    database: Database,
    *agents: SteeredAgent,
    lease: float = LEASE,
    max_runs: int = 1000,
    sweeping: bool = False,
    redis: str = "",
    state_bytes: int = 0,
) -> AsyncIterator[Engine]:
    """A started engine that stops with the block."""
    engine = Engine(database, *agents, lease=lease, max_runs=max_runs, redis=redis, state_bytes=state_bytes)
    await engine.start(sweeping=sweeping)
    try:
        yield engine
    finally:
        await engine.stop()
