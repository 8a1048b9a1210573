"""Operations of A2A on the runs of one agent, for both bindings."""

import asyncio
import base64
import contextlib
from collections.abc import AsyncGenerator
from datetime import datetime
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from app.base.errors import Conflict, Gone, Invalid, NotFound
from app.base.ids import new_id, time_of
from app.base.offload import MAX_ANSWER_BYTES, body_bytes, offload
from app.engine.structs import CommandBody, RunCreate
from app.features.access.idempotency import fingerprint_of, route_of
from app.features.runs.chain import ChainFilter, RunChain
from app.features.threads.structs import StateUpdate
from app.features.webhooks.push import PushTarget
from app.infra.wires.a2a import (
    ListTasksParams,
    Message,
    PushAuthentication,
    PushConfig,
    SendMessageParams,
    Task,
    TaskPage,
    uuid_of,
)
from app.protocols.a2a.card import Described
from app.protocols.a2a.content import answer_in, blocks_of, check_parts, parts_of
from app.protocols.a2a.errors import TaskNotCancelable, TaskNotFound, UnsupportedOperation
from app.protocols.a2a.projection import TaskProjection
from app.protocols.a2a.tasks import METADATA, STATUSES, TERMINAL, WAITING, context_of, state_in, task_of
from app.protocols.gateway import OBSERVABLE, ProtocolGateway
from app.protocols.live_runs import stop_run
from app.protocols.questions import approval, is_sign_in, kind_of
from app.protocols.threads import thread_id_of
from app.security.access.structs import Principal
from app.security.idempotency.structs import IdempotencyKey, ReplayedResponse

MAX_PAGE = 100
DEFAULT_PAGE = 50
MAX_HISTORY = 1_000
MAX_STORED_PARTS = 16 * 1024
"""Bytes of an answer that are stored as they came, to be shown in the task's history."""

MAX_TOKEN_LENGTH = 200
"""Characters of a page token: it is a time and an id."""

BLOCK_SECONDS = 55.0
"""The longest wait of a SendMessage for its task; then it returns the task in progress."""

RECHECK_SECONDS = 5.0
"""Seconds after which a subscriber of a waiting task looks again whether it still waits."""

YES = {"approve", "approved", "accept", "yes", "y", "ok", "true"}
NO = {"reject", "rejected", "deny", "denied", "no", "n", "false"}
"""Texts that answer a request for approval."""
DONE = YES | {"done"}
"""Texts that say that a person has signed in."""

_encode = msgspec.json.Encoder().encode


class Accepted(NamedTuple):
    """A message that was accepted: ``run_id`` works on the task ``task_id``."""

    task_id: UUID
    thread_id: UUID
    run_id: UUID


