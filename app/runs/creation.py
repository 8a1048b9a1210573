"""A request for a run → the entry to accept, with everything in it checked."""

import re
from collections.abc import Callable
from typing import Any, NamedTuple
from uuid import UUID

import msgspec

from app.access.structs import Note, Owned, Principal
from app.agents.port import END_NODE, Agent, Agents
from app.assistants.service import AssistantService
from app.base.bulk import body_bytes, offload
from app.base.errors import BadRequest, Invalid, NotFound
from app.base.ids import agent_id, new_id, origin_id
from app.db.engine import Database
from app.domain.lifecycle import RunStatus
from app.egress.addresses import Allowed, check_url
from app.runs import queries
from app.runs.entries import Accept, Claimed
from app.runs.structs import NodeNames, Run, RunCreate, RunRequest, goto_nodes, kwargs_of
from app.telemetry.context import here

_INTERRUPT_ID = re.compile(r"[0-9a-f]{32}")

encode = msgspec.json.Encoder().encode


class Asker(NamedTuple):
    """Who asks for a run, where the operator's handlers tell: what is ``owned`` of threads and of assistants.

    ``user_id``: the person whom an API key or a token names.
    """

    owned: Owned = None
    user: dict[str, Any] | None = None
    assistants: Owned = None
    user_id: str = ""


NOBODY = Asker()
"""Where everything of the tenant is in reach."""


class Creation:
    """Reads what clients ask for. ``owner`` gives the token for a run whose turn comes at once, if it can live here."""

    def __init__(
        self,
        database: Database,
        assistants: AssistantService,
        agents: Agents,
        owner: Callable[[], UUID | None],
        allowed: Allowed = Allowed(),
    ) -> None:
        """``allowed``: what webhooks may name beside public addresses."""
        self._allowed = allowed
        self._database = database
        self._assistants = assistants
        self._agents = agents
        self._owner = owner

    async def reach(self, who: Principal, thread_id: UUID | None, body: RunCreate) -> tuple[Asker, RunCreate]:
        """Who asks for a run and how far he reaches, and what he asks for then. Raises ``Forbidden``, ``Refused``."""
        if who.rules is None:
            return Asker(user_id=who.user_id), body
        about = {
            "thread_id": thread_id,
            "assistant_id": self._named(body.assistant_id),
            "run_id": None,
            "status": "pending",
            "prevent_insert_if_inflight": body.multitask_strategy == "reject",
            "multitask_strategy": body.multitask_strategy or "enqueue",
            "if_not_exists": body.if_not_exists or "reject",
            "after_seconds": body.after_seconds or 0,
            "kwargs": msgspec.to_builtins({name: getattr(body, name) for name in ("input", "config", "context")}),
        }
        owned, metadata = await who.stamp("threads", "create_run", body.metadata, **about)
        assistants = await self._assistants.reach(who, body.assistant_id)
        return Asker(owned, who.rules.user, assistants), msgspec.structs.replace(body, metadata=metadata)

    def _named(self, assistant: str) -> UUID | str:
        if self._agents.get(assistant) is not None:
            return agent_id(assistant)
        try:
            return UUID(assistant)
        except ValueError:
            return assistant

    async def entry(self, tenant_id: UUID, thread_id: UUID | None, body: RunCreate, by: Asker = NOBODY) -> Accept:
        """The run to accept. Raises ``BadRequest``, ``Invalid``, ``NotFound``; nothing is written."""
        body.check()
        if body.webhook is not None:
            _check_webhook(body.webhook, self._allowed)
        if thread_id is None and body.command is not None:
            raise BadRequest("You must provide a thread_id when resuming.")
        fork = body.fork(thread_id)
        assistant_id, agent_name = await self._assistants.resolve(tenant_id, body.assistant_id, by.assistants)
        run_id = new_id()
        agent = self._agents.get(agent_name)
        if agent is not None:
            await offload(body_bytes.get(), _check, body, agent, run_id)
        answers: dict[str, Any] = {}
        parent_id: UUID | None = None
        if thread_id is not None and (fork is not None or _resumes(body)):
            answers, parent_id = await self._continued(tenant_id, thread_id, body, fork, by.owned)
        temporary = thread_id is None and body.on_completion != "keep"
        request = RunRequest.of(body, temporary=temporary, fork=fork, answers=answers, user=by.user, user_id=by.user_id)
        return Accept(
            tenant_id=tenant_id,
            thread_id=thread_id or new_id(),
            run_id=run_id,
            assistant_id=assistant_id,
            request=await offload(body_bytes.get(), encode, request),
            metadata=encode(body.metadata or {}),
            strategy=body.multitask_strategy or "enqueue",
            create_thread=thread_id is None or body.if_not_exists == "create",
            temporary=temporary,
            owner=self._owner(),
            delay=body.after_seconds or 0.0,
            parent_id=parent_id,
            strict=bool(body.strict_resume) and _resumes(body),
            webhook=body.webhook,
            agent=agent_name,
            traceparent=None if (place := here.get()) is None else place.traceparent,
            owned=by.owned,
            stamped=by.user is not None,
        )

    async def _continued(
        self, tenant_id: UUID, thread_id: UUID, body: RunCreate, fork: UUID | None, owned: Owned
    ) -> tuple[dict[str, Any], UUID | None]:
        """The answers that ``body`` brings, by interrupt id, and the run that asked."""
        async with self._database.reading(tenant_id, owned) as session:
            row = await queries.waiting(session, tenant_id, thread_id, fork)
        if row is None or not (fork is None or row.forks or fork == origin_id(thread_id)):
            if row is None and body.if_not_exists == "create" and fork is None:
                return {}, None
            raise NotFound(
                f"Thread with ID {thread_id} not found"
                if row is None
                else f"Checkpoint {fork} not found in thread {thread_id}"
            )
        if not _resumes(body):
            return {}, None
        assert body.command is not None
        waiting = [one["id"] for many in (row.interrupts or {}).values() for one in many]
        return answers_of(body.command.resume, waiting), row.last_run if waiting else None


