"""Validate a request for a run and build the entry to accept."""

from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from app.agents.port import END_NODE, AcceptsModelOptions, Agent, Agents, StateWriting
from app.base.errors import BadRequest, Invalid, NotFound
from app.base.ids import agent_id, new_id, origin_id
from app.base.offload import body_bytes, offload
from app.engine.entries import AcceptEntry
from app.engine.execution.questions import OpenQuestion, answers_of
from app.engine.structs import CommandBody, NodeNames, RunCreate, RunRequest, goto_nodes
from app.features.assistants.service import AssistantService
from app.features.runs import queries
from app.infra.db.engine import Database
from app.infra.egress.addresses import AddressAllowlist, check_url
from app.infra.telemetry.trace_context import current_span
from app.security.access.structs import APPROVE, AuditEvent, MetadataFilter, Principal

KNOWN_ACTIONS = {"approve", "edit", "reject", "respond", "retry", "done", "failed", "abort"}
"""Actions that the audit log may name; free text of an answer stays out of it."""

encode = msgspec.json.Encoder().encode


class RunRequester(NamedTuple):
    """The requester of a run: its name in the audit log (``actor``), and whether it may approve tool calls.

    ``owned`` and ``assistants``: metadata filters of threads and assistants, set by custom auth; ``user``: its user.
    ``user_id``: the user of an API key or token. ``internal``: the service itself requests the run.
    """

    owned: MetadataFilter = None
    user: dict[str, Any] | None = None
    assistants: MetadataFilter = None
    user_id: str = ""
    actor: str = ""
    approves: bool = False
    internal: bool = False


class Continuation(msgspec.Struct, frozen=True):
    """What a run resumes with: ``answers`` by key, ids of the questions it closes, the original requester.

    ``fork``: the checkpoint to start from, if not the newest. ``asked_by``: the run that asked the questions.
    """

    fork: UUID | None = None
    answers: dict[str, Any] = {}
    closes: tuple[str, ...] = ()
    asked_by: UUID | None = None
    requested_by: str | None = None


