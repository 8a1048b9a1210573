"""Agents as tools: a call is a run on a thread, which the client may name to continue a conversation.

The result's ``_meta`` names thread and run. A question of the run is asked of the client's person; an answer
on another wire continues the call as well.
"""

import contextlib
import functools
from collections.abc import AsyncGenerator, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from app.agents.port import Agent
from app.base.errors import BadRequest, Conflict, Invalid, NotFound, Unavailable
from app.base.ids import new_id
from app.domain.lifecycle import LIVE
from app.engine.structs import CommandBody, ContinuedRun, RunCreate
from app.protocols.gateway import OBSERVABLE, ProtocolGateway
from app.protocols.mcp.errors import INVALID_PARAMS, RpcError
from app.protocols.mcp.questions import Declined, answer_of, ask_of
from app.protocols.mcp.results import ResultCollector, error_result, questions_result
from app.protocols.mcp.structs import TASKS
from app.protocols.mcp.surface import (
    Asked,
    Caller,
    Done,
    Following,
    Item,
    Named,
    Reply,
    TaskMade,
)
from app.protocols.mcp.tasks import ended, state_of_task, task_id_of, task_of
from app.protocols.threads import thread_id_of
from app.security.access.structs import WRITE, Principal
from app.security.idempotency.structs import IdempotencyKey

RUN_META = "agent-service/"
"""Prefix of thread and run in ``_meta`` of results."""

_THREAD = {
    "type": "string",
    "description": "Continue this conversation: its thread id, or any text of yours that names it. "
    "Left out: a new one.",
}


class CalledRun(NamedTuple):
    """A run that a call follows. ``structured``: its tool has a schema of its values."""

    thread_id: UUID
    run_id: UUID
    structured: bool

    @property
    def about(self) -> dict[str, Any]:
        """The ``_meta`` of its result."""
        return {f"{RUN_META}thread_id": str(self.thread_id), f"{RUN_META}run_id": str(self.run_id)}


