"""Start the run that a request asks for, once for each ``runId``, and name it as its client does."""

import asyncio
from collections.abc import AsyncGenerator, Callable, Collection
from contextlib import AbstractAsyncContextManager
from typing import Any, NamedTuple
from uuid import UUID

from app.agents.port import Agent, WithPeers, WithSubgraphs
from app.base.errors import Invalid, NotFound, Unavailable
from app.base.offload import body_bytes, offload
from app.engine.structs import CommandBody, Run, RunCreate
from app.features.access.idempotency import check_key, fingerprint_of, route_of
from app.features.runs.service import RunService
from app.infra.http.query_params import AnyRequest
from app.protocols.ag_ui.errors import RunRefused
from app.protocols.ag_ui.inbound import Thread, compare
from app.protocols.ag_ui.messages import shown
from app.protocols.ag_ui.offers import offered_by
from app.protocols.ag_ui.projection import AGUIProjection, RunOnWire
from app.protocols.ag_ui.structs import RunAgentInput
from app.protocols.forks import input_checkpoint, input_of, run_that_brought
from app.protocols.gateway import OBSERVABLE, ProtocolGateway
from app.protocols.threads import thread_id_of
from app.security.access.structs import Principal
from app.security.idempotency.structs import IdempotencyKey

RUN_ID = "ag_ui_run_id"
PARENT_RUN_ID = "ag_ui_parent_run_id"
BEHIND = "ag_ui_behind"
"""Members of a run's metadata: ids by which an AG-UI client names the run and the one that it came from; whether the
client lacked messages of the thread."""

RETRY_DELAY = 0.5
"""Seconds between retries while the database is unavailable."""


class Started(NamedTuple):
    """A run of a request, and its thread."""

    thread_id: UUID
    run: RunOnWire


def follow(
    gateway: ProtocolGateway, principal: Principal, started: Started, after: int = -1
) -> AsyncGenerator[bytes, None]:
    """Yield chunks of a run's events after number ``after`` until it ends."""
    run = started.run
    stored = _StoredValues(gateway.runs, principal, started.thread_id, run.run_id)
    return gateway.projections.follow(principal, run.run_id, run.protocol, lambda: AGUIProjection(run, stored), after)


class _StoredValues(NamedTuple):
    """Implements ``app.protocols.ag_ui.projection.StoredValues``."""

    runs: RunService
    principal: Principal
    thread_id: UUID
    run_id: UUID

    async def before(self) -> bytes | None:
        return await self._patiently(lambda: self.runs.values_before(self.principal, self.run_id))

    async def at(self, checkpoint_id: UUID) -> bytes | None:
        run = self.thread_id, self.run_id
        return await self._patiently(lambda: self.runs.values(self.principal, run, checkpoint_id))

    async def _patiently(self, load: Callable[[], AbstractAsyncContextManager[bytes | None]]) -> bytes | None:
        """Return what is loaded; wait while the database is unavailable, unless the server stops."""
        while True:
            try:
                async with load() as values:
                    return values
            except Unavailable:
                self.runs.check_open()
                await asyncio.sleep(RETRY_DELAY)


async def on_wire(run: Run, thread: str, *, legacy: bool) -> RunOnWire:
    """Return ``run`` as clients of AG-UI name it, which call its thread ``thread``."""
    metadata = run.metadata if isinstance(run.metadata, dict) else {}
    name, parent = str(metadata.get(RUN_ID) or run.run_id), metadata.get(PARENT_RUN_ID)
    parent = parent if isinstance(parent, str) else None
    given, hidden = await offload(len(run.kwargs), lambda: _given(input_of(run)))
    return RunOnWire(run.run_id, thread, name, parent, given, hidden, bool(metadata.get(BEHIND)), legacy)


def _given(run_input: Any) -> tuple[list[dict[str, Any]], bool]:
    """Return the messages of an input that have ids, as AG-UI shows them, and whether it has more than those."""
    if run_input is None:
        return [], False
    messages = run_input.get("messages") if isinstance(run_input, dict) else None
    if not isinstance(messages, list):
        return [], True
    named = [one for one in messages if isinstance(one, dict) and one.get("id")]
    return shown(named), len(named) < len(messages) or len(run_input) > 1


async def start(
    gateway: ProtocolGateway, principal: Principal, assistant: str, data: RunAgentInput, request: AnyRequest
) -> Started:
    """Start the run that ``data`` asks for; a repeated request finds it again.

    Raises ``RunRefused`` if the thread does not allow it now, and what ``RunService.create`` raises.
    """
    thread_id = thread_id_of(principal, data.thread_id)
    key = await _key(principal, thread_id, data, request)
    if (repeated := await _repeated(gateway, principal, thread_id, data, key)) is not None:
        return repeated
    agent = await _agent(gateway, principal, assistant)
    try:
        body = await _body(gateway, principal, assistant, agent, data, thread_id)
    except RunRefused:  # the same request may have started its run meanwhile, which left nothing to answer
        if (repeated := await _repeated(gateway, principal, thread_id, data, key)) is None:
            raise
        return repeated
    given, hidden = await offload(body_bytes.get(), _given, body.input)  # before it is encoded, which releases it
    run_id = (await gateway.runs.create(principal, thread_id, body, key)).run_id
    behind = BEHIND in (body.metadata or {})
    named = RunOnWire(run_id, data.thread_id, data.run_id, data.parent_run_id, given, hidden, behind, data.is_legacy)
    return Started(thread_id, named._replace(peers=_peers(agent, data.is_legacy)))