class RunFactory:
    """Build the entries to accept (``AcceptEntry``) from requests.

    ``owner`` returns this process's token, or None if it takes no more runs.
    """

    def __init__(
        self,
        database: Database,
        assistants: AssistantService,
        agents: Agents,
        owner: Callable[[], UUID | None],
        allowed: AddressAllowlist = AddressAllowlist(),
    ) -> None:
        """``allowed``: addresses that webhooks may use in addition to public ones."""
        self._allowed = allowed
        self._database = database
        self.assistants = assistants
        self._agents = agents
        self._owner = owner

    def accepts_options(self, agent: str) -> bool:
        """Whether the agent of this name takes ``model_options``."""
        return isinstance(self._agents.get(agent), AcceptsModelOptions)

    async def reach(
        self, principal: Principal, thread_id: UUID | None, body: RunCreate
    ) -> tuple[RunRequester, RunCreate]:
        """Authorise a request; return its requester and the body with stamped metadata.

        Raises ``Forbidden``, ``Refused``.
        """
        actor, approves = principal.actor, APPROVE in principal.scopes
        if principal.rules is None:
            return RunRequester(user_id=principal.user_id, actor=actor, approves=approves), body
        about = {
            "thread_id": thread_id,
            "assistant_id": self._named(body.assistant_id),
            "run_id": None,
            "status": "pending",
            "prevent_insert_if_inflight": body.multitask_strategy == "reject",
            "multitask_strategy": body.strategy,
            "if_not_exists": body.if_not_exists or "reject",
            "after_seconds": body.after_seconds or 0,
            "kwargs": _shown_to_handlers(body),
        }
        owned, metadata = await principal.stamp("threads", "create_run", body.metadata, **about)
        assistants = await self.assistants.reach(principal, body.assistant_id)
        return RunRequester(
            owned, principal.rules.user, assistants, actor=actor, approves=approves
        ), msgspec.structs.replace(body, metadata=metadata)

    def _named(self, assistant: str) -> UUID | str:
        if self._agents.get(assistant) is not None:
            return agent_id(assistant)
        try:
            return UUID(assistant)
        except ValueError:
            return assistant

    async def entry(
        self, tenant_id: UUID, thread_id: UUID | None, body: RunCreate, by: RunRequester = RunRequester()
    ) -> AcceptEntry:
        """Validate ``body`` and build the entry to accept; writes nothing.

        Raises ``BadRequest``, ``Invalid``, ``NotFound``, and ``Forbidden`` for an answer that ``by`` may not give.
        """
        body.check()
        if body.webhook is not None:
            _check_webhook(body.webhook, self._allowed)
        if thread_id is None and body.command is not None:
            raise BadRequest("You must provide a thread_id when resuming.")
        fork = body.fork(thread_id)
        assistant_id, agent_name = await self.assistants.resolve(
            tenant_id, body.assistant_id, by.assistants, internal=by.internal
        )
        run_id = new_id()
        agent = self._agents.get(agent_name)
        if agent is not None:
            await offload(body_bytes.get(), _check, body, agent, run_id)
        continuation = Continuation(fork)
        if thread_id is not None and (fork is not None or body.resumes):
            continuation = await self._continuation(tenant_id, thread_id, body, fork, by)
        request = RunRequest.of(
            body,
            temporary=thread_id is None and body.on_completion != "keep",
            fork=continuation.fork,
            answers=continuation.answers,
            user=by.user,
            user_id=by.user_id,
        )
        request.requested_by = continuation.requested_by or by.actor or msgspec.UNSET
        return AcceptEntry(
            tenant_id=tenant_id,
            thread_id=thread_id or new_id(),
            run_id=run_id,
            assistant_id=assistant_id,
            request=await offload(body_bytes.get(), encode, request),
            metadata=encode(body.metadata or {}).decode(),
            create_thread=thread_id is None or body.if_not_exists == "create",
            temporary=request.temporary,
            owner=self._owner(),
            delay=body.after_seconds or 0.0,
            parent_id=continuation.asked_by,
            answering=",".join(continuation.closes) if body.resumes else None,
            ends_pause=continuation.fork is None,
            strict=body.resumes and body.strict_resume is not False,
            webhook=body.webhook,
            agent=agent_name,
            traceparent=None if (span := current_span.get()) is None else span.traceparent,
            owned=by.owned,
            stamped=by.user is not None,
            **body.carried(),
        )

    async def _continuation(
        self, tenant_id: UUID, thread_id: UUID, body: RunCreate, fork: UUID | None, by: RunRequester
    ) -> Continuation:
        """Match the answers of ``body`` with open questions; a fork from an older checkpoint has none."""
        async with self._database.reading(tenant_id, by.owned) as session:
            row = await queries.open_questions(session, tenant_id, thread_id, fork)
        if row is None or not (fork is None or row.forks or fork == origin_id(thread_id)):
            if row is None and body.if_not_exists == "create" and fork is None:
                return Continuation()
            raise NotFound(
                f"Thread with ID {thread_id} not found"
                if row is None
                else f"Checkpoint {fork} not found in thread {thread_id}"
            )
        if not body.resumes:
            return Continuation(fork)
        assert body.command is not None
        if fork is not None and fork != row.head:
            return Continuation(fork)
        questions = msgspec.convert(row.questions or [], list[OpenQuestion])
        answers = answers_of(body.command.resume, questions)
        for question, answer, pointer in answers:
            question.check(answer, by.actor, by.approves, pointer)
        first = next((question for question, _, _ in answers), None)
        return Continuation(
            answers={question.key: answer for question, answer, _ in answers},
            closes=tuple(question.id for question, _, _ in answers),
            asked_by=None if first is None else first.run_id or row.last_run,
            requested_by=None if first is None or _changes_state(body.command) else first.requested_by,
        )