def answers_of(resume: Any, waiting: list[str]) -> dict[str, Any]:
    """Interrupt id → answer. Raises ``Invalid`` for one answer to several questions.

    An object whose members are all named by ids is taken as answers by id; ids that do not wait are kept, as they are
    good for their own question alone.
    """
    if isinstance(resume, dict) and resume and all(_INTERRUPT_ID.fullmatch(key) for key in resume):
        return resume
    if len(waiting) > 1:
        raise Invalid(
            f"{len(waiting)} interrupts wait: answer each by its id, as {{id: answer}}. They are {', '.join(waiting)}.",
            (("/command/resume", "needs ids"),),
        )
    return {waiting[0]: resume} if waiting else {}


def answer_of(who: Principal, asked_by: UUID, body: RunCreate) -> Note:
    """For the audit log: who answered the questions of which run, and how, where the answer has a name for it."""
    resume = body.command.resume if body.command is not None else None
    answers = list(resume.values()) if isinstance(resume, dict) and "action" not in resume else [resume]
    words = [one.get("action") or one.get("type") for one in answers if isinstance(one, dict)]
    named = sorted({word for word in words if isinstance(word, str) and word.isidentifier() and len(word) <= 20})
    return Note(who.tenant_id, "review.answered", who.actor, " ".join([f"run {asked_by}", *named]))


def created(claimed: Claimed) -> Run:
    """The run just accepted, as clients see it."""
    return Run(
        run_id=claimed.run_id,
        thread_id=claimed.thread_id,
        assistant_id=claimed.assistant_id,
        created_at=claimed.created_at,
        updated_at=claimed.created_at,
        status=RunStatus.RUNNING if claimed.started else RunStatus.PENDING,
        metadata=msgspec.Raw(claimed.metadata.encode()),
        kwargs=kwargs_of(claimed.request),
        multitask_strategy=claimed.strategy,
    )


def _check_webhook(url: str, allowed: Allowed) -> None:
    try:
        check_url(url, allowed)
    except ValueError as error:
        raise Invalid(f"The webhook cannot be called: {error}.", (("/webhook", "cannot be called"),)) from error


def _resumes(body: RunCreate) -> bool:
    return body.command is not None and body.command.resume is not msgspec.UNSET


def _check(body: RunCreate, agent: Agent, run_id: UUID) -> None:
    """Raises ``Invalid`` for what ``agent`` cannot take: an input, an update, the name of a node."""
    if body.command is None and body.input is not None:
        agent.read_input(body.input, run_id)
    if body.command is not None and body.command.update is not None:
        agent.read_update(body.command.update, run_id)
    _check_nodes("interrupt_before", body.interrupt_before, agent.nodes)
    _check_nodes("interrupt_after", body.interrupt_after, agent.nodes)
    if body.command is not None and body.command.goto is not None:
        _check_nodes("command/goto", goto_nodes(body.command.goto), (*agent.nodes, END_NODE))


def _check_nodes(field: str, named: NodeNames | None, nodes: tuple[str, ...]) -> None:
    for name in named if isinstance(named, list) else ():
        if name not in nodes:
            raise Invalid(
                f"{field.replace('/', '.')} names {name[:100]!r}, which is no node of this agent: use "
                f"{', '.join(nodes)}.",
                ((f"/{field}", "unknown node"),),
            )