class AgentTasks:
    """Tasks of an agent for one caller. ``assistant`` is what the client calls it: a name or an id."""

    def __init__(
        self, gateway: ProtocolGateway, principal: Principal, assistant: str, assistant_id: UUID, agent: str
    ) -> None:
        self.gateway = gateway
        self.principal = principal
        self._assistant = assistant
        self._assistant_id = assistant_id
        self._agent = agent
        self._route = route_of(f"A2A {assistant_id}", principal)

    @classmethod
    async def of(cls, gateway: ProtocolGateway, principal: Principal, assistant: str) -> "AgentTasks":
        """Return the tasks of an agent, or assistant. Raises ``NotFound``."""
        try:
            owned = await gateway.assistants.reach(principal, assistant)
            assistant_id, agent = await gateway.assistants.resolve(principal.tenant_id, assistant, owned)
        except Invalid as error:
            known = ", ".join(gateway.assistants.names())
            raise NotFound(f"No agent {assistant[:200]!r}: use one of {known}.") from error
        return cls(gateway, principal, assistant, assistant_id, agent)

    async def described(self) -> Described:
        """Return what the agent's extended card says of it."""
        found = await self.gateway.assistants.get(self.principal, self._assistant_id)
        agent = self.gateway.assistants.agent_named(self._agent)
        inherited = "" if agent is None else agent.description
        return Described(self._assistant, found.name, found.description or inherited)

    def _takes_messages(self) -> bool:
        agent = self.gateway.assistants.agent_named(self._agent)
        schema = {} if agent is None else agent.schemas().get("input_schema") or {}
        return "messages" in schema.get("properties", {"messages": {}})

    async def chain(self, task_id: str, *, requests: bool = True) -> RunChain:
        """Return the runs of a task. Raises ``TaskNotFound``."""
        run_id = uuid_of(task_id)
        try:
            if run_id is None:
                raise NotFound
            chain = await self.gateway.chains.get(self.principal, run_id, requests=requests)
        except NotFound:
            raise _unknown() from None
        if chain.first.assistant_id != self._assistant_id:
            raise _unknown()
        return chain

    async def get(self, task_id: str, history_length: int | None = None) -> Task:
        """Return a task. Raises ``TaskNotFound``."""
        return await self._shown(await self.chain(task_id, requests=history_length != 0), history_length)

    async def _shown(self, chain: RunChain, history_length: int | None = None) -> Task:
        if history_length is not None and history_length < 0:
            raise Invalid.at("historyLength must be 0 or more.", "/historyLength")
        return task_of(chain, await self.gateway.chains.values(self.principal, chain), history_length=history_length)

    async def page(self, wanted: ListTasksParams) -> TaskPage:
        """Return a page of tasks, the last changed first. Raises ``Invalid``."""
        size = DEFAULT_PAGE if wanted.page_size is None else wanted.page_size
        if not 1 <= size <= MAX_PAGE:
            raise Invalid.at(f"pageSize must be from 1 to {MAX_PAGE}.", "/pageSize")
        statuses, waiting = STATUSES[wanted.status] if wanted.status else (None, None)
        if statuses == "":
            return TaskPage(tasks=[], next_page_token="", page_size=size, total_size=0)
        page = await self.gateway.chains.page(
            self.principal,
            ChainFilter(
                assistant_id=self._assistant_id,
                thread_id=None if not wanted.context_id else thread_id_of(self.principal, wanted.context_id),
                statuses=() if statuses is None else tuple(statuses.split()),
                waiting=waiting,
                since=wanted.status_timestamp_after,
                before=_cursor(wanted.page_token),
                limit=size,
            ),
            requests=wanted.history_length != 0,
        )
        tasks: list[Task] = []
        sent, length = 0, 0
        for chain in page.chains:
            values = await self.gateway.chains.values(self.principal, chain) if wanted.include_artifacts else None
            shown = task_of(chain, values, history_length=wanted.history_length, artifacts=wanted.include_artifacts)
            length += len(_encode(shown))
            if tasks and length > MAX_ANSWER_BYTES:  # the next page has the rest
                break
            sent += 1
            if wanted.status in {None, shown.status.state}:
                tasks.append(shown)
        more = page.more or sent < len(page.chains)
        token = _token(page.chains[sent - 1]) if more and sent else ""
        return TaskPage(tasks=tasks, next_page_token=token, page_size=size, total_size=page.total)

    async def cancel(self, task_id: str) -> Task:
        """Cancel a task, and return it. Raises ``TaskNotFound``, ``TaskNotCancelable``."""
        chain = await self.chain(task_id)
        state = state_in(chain)
        if state in TERMINAL:
            raise TaskNotCancelable(f"The task has ended: its state is {state}.")
        last = chain.last
        if state in WAITING:
            await self._withdraw_questions(last.thread_id)
        else:
            await stop_run(self.gateway, self.principal, last.thread_id, last.run_id, wait=True)
        await self.gateway.chains.forget_keys(self.principal, chain, self._route)
        return await self.get(task_id)

    async def _withdraw_questions(self, thread_id: UUID) -> None:
        """End the thread's unfinished work, so that nothing waits for answers."""
        try:
            await self.gateway.threads.update_state(self.principal, thread_id, StateUpdate(as_node="__end__"))
        except Conflict as error:
            raise TaskNotCancelable("The task continues with an answer: cancel it again.") from error

    async def accept(self, given: SendMessageParams) -> Accepted:
        """Start or continue a task with a message: committed when this returns.

        A message that came before with the same id and content finds its task. Raises ``Invalid``, ``TaskNotFound``,
        ``ContentTypeNotSupported``, ``UnsupportedOperation`` for a task that takes no message.
        """
        wanted = given.configuration and given.configuration.task_push_notification_config
        if wanted:
            self.gateway.push.check(wanted.url, wanted.id)
        accepted = await self._accept(given)
        if wanted:
            await self._configure(wanted, accepted.thread_id, accepted.task_id, ended=accepted.run_id)
        return accepted

    async def _accept(self, given: SendMessageParams) -> Accepted:
        message = given.message
        if message.role != "ROLE_USER" or not message.message_id:
            raise Invalid.at("A message has a messageId and the role ROLE_USER.", "/message/role")
        if message.task_id:
            return await self._continue(given)
        blocks = await offload(body_bytes.get(), blocks_of, message)
        input_id = str(new_id())
        thread_id = thread_id_of(self.principal, message.context_id) if message.context_id else new_id()
        body = RunCreate(
            assistant_id=self._assistant,
            input=self._input(message, blocks, input_id),
            stream_mode=OBSERVABLE,
            if_not_exists="create",
            metadata=_metadata(given, inputId=input_id, contextId=message.context_id),
        )
        accepted = await self.gateway.runs.create(self.principal, thread_id, body, await self._key(message))
        return Accepted(accepted.run_id, accepted.thread_id, accepted.run_id)

    def _input(self, message: Message, blocks: Any, input_id: str) -> Any:
        """Return the input of a run: a message, or the data of a message for an agent with an input of its own."""
        data = [part.data for part in message.parts if isinstance(part.data, dict)]
        if len(data) == len(message.parts) == 1 and not self._takes_messages():
            return data[0]
        return {"messages": [{"type": "human", "id": input_id, "content": blocks}]}

    async def _continue(self, given: SendMessageParams) -> Accepted:
        message = given.message
        chain = await self.chain(message.task_id or "", requests=False)
        first, last = chain.first, chain.last
        if message.context_id and thread_id_of(self.principal, message.context_id) != first.thread_id:
            raise Invalid.at("The task belongs to another context: leave contextId out.", "/message/contextId")
        await offload(body_bytes.get(), check_parts, message)
        if not message.parts:
            raise Invalid.at("The message is empty: give it at least one part.", "/message/parts")
        key, state = await self._key(message), state_in(chain)
        if state not in WAITING:
            known = await self.gateway.runs.find(self.principal, key)
            if known is not None and known[1] in {run.run_id for run in chain.runs}:
                return Accepted(first.run_id, first.thread_id, last.run_id)
            raise UnsupportedOperation(
                f"The task has ended ({state}): send the message without taskId, with contextId {context_of(chain)}."
                if state in TERMINAL
                else "The task is working and takes no message now: wait until it asks, or cancel it."
            )
        body = RunCreate(
            assistant_id=self._assistant,
            command=CommandBody(resume=_answer(chain, message)),
            stream_mode=OBSERVABLE,
            metadata=_metadata(given, parts=await offload(body_bytes.get(), _stored, message)),
        )
        try:
            accepted = await self.gateway.runs.create(self.principal, first.thread_id, body, key)
        except Conflict as error:
            raise UnsupportedOperation("Another message answered meanwhile: read the task.") from error
        if not isinstance(accepted, ReplayedResponse):
            chains = self.gateway.chains
            await chains.forget_keys(self.principal, chain, self._route, but=accepted.run_id)
        return Accepted(first.run_id, first.thread_id, accepted.run_id)

    async def _key(self, message: Message) -> IdempotencyKey:
        """Return the idempotency key of a message: what it says is part of it, so that an id may come again."""
        what = [message.message_id, message.context_id, message.task_id, message.parts]
        said = await offload(body_bytes.get(), _encode, what)
        fingerprint = await fingerprint_of(said)
        return IdempotencyKey(self._route, fingerprint.hex(), fingerprint)

    async def configure(self, given: PushConfig) -> PushConfig:
        """Store the address to which changes of a task are sent. Raises ``Invalid``, ``TaskNotFound``."""
        chain = await self.chain(given.task_id or "", requests=False)
        return await self._configure(given, chain.first.thread_id, chain.first.run_id)

    async def _configure(
        self, given: PushConfig, thread_id: UUID, task_id: UUID, *, ended: UUID | None = None
    ) -> PushConfig:
        await self.principal.permit("threads", "update", thread_id=thread_id)
        shown = given.authentication
        scheme, credentials = (None, None) if shown is None else (shown.scheme, shown.credentials)
        config_id = self.gateway.push.check(given.url, given.id, given.token, scheme, credentials)
        target = PushTarget(
            url=given.url, config_id=config_id, token=given.token, scheme=scheme, credentials=credentials
        )
        await self.gateway.push.put(self.principal.tenant_id, thread_id, task_id, target, ended=ended)
        return _config(target, str(task_id))

    async def configured(self, task_id: str, config_id: str | None = None) -> list[PushConfig]:
        """Return the push configurations of a task, or the one named. Raises ``TaskNotFound``."""
        first = (await self.chain(task_id, requests=False)).first
        found = await self.gateway.push.list(self.principal.tenant_id, first.thread_id, first.run_id)
        configs = [_config(one, str(first.run_id)) for one in found if config_id in {None, one.config_id}]
        if config_id is not None and not configs:
            raise TaskNotFound("The task has no such push configuration: list them.")
        return configs

    async def forget(self, task_id: str, config_id: str) -> None:
        """Delete a push configuration, if it exists. Raises ``TaskNotFound``."""
        first = (await self.chain(task_id, requests=False)).first
        await self.principal.permit("threads", "update", thread_id=first.thread_id)
        await self.gateway.push.delete(self.principal.tenant_id, first.thread_id, first.run_id, config_id)

    async def settled(self, accepted: Accepted) -> None:
        """Wait until the run has ended, or for ``BLOCK_SECONDS``."""
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(BLOCK_SECONDS):
                result = await self.gateway.runs.result(self.principal, accepted.thread_id, accepted.run_id)
                result.release()

    async def answer(self, accepted: Accepted, history_length: int | None) -> dict[str, Any]:
        """Return the answer to a message: its task, or the agent's message where the agent wants no task."""
        chain = await self.chain(str(accepted.task_id), requests=history_length != 0)
        values = await self.gateway.chains.values(self.principal, chain)
        direct = _direct_message(chain, values)
        if direct is not None:
            return {"message": direct}
        return {"task": task_of(chain, values, history_length=history_length)}

    async def updates(self, accepted: Accepted) -> AsyncGenerator[bytes, None]:
        """Yield chunks of events: the task as it was before the run, then what the run says."""
        chain = await self.chain(str(accepted.task_id))
        async for chunk in self._follow(chain, accepted.run_id):
            yield chunk

    async def subscription(self, task_id: str) -> AsyncGenerator[bytes, None]:
        """Return the events of a task from now on. Raises ``TaskNotFound``, ``UnsupportedOperation``."""
        chain = await self.chain(task_id)
        state = state_in(chain)
        if state in TERMINAL:
            raise UnsupportedOperation(f"The task has ended ({state}): read it with GetTask.")
        return self._await_answer(chain) if state in WAITING else self._follow(chain, chain.last.run_id)

    async def _await_answer(self, chain: RunChain) -> AsyncGenerator[bytes, None]:
        """Yield a task that waits; then, once it is answered, what the next run says."""
        yield _frame({"task": await self._shown(chain)})
        task_id, asked_by, ordinal = str(chain.first.run_id), chain.last.run_id, chain.last.ordinal + 1
        while state_in(chain) in WAITING:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RECHECK_SECONDS):
                    ordinal = await self._next_start(chain.first.thread_id, ordinal) + 1
            chain = await self.chain(task_id)
        if chain.last.run_id != asked_by:
            async for chunk in self._follow(chain, chain.last.run_id, first=False):
                yield chunk
            return
        shown = await self._shown(chain, 0)
        yield _frame({"statusUpdate": {"taskId": shown.id, "contextId": shown.context_id, "status": shown.status}})

    async def _next_start(self, thread_id: UUID, ordinal: int) -> int:
        """Wait for the first started run of a thread from ``ordinal`` on; return its ordinal.

        Raises ``Unavailable`` if the server stops, ``TaskNotFound`` if the thread was deleted.
        """
        async with contextlib.aclosing(self.gateway.runs.started_runs(self.principal, thread_id, ordinal)) as runs:
            async for found, _ in runs:
                return found
        self.gateway.runs.check_open()
        raise _unknown()

    async def _follow(self, chain: RunChain, run_id: UUID, *, first: bool = True) -> AsyncGenerator[bytes, None]:
        """Yield the task as it was before the run, if it comes ``first``; then what the run says."""
        at = next((n for n, run in enumerate(chain.runs) if run.run_id == run_id), len(chain.runs) - 1)
        before = RunChain(chain.runs[:at])
        try:
            await self.gateway.runs.check_log(self.principal, chain.first.thread_id, run_id)
        except Gone:
            yield _frame({"task": await self._shown(chain)})
            return
        if first:
            run = chain.runs[at]
            status = "pending" if run.status == "pending" else "running"
            began = time_of(str(run_id)) or run.updated_at
            live = msgspec.structs.replace(
                run, status=status, waiting=False, error=None, interrupts=None, updated_at=began
            )
            values = await self.gateway.chains.values(self.principal, before) if before.runs else {}
            yield _frame({"task": task_of(RunChain([*before.runs, live]), values)})
        task_id, context_id = str(chain.first.run_id), context_of(chain)
        chunks = self.gateway.projections.follow(
            self.principal, run_id, ("a2a", task_id), lambda: TaskProjection(task_id, context_id)
        )
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                yield chunk