def _shown_to_handlers(body: RunCreate) -> dict[str, Any]:
    """Return the ``kwargs`` of a run for handlers: with the objects that they read from, also if the body has none."""
    config = {} if body.config is None else msgspec.structs.asdict(body.config)
    given = {name: value for name, value in config.items() if value is not None}
    return {"input": body.input, "config": {"configurable": {}, **given}, "context": body.context or {}}


def _changes_state(command: CommandBody) -> bool:
    """Return whether an answer also updates the state or moves to a node, which makes its sender the requester."""
    return command.update is not None or (command.goto is not None and bool(goto_nodes(command.goto)))


def answer_event(principal: Principal, asked_by: UUID, body: RunCreate) -> AuditEvent:
    """Build the audit event of an answer: actor, run, and the known actions that the answer names."""
    resume = body.command.resume if body.command is not None else None
    answers: list[Any] = [resume]
    if isinstance(resume, dict) and not {"action", "type", "decisions"} & resume.keys():
        answers = list(resume.values())
    actions = sorted({action for answer in answers for action in _actions(answer)})
    return AuditEvent(principal.tenant_id, "review.answered", principal.actor, " ".join([f"run {asked_by}", *actions]))


def _actions(answer: Any) -> list[str]:
    """Return the known actions that an answer names, in any of its forms."""
    decisions = answer.get("decisions") if isinstance(answer, dict) else None
    if not isinstance(decisions, list):
        decisions = [answer]
    actions = [one.get("action") or one.get("type") if isinstance(one, dict) else one for one in decisions]
    actions = ["approve" if one is True else "reject" if one is False else one for one in actions]
    return [action for action in actions if isinstance(action, str) and action in KNOWN_ACTIONS]


def _check_webhook(url: str, allowed: AddressAllowlist) -> None:
    try:
        check_url(url, allowed)
    except ValueError as error:
        raise Invalid(f"The webhook cannot be called: {error}.", (("/webhook", "cannot be called"),)) from error


def _check(body: RunCreate, agent: Agent, run_id: UUID) -> None:
    """Validate input, update, model options and node names with the agent. Raises ``Invalid``."""
    if body.command is None and body.input is not None:
        agent.read_input(body.input, run_id)
    if body.command is not None and body.command.update is not None:
        agent.read_update(body.command.update, run_id)
    if body.model_options is not None:
        if not isinstance(agent, AcceptsModelOptions):
            raise Invalid(
                f"Agent {agent.name!r} makes its model calls itself: tools, tool_choice and instructions of a request "
                "are for agents with a model in the agents file.",
                (("/model_options", "not accepted by this agent"),),
            )
        agent.check_options(body.model_options)
    _check_nodes("interrupt_before", body.interrupt_before, agent.nodes)
    _check_nodes("interrupt_after", body.interrupt_after, agent.nodes)
    if body.command is not None and body.command.goto is not None:
        _check_nodes("command/goto", goto_nodes(body.command.goto), (*agent.nodes, END_NODE) if agent.nodes else ())
        if not isinstance(agent, StateWriting):
            _check_sends(body.command.goto)


def _check_sends(goto: Any) -> None:
    for target in goto if isinstance(goto, list) else [goto]:
        if isinstance(target, dict) and target.get("input") is not None:
            raise Invalid(
                "goto with an input of its own is for graphs: write the values with command.update.",
                (("/command/goto", "has an input"),),
            )


def _check_nodes(field: str, named: NodeNames | None, nodes: tuple[str, ...]) -> None:
    """Refuse unknown ``nodes``; a graph whose factory needs a run's settings shows none of them."""
    for name in named if nodes and isinstance(named, list) else ():
        if name not in nodes:
            raise Invalid(
                f"{field.replace('/', '.')} names {name[:100]!r}, which is not a node of this agent: use "
                f"{', '.join(nodes)}.",
                ((f"/{field}", "unknown node"),),
            )
