"""What the commands of the protocol do. A refused command is answered with an error code, not with an HTTP status."""

import contextlib
from collections.abc import Awaitable, Callable, Collection
from typing import Any, NamedTuple, TypeVar
from uuid import UUID

import msgspec

from app.base.errors import AgentServiceError, Conflict, Forbidden, Limited, NotFound, Unavailable
from app.domain.lifecycle import LIVE
from app.engine.entries import ClaimedRun
from app.engine.structs import CommandBody, ConfigBody, Run, RunCreate
from app.features.threads.structs import HistoryQuery, ThreadState
from app.features.threads.subgraphs import Place
from app.infra.http.json_decoding import explain
from app.protocols.gateway import OBSERVABLE, ProtocolGateway
from app.protocols.langgraph_v2 import structs
from app.protocols.langgraph_v2.channels import ROOT
from app.protocols.langgraph_v2.projection import LIFECYCLE, ThreadProjection, first_seq, graph_of
from app.protocols.langgraph_v2.structs import Command, ErrorCode, Failure, ResponseMeta, Success
from app.protocols.states import state_of
from app.security.access.structs import Principal
from app.security.idempotency.structs import IdempotencyKey

MODES: list[Any] = [*OBSERVABLE, "tasks"]
"""Stream modes of runs that commands start: all channels are filled."""

MESSAGE_TYPES = {"user": "human", "system": "system"}


P = TypeVar("P")


class Refused(Exception):
    """A command is refused with ``code``."""

    def __init__(self, code: ErrorCode, message: str) -> None:
        super().__init__(message)
        self.code = code


class Caller(NamedTuple):
    """The sender of a command, and its thread; ``key``: of a request that may be repeated.

    ``count_start`` counts the start of a run against the rate limit. Raises ``Limited``.
    """

    principal: Principal
    thread_id: UUID
    count_start: Callable[[], Awaitable[None]]
    key: IdempotencyKey | None = None


Params = dict[str, Any]
Result = tuple[Any, int | None]
"""The result of a command, and the number before the events that it causes."""