def _config(target: PushTarget, task_id: str) -> PushConfig:
    """Return a configuration as clients see it: without the credentials, which only the receiver needs."""
    shown = None if target.scheme is None else PushAuthentication(scheme=target.scheme)
    return PushConfig(url=target.url, id=target.config_id, task_id=task_id, token=target.token, authentication=shown)


def _unknown() -> TaskNotFound:
    return TaskNotFound("This agent has no such task, or it is another user's: check its id.")


def _metadata(given: SendMessageParams, **own: Any) -> dict[str, Any]:
    """Return the metadata of a run: what the protocol knows of its message, and what the client adds."""
    message = given.message
    about: dict[str, Any] = {
        "messageId": message.message_id,
        "extensions": message.extensions,
        "referenceTaskIds": message.reference_task_ids,
        "metadata": {**(given.metadata or {}), **(message.metadata or {})} or None,
        **own,
    }
    return {"protocol": "a2a", METADATA: {name: one for name, one in about.items() if one is not None}}


def _stored(message: Message) -> Any:
    parts = msgspec.to_builtins(message.parts)
    return parts if len(_encode(parts)) <= MAX_STORED_PARTS else None


def _answer(chain: RunChain, message: Message) -> Any:
    """Return what a message answers to the open questions: words decide a single one, data may answer each by its id.

    Raises ``Invalid`` for words that decide no approval.
    """
    answer = answer_in(message.parts)
    questions = chain.last.interrupts or []
    if not isinstance(answer, str) or len(questions) != 1:
        return answer
    word, value = answer.strip().rstrip(".!").lower(), questions[0].get("value")
    if is_sign_in(value) and word in DONE | NO:
        return {"action": "accept" if word in DONE else "decline"}
    if kind_of(value) != "approval":
        return answer
    if word not in YES | NO:
        raise Invalid.at(
            "The task waits for an approval: answer approve or reject, or send the decisions as data.", "/message/parts"
        )
    return {questions[0]["id"]: approval(value, word in YES)}