class AgentTools:
    """The tools, and the tasks that their calls become."""

    def __init__(self, gateway: ProtocolGateway) -> None:
        self._gateway = gateway

    def tool(self, agent: Agent, *, title: str = "", description: str = "") -> dict[str, Any]:
        """Return the tool of an agent."""
        schemas = agent.schemas()
        given, definitions = _input_schema(schemas.get("input_schema"))
        found: dict[str, Any] = {
            "name": agent.name,
            "title": title or agent.name,
            "description": description or agent.description or f"The agent {agent.name}.",
            "inputSchema": {
                "type": "object",
                "properties": {"input": given, "thread_id": _THREAD},
                "required": ["input"],
                **({"$defs": definitions} if definitions else {}),
            },
        }
        output = _output_schema(schemas.get("output_schema"))
        return found if output is None else {**found, "outputSchema": output}

    async def call(self, caller: Caller, assistant: str, agent: Agent, call: Named) -> Reply:
        """Start the run of a call, or continue it with answers. Raises what accepting a run raises."""
        structured = _output_schema(agent.schemas().get("output_schema")) is not None
        if call.state is not None:
            return await self._continue(caller, call, structured)
        body, thread_id = _run_of(caller.principal, assistant, call.arguments)
        if body is None:
            return Done(error_result("The argument input is missing: say what the agent is to do.", {}))
        await caller.gate.start_run()
        as_task = caller.envelope.extends(TASKS)
        if not as_task:
            self._gateway.streams.admit(caller.principal.holder)
        try:
            accepted = await self._gateway.runs.create(caller.principal, thread_id, body, caller.key)
        except (Invalid, BadRequest, Conflict) as error:
            return Done(error_result(str(error), {}))
        run = CalledRun(accepted.thread_id, accepted.run_id, structured)
        if as_task:
            return TaskMade(await self.task(caller, task_id_of(run.thread_id, run.run_id)))
        return self._following(caller, run)

    def _following(self, caller: Caller, run: CalledRun) -> Following:
        stop = functools.partial(self._stop, caller.principal, run)
        return Following(self._items(caller, run), stop if caller.envelope.stateless else None)

    def watching(self, caller: Caller, run: CalledRun) -> Following:
        """Follow a run for a caller who has not started it: it continues without them, and its questions are shown."""
        return Following(self._items(caller, run, asks=False))

    async def _stop(self, principal: Principal, run: CalledRun) -> None:
        """Cancel the call: what continues the run by now, if it still runs."""
        newest = await self._gateway.runs.continued(principal, run.thread_id, run.run_id)
        if newest.status in LIVE:
            await self._gateway.runs.stop(principal, newest.run_id)

    async def _items(self, caller: Caller, run: CalledRun, *, asks: bool = True) -> AsyncGenerator[Item, None]:
        """Yield the progress of a run and those that continue it, what they ask, and the result.

        Without ``asks`` the questions of the run are the result.
        """
        runs, principal = self._gateway.runs, caller.principal
        while True:
            collector = ResultCollector(run.structured)
            async with contextlib.aclosing(runs.events(principal, run.run_id)) as batches:
                async for events in batches:
                    for event in events:
                        for progress in collector.add(event):
                            yield progress
            if collector.ended is None:
                raise Unavailable("The server is stopping; call again with the thread_id.", retry_after=1)
            if not collector.questions:
                yield Done(collector.result(run.about))
                return
            if not asks:
                yield Done(questions_result(collector.questions, run.about))
                return
            yield self._asked(caller, run, collector.questions)
            following = await runs.answered(principal, run.thread_id, run.run_id)
            if following is None:
                raise Unavailable("The call waits for an answer; call again with the thread_id.", retry_after=1)
            run = run._replace(run_id=following)

    def _asked(self, caller: Caller, run: CalledRun, questions: list[dict[str, Any]]) -> Asked | Done:
        """Return what to ask: all questions, or the first of them where each answer continues the run at once."""
        if not caller.envelope.may("elicitation"):
            return Done(error_result(_cannot_ask(run.thread_id, questions), run.about))
        asked = questions if caller.envelope.stateless else questions[:1]
        return Asked({one["id"]: ask_of(one) for one in asked}, [str(run.thread_id), str(run.run_id)])

    async def _continue(self, caller: Caller, call: Named, structured: bool) -> Reply:
        thread_id, run_id = map(UUID, call.state)
        self._gateway.streams.admit(caller.principal.holder)
        newest = await self._gateway.runs.continued(caller.principal, thread_id, run_id)
        run = CalledRun(thread_id, newest.run_id, structured)
        if newest.run_id != run_id or not newest.questions:  # answered before, here or on another wire
            return self._following(caller, run)
        try:
            answered = await self._answer(caller, thread_id, newest, call.answers)
        except Declined:
            words = f"The person gave no answer. The question stays open on thread {thread_id}."
            return Done(error_result(words, run.about))
        except (Invalid, ValueError) as error:
            asked = self._asked(caller, run, newest.questions)
            return asked if isinstance(asked, Done) else _with_problem(asked, str(error))
        if answered is None:
            return self._asked(caller, run, newest.questions)
        return self._following(caller, run._replace(run_id=answered))

    async def _answer(
        self, caller: Caller, thread_id: UUID, run: ContinuedRun, responses: Mapping[str, Any]
    ) -> UUID | None:
        """Resume a run with the ``responses`` to its questions; return the new run, None if no response is for it.

        Raises ``Declined``, ``ValueError``, and what accepting a run raises.
        """
        answers = {
            question["id"]: answer_of(question, responses[question["id"]])
            for question in run.questions or ()
            if question["id"] in responses
        }
        if not answers:
            return None
        await caller.gate.start_run()
        body = RunCreate(
            assistant_id=str(run.assistant_id),
            command=CommandBody(resume=answers),
            stream_mode=OBSERVABLE,
            metadata={"protocol": "mcp"},
        )
        accepted = await self._gateway.runs.create(caller.principal, thread_id, body)
        return accepted.run_id

    async def respond(self, caller: Caller, state: Any, key: str, response: Any) -> None:
        """Answer one question of a call that continues. A response that does not answer it leaves it open."""
        thread_id, run_id = map(UUID, state)
        newest = await self._gateway.runs.continued(caller.principal, thread_id, run_id)
        with contextlib.suppress(Declined, ValueError):
            await self._answer(caller, thread_id, newest, {key: response})

    async def cancel(self, caller: Caller, request_id: str | int) -> None:
        """Cancel the call with that id of the caller's session."""
        key = IdempotencyKey(f"mcp {caller.envelope.session}", str(request_id), b"")
        found = await self._gateway.runs.find(caller.principal, key) if caller.envelope.session else None
        if found is not None:
            await self._cancel(caller, *found)

    async def _cancel(self, caller: Caller, thread_id: UUID, run_id: UUID) -> None:
        caller.gate.need(WRITE)
        principal = caller.principal
        newest = await self._gateway.runs.continued(principal, thread_id, run_id)
        with contextlib.suppress(NotFound):  # it has ended
            await self._gateway.runs.cancel(principal, thread_id, newest.run_id, action="interrupt", wait=False)

    async def task(self, caller: Caller, task_id: str) -> dict[str, Any]:
        """Return the task of a call: the state of its run, or of the run that continues it."""
        runs = self._gateway.runs
        thread_id, run_id = task_of(task_id)
        run = await runs.continued(caller.principal, thread_id, run_id)
        state = state_of_task(task_id, run, runs.log_hours)
        if state["status"] == "input_required":
            return {**state, **_asks_in(caller, thread_id, run.questions or ())}
        if state["status"] != "completed":
            return state
        await runs.check_log(caller.principal, thread_id, run.run_id)
        structured = await self._is_structured(caller.principal, run.assistant_id)
        collector = ResultCollector(structured)
        async with contextlib.aclosing(runs.events(caller.principal, run.run_id)) as batches:
            async for events in batches:
                for event in events:
                    for _ in collector.add(event):
                        pass
        if collector.ended is None:
            raise Unavailable("The server is stopping; try again.", retry_after=1)
        return {**state, "result": collector.result(CalledRun(thread_id, run.run_id, structured).about)}

    async def _is_structured(self, principal: Principal, assistant_id: UUID) -> bool:
        try:
            agent, _ = await self._gateway.assistants.agent(principal, str(assistant_id))
        except NotFound:  # the agent is no longer configured
            return False
        return _output_schema(agent.schemas().get("output_schema")) is not None

    async def update_task(self, caller: Caller, task_id: str, answers: Mapping[str, Any]) -> None:
        """Answer questions of a task; those of its questions that have no answer stay open."""
        thread_id, run_id = task_of(task_id)
        run = await self._gateway.runs.continued(caller.principal, thread_id, run_id)
        try:
            await self._answer(caller, thread_id, run, answers)
        except Declined:
            pass
        except ValueError as error:
            raise RpcError(INVALID_PARAMS, str(error)) from error

    async def cancel_task(self, caller: Caller, task_id: str) -> None:
        """Cancel what a task runs; a question stays open."""
        await self._cancel(caller, *task_of(task_id))

    async def follow_task(self, caller: Caller, task_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """Yield the task at each change of its status."""
        runs, principal = self._gateway.runs, caller.principal
        thread_id, run_id = task_of(task_id)
        while True:
            task = await self.task(caller, task_id)
            yield task
            if ended(task):
                return
            newest = (await runs.continued(principal, thread_id, run_id)).run_id
            if task["status"] == "input_required":
                if await runs.answered(principal, thread_id, newest) is None:
                    return
                continue
            async with contextlib.aclosing(runs.events(principal, newest)) as batches:
                async for events in batches:
                    if not events:
                        return  # the process stops


def _run_of(principal: Principal, assistant: str, arguments: Mapping[str, Any]) -> tuple[RunCreate | None, UUID]:
    """Return the run of a call, None without input, and its thread."""
    given, named = arguments.get("input"), arguments.get("thread_id")
    thread_id = thread_id_of(principal, named) if isinstance(named, str) and named else new_id()
    if given in (None, ""):
        return None, thread_id
    value = {"messages": [{"type": "human", "content": given}]} if isinstance(given, str) else given
    body = RunCreate(
        assistant_id=assistant,
        input=value,
        stream_mode=OBSERVABLE,
        if_not_exists="create",
        metadata={"protocol": "mcp"},
    )
    return body, thread_id


def _cannot_ask(thread_id: UUID, questions: Sequence[dict[str, Any]]) -> str:
    words = "; ".join(ask_of(question).params["message"] for question in questions)
    return (
        f"The agent waits for a person's answer, and this client cannot ask: it lacks elicitation. Question: {words} "
        f"Answer on thread {thread_id}, in the console or by the API."
    )


def _asks_in(caller: Caller, thread_id: UUID, questions: Sequence[dict[str, Any]]) -> dict[str, Any]:
    """Return what a task that waits says: forms, or where to answer if the client has none."""
    if not caller.envelope.may("elicitation"):
        return {"inputRequests": {}, "statusMessage": _cannot_ask(thread_id, questions)}
    asks = {question["id"]: ask_of(question) for question in questions}
    return {"inputRequests": {key: {"method": ask.method, "params": ask.params} for key, ask in asks.items()}}


def _with_problem(asked: Asked, problem: str) -> Asked:
    asks = {
        key: ask._replace(params={**ask.params, "message": f"{problem}\n{ask.params['message']}"})
        for key, ask in asked.asks.items()
    }
    return asked._replace(asks=asks)


def _is_conversation(schema: Any) -> bool:
    return not isinstance(schema, dict) or "messages" in (schema.get("properties") or {})


def _input_schema(schema: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the schema of the argument ``input``, and the definitions that it refers to."""
    if _is_conversation(schema):
        return {"type": "string", "description": "What to say to the agent."}, {}
    return {name: value for name, value in schema.items() if name != "$defs"}, schema.get("$defs") or {}


def _output_schema(schema: Any) -> dict[str, Any] | None:
    """Return the schema of an agent's values; None for a conversation. A run need not set them all."""
    if _is_conversation(schema) or schema.get("type") != "object":
        return None
    return {name: value for name, value in schema.items() if name != "required"}