async def _repeated(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, data: RunAgentInput, key: IdempotencyKey
) -> Started | None:
    """Return the run that the same request has started before; None if there is none."""
    replayed = await gateway.runs.replayed(principal, key)
    if replayed is None:
        return None
    run = (thread_id, replayed.run_id)
    return await found_run(gateway, principal, run, data.thread_id, legacy=data.is_legacy)


async def found_run(
    gateway: ProtocolGateway, principal: Principal, run: tuple[UUID, UUID], thread: str, *, legacy: bool
) -> Started:
    """Return a ``run`` (thread, run) for a client that calls its thread ``thread``. Raises ``NotFound``."""
    found = await gateway.runs.get(principal, *run)
    named = await on_wire(found, thread, legacy=legacy)
    if any(_peers(agent, legacy) for agent in gateway.assistants.agents()):
        assistant = await gateway.assistants.get(principal, found.assistant_id)
        named = named._replace(peers=_peers(gateway.assistants.agent_named(assistant.graph_id), legacy))
    return Started(run[0], named)


def _peers(agent: Agent | None, legacy: bool) -> frozenset[str]:
    """Return the tools of an agent that are other agents; none for a ``legacy`` client, which knows no sub-agents."""
    if agent is None or legacy or not isinstance(agent, WithPeers):
        return frozenset()
    return agent.peers()


async def _key(principal: Principal, thread_id: UUID, data: RunAgentInput, request: AnyRequest) -> IdempotencyKey:
    """Return the idempotency key of a run: its ``runId``, on its thread. Raises ``Invalid``."""
    check_key(data.run_id, "runId", "/runId")
    route = route_of(f"AG-UI {thread_id}", principal)
    return IdempotencyKey(route, data.run_id, await fingerprint_of(await request.body()))


async def _body(
    gateway: ProtocolGateway, principal: Principal, assistant: str, agent: Agent, data: RunAgentInput, thread_id: UUID
) -> RunCreate:
    thread = await thread_of(gateway, principal, thread_id)
    size = thread.size + body_bytes.get()
    turn, behind, changed = await offload(size, compare, data, thread, _accepted(agent) if data.state else ())
    metadata: dict[str, Any] = {"protocol": "ag-ui", RUN_ID: data.run_id}
    if behind:
        metadata[BEHIND] = True
    if data.parent_run_id:
        metadata[PARENT_RUN_ID] = data.parent_run_id
    work: dict[str, Any]
    if turn.answers is not None:
        work = {"command": CommandBody(resume=turn.answers)}
    elif turn.after is not None:
        work = {"checkpoint_id": str(await _input_of(gateway, principal, thread_id, turn.after, before=False))}
    else:
        work = {"input": {**changed, "messages": list(turn.messages)}}
        if turn.before is not None:
            work["checkpoint_id"] = str(await _input_of(gateway, principal, thread_id, turn.before, before=True))
    return RunCreate(
        assistant_id=assistant,
        stream_mode=OBSERVABLE,
        stream_subgraphs=isinstance(agent, WithSubgraphs) and not data.is_legacy,
        if_not_exists="create",
        metadata=metadata,
        **offered_by(data, agent),
        **work,
    )


async def thread_of(gateway: ProtocolGateway, principal: Principal, thread_id: UUID) -> Thread:
    """Return a thread as requests are compared with it; an empty one if it does not exist yet."""
    try:
        state = await gateway.threads.state(principal, thread_id)
    except NotFound:
        return Thread()
    return await offload(len(state.values), Thread.of, state)


def _accepted(agent: Agent) -> Collection[str]:
    """Return the names of the values that an agent takes as input, without its messages."""
    accepted = (agent.schemas().get("input_schema") or {}).get("properties") or {}
    return set(accepted) - {"messages"}


async def _input_of(
    gateway: ProtocolGateway, principal: Principal, thread_id: UUID, message_id: str, *, before: bool
) -> UUID:
    """Return the checkpoint with the input of the run that brought a message, or the one ``before``.

    Raises ``NotFound``.
    """
    run = await run_that_brought(gateway, principal, thread_id, message_id)
    if run is None:
        raise NotFound("No run of this thread brought that message under its id: send it as a new one.")
    return await input_checkpoint(gateway, principal, thread_id, run.run_id, before=before)


async def _agent(gateway: ProtocolGateway, principal: Principal, assistant: str) -> Agent:
    """Return the agent to run. Raises ``NotFound``, naming those there are."""
    try:
        return await gateway.assistants.runnable(principal, assistant)
    except Invalid as error:
        names = ", ".join(gateway.assistants.names())
        raise NotFound(f"The agent {assistant[:200]!r} does not exist. Agents: {names}.") from error