class CommandHandler:
    """Executes commands."""

    def __init__(self, gateway: ProtocolGateway) -> None:
        self._gateway = gateway
        self._methods: dict[str, Callable[[Caller, Params], Awaitable[Result]]] = {
            "run.start": self._start,
            "input.respond": self._respond,
            "input.inject": self._inject,
            "state.get": self._state,
            "state.listCheckpoints": self._checkpoints,
            "state.fork": self._fork,
            "agent.getTree": self._tree,
        }

    async def execute(self, caller: Caller, command: Command) -> Success | Failure:
        """Execute ``command``. Raises ``Limited``, ``Unavailable``: a client may repeat it then."""
        method = self._methods.get(command.method)
        try:
            if method is None:
                raise _unknown(command.method)
            result, seq = await method(caller, command.params)
        except (Limited, Unavailable):
            raise
        except Refused as error:
            return Failure(id=command.id, error=error.code, message=str(error))
        except AgentServiceError as error:
            return Failure(id=command.id, error=_code_of(error), message=str(error))
        return Success(id=command.id, result=result, meta=msgspec.UNSET if seq is None else ResponseMeta(seq))

    async def _start(self, caller: Caller, params: Params) -> Result:
        asked = _read(params, structs.RunStart)
        config = _config(asked.config)
        work: dict[str, Any] = {"input": asked.input}
        forks = bool(config and (config.configurable or {}).get("checkpoint_id"))
        if asked.input is not None and not forks and await self._questions(caller):
            work = {"command": CommandBody(resume=asked.input)}
        return await self._run(
            caller,
            asked.assistant_id,
            config=config,
            metadata=asked.metadata,
            multitask_strategy=asked.multitask_strategy or asked.older_multitask_strategy,
            if_not_exists="create",
            **work,
        )

    async def _run(self, caller: Caller, assistant: str, **work: Any) -> Result:
        await caller.count_start()
        body = RunCreate(assistant_id=assistant, stream_mode=MODES, stream_subgraphs=True, **work)
        accepted = await self._gateway.runs.create(caller.principal, caller.thread_id, body, caller.key)
        seq = first_seq(accepted.ordinal) if isinstance(accepted, ClaimedRun) else None
        return {"run_id": accepted.run_id}, seq

    async def _respond(self, caller: Caller, params: Params) -> Result:
        asked = _read(params, structs.InputRespond)
        given = asked.responses or []
        if asked.interrupt_id is not None:
            given = [*given, structs.Answer(asked.interrupt_id, asked.response, asked.namespace)]
        if not given:
            raise Refused("invalid_argument", "Name the interrupt_id that the response answers, or send responses.")
        waiting = await self._questions(caller)
        unknown = [answer.interrupt_id for answer in given if answer.interrupt_id not in waiting]
        if unknown:
            known = f"it waits for {', '.join(waiting)}." if waiting else "it waits for no answer."
            gone = f"{unknown[0][:100]!r} (it was answered, left behind or never asked)"
            raise Refused("no_such_interrupt", f"The thread has no open interrupt {gone}: {known}")
        last = await self._last_run(caller)
        resume = {answer.interrupt_id: answer.response for answer in given}
        command = CommandBody(resume=resume, update=asked.update, goto=asked.goto)
        try:
            return await self._run(
                caller, str(last.assistant_id), command=command, config=_config(asked.config), metadata=asked.metadata
            )
        except Conflict as error:
            raise Refused("no_such_interrupt", str(error)) from error

    async def _inject(self, caller: Caller, params: Params) -> Result:
        asked = _read(params, structs.InputInject)
        _check_root(asked.namespace)
        if await self._questions(caller):
            raise Refused("invalid_argument", "The thread waits for an answer: send it with input.respond.")
        last = await self._last_run(caller)
        said = {"type": MESSAGE_TYPES[asked.message.role], "content": asked.message.content}
        if asked.message.name is not None:
            said["name"] = asked.message.name
        _, seq = await self._run(caller, str(last.assistant_id), input={"messages": [said]})
        return {}, seq

    async def _state(self, caller: Caller, params: Params) -> Result:
        asked = _read(params, structs.StateGet)
        state = await self._newest_state(caller, asked.namespace)
        values: Any = state.values
        if asked.keys is not None:
            members = msgspec.json.decode(state.values, type=dict[str, msgspec.Raw])
            values = {name: members[name] for name in asked.keys if name in members}
        result = {"values": values}
        if state.checkpoint_id is not None:
            result["checkpoint"] = {"id": state.checkpoint_id, "ns": "|".join(asked.namespace)}
        return result, None

    async def _newest_state(self, caller: Caller, namespace: structs.Namespace) -> ThreadState:
        threads, place = self._gateway.threads, Place("|".join(namespace))
        if not namespace:
            return await threads.state(caller.principal, caller.thread_id)
        try:
            return await threads.subgraphs.at(caller.principal, caller.thread_id, place)
        except NotFound as error:
            raise Refused("no_such_namespace", str(error)) from error

    async def _checkpoints(self, caller: Caller, params: Params) -> Result:
        asked = _read(params, structs.ListCheckpoints)
        at = {"checkpoint_ns": "|".join(asked.namespace)} if asked.namespace else None
        query = HistoryQuery(limit=asked.limit, before=asked.before, checkpoint=at)
        states, _ = await self._gateway.threads.history(caller.principal, caller.thread_id, query)
        if at is not None and not states:
            await self._newest_state(caller, asked.namespace)  # refused if there is no such namespace
        return {"checkpoints": [_summary(state) for state in states]}, None

    async def _fork(self, caller: Caller, params: Params) -> Result:
        asked = _read(params, structs.StateFork)
        last = await self._last_run(caller)
        try:
            await self._gateway.threads.state_at(caller.principal, caller.thread_id, asked.checkpoint_id)
        except NotFound as error:
            raise Refused("no_such_checkpoint", str(error)) from error
        started, seq = await self._run(
            caller,
            str(last.assistant_id),
            input=asked.input,
            config=_config(asked.config),
            checkpoint_id=asked.checkpoint_id,
        )
        return {**started, "thread_id": caller.thread_id}, seq

    async def _tree(self, caller: Caller, params: Params) -> Result:
        asked = _read(params, structs.GetTree)
        if asked.run_id is None:
            run = await self._last_run(caller)
        else:
            run = await self._gateway.runs.get(caller.principal, caller.thread_id, asked.run_id)
        assistant = await self._gateway.assistants.get(caller.principal, run.assistant_id)
        waiting = await self._questions(caller)
        status = "running" if run.status in LIVE else LIFECYCLE.get(state_of(run.status, bool(waiting)), "failed")
        about = {"run_id": run.run_id, "assistant_id": run.assistant_id}
        tree = {"namespace": [], "status": status, "graph_name": assistant.graph_id, "metadata": about}
        lifecycles = ThreadProjection(1)
        async with contextlib.aclosing(self._gateway.runs.logged_events(caller.principal, run.run_id)) as logged:
            async for event in logged:
                for _ in lifecycles.project(event):
                    pass
        nodes: dict[tuple[str, ...], dict[str, Any]] = {ROOT: tree}
        for namespace in sorted(set(lifecycles.lifecycles) - {ROOT}):
            nodes[namespace] = child = {
                "namespace": namespace,
                "status": lifecycles.lifecycles[namespace],
                "graph_name": graph_of(namespace),
            }
            nodes[namespace[:-1]].setdefault("children", []).append(child)
        return {"tree": tree}, None

    async def _questions(self, caller: Caller) -> Collection[str]:
        return [one.id for one in await self._gateway.runs.open_questions(caller.principal, caller.thread_id)]

    async def _last_run(self, caller: Caller) -> Run:
        runs, _ = await self._gateway.runs.list(caller.principal, caller.thread_id, status=None, limit=1, offset=0)
        if not runs:
            raise Refused("no_such_run", "This thread has had no run yet: start one with run.start.")
        return runs[0]


def _unknown(method: str) -> Refused:
    if method.startswith("subscription."):
        return Refused(
            "not_supported", "Subscriptions belong to a connection: open a WebSocket, or POST to /stream/events."
        )
    return Refused("unknown_command", f"{method[:100]!r} is not a command of this protocol.")


def _code_of(error: AgentServiceError) -> ErrorCode:
    if isinstance(error, Forbidden):
        return "permission_denied"
    if isinstance(error, NotFound):
        return "no_such_run"
    return "invalid_argument" if error.status < 500 else "unknown_error"


def _check_root(namespace: structs.Namespace) -> None:
    if namespace:
        where = "/".join(namespace)[:100]
        raise Refused("no_such_namespace", f"{where!r} takes no messages of its own: use the namespace [].")


def _read(params: Params, wanted: type[P]) -> P:
    """Read the parameters of a command. Raises ``Invalid``."""
    try:
        return msgspec.convert(params, wanted)
    except msgspec.ValidationError as error:
        raise explain(str(error), wanted) from error


def _config(given: Params | None) -> ConfigBody | None:
    return None if given is None else _read(given, ConfigBody)


def _summary(state: ThreadState) -> dict[str, Any]:
    metadata = state.metadata or {}
    return {
        "id": state.checkpoint_id,
        "timestamp": state.created_at,
        "step": metadata.get("step", -1),
        "metadata": metadata,
    }