def _direct_message(chain: RunChain, values: dict[str, Any]) -> Message | None:
    """Return the agent's last message if it says that it is an answer without a task.

    An agent marks it by ``response_metadata={"a2a": "message"}``.
    """
    messages = values.get("messages")
    last = messages[-1] if isinstance(messages, list) and messages else None
    if chain.last.status != "success" or not isinstance(last, dict) or last.get("type") != "ai":
        return None
    if (last.get("response_metadata") or {}).get(METADATA) != "message":
        return None
    parts, message_id = parts_of(last.get("content")), str(last.get("id"))
    return Message(message_id=message_id, role="ROLE_AGENT", parts=parts, context_id=context_of(chain))


def _frame(event: dict[str, Any]) -> bytes:
    return b"data: %b\n\n" % _encode(event)


def _token(chain: RunChain) -> str:
    text = f"{chain.last.updated_at.isoformat()} {chain.last.run_id}"
    return base64.urlsafe_b64encode(text.encode()).decode()


def _cursor(token: str) -> tuple[datetime, UUID] | None:
    if not token:
        return None
    try:
        if len(token) > MAX_TOKEN_LENGTH:
            raise ValueError
        text, _, run_id = base64.urlsafe_b64decode(token.encode()).decode().partition(" ")
        at = datetime.fromisoformat(text)
        if at.tzinfo is None:
            raise ValueError
        return at, UUID(run_id)
    except ValueError as error:
        raise Invalid.at("Invalid pageToken: send the nextPageToken of the page before.", "/pageToken") from error
