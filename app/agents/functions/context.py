"""The context of a function agent: its API for state, messages, streams, steps and questions."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, overload
from uuid import UUID

import msgspec

from app.agents.functions.conversion import convert, expected, to_builtins
from app.agents.functions.memory_access import DocumentAccess, StoreAccess
from app.agents.functions.messages import to_messages
from app.agents.functions.model_calls import ModelCalls
from app.agents.functions.session import FunctionSession
from app.agents.functions.steps import returned_by, run_step
from app.agents.functions.tool_calls import ToolCaller
from app.agents.functions.values import NamedMemory, ThreadValues
from app.agents.port import Interrupt, interrupt_id
from app.domain.messages import AIMessage, Message

P = ParamSpec("P")
T = TypeVar("T")

KIND = "question"


class RunInfo(msgspec.Struct, frozen=True, kw_only=True):
    """Ids of the run and its caller's settings: ``configurable`` and ``context`` are any JSON members.

    ``metadata``: of the run. What another protocol knows of the message that began it is there, like ``a2a``.
    """

    tenant_id: str
    thread_id: str
    run_id: str
    assistant_id: str
    configurable: dict[str, Any] = {}
    context: dict[str, Any] = {}
    metadata: dict[str, Any] = {}


class Context:
    """The first argument of a function agent.

    ``state``: the thread's values; ``memory``: named values in them; ``store``: the tenant's long-term memory;
    ``documents``: its documents; ``model`` and ``tools``: the agent's own; ``run``: ids of the run.

    A function restarts from its beginning after a crash or an answer. Completed calls of ``model``, ``tools``,
    ``store``, ``step`` and ``interrupt`` then return their recorded results and are not made again.
    """

    def __init__(
        self,
        session: FunctionSession,
        model: ModelCalls,
        tools: ToolCaller,
        store: StoreAccess,
        documents: DocumentAccess,
    ) -> None:
        self._session = session
        self.model = model
        self.tools = tools
        self.store = store
        self.documents = documents
        self.state: ThreadValues = session.values
        self.memory = NamedMemory(session.values)
        run = session.run
        self.run = RunInfo(
            tenant_id=str(run.tenant_id),
            thread_id=str(run.thread_id),
            run_id=str(run.run_id),
            assistant_id=str(run.assistant_id),
            configurable=run.config.configurable,
            context=run.context,
            metadata=msgspec.json.decode(run.instructions.run_metadata),
        )

    @property
    def messages(self) -> list[Message]:
        """The thread's conversation, oldest first, including the input and messages added by ``say``."""
        return self._session.conversation.messages()

    def say(self, *messages: Any) -> None:
        """Add messages with the next step; a text becomes a message of the agent. Raises ``ValueError``."""
        position = self._session.branch().next_position()
        seed = UUID(self._session.journal.begun.run)
        added: list[Message] = []
        for one in messages:
            added += [AIMessage(content=one)] if isinstance(one, str) else to_messages(one, seed)
        self._session.conversation.say(added, position)

    def emit(self, value: Any) -> None:
        """Send ``value`` to ``custom`` streams immediately. Raises ``TypeError`` if it is not valid JSON.

        Values sent before a restart of the function are not sent twice.
        """
        self._session.emit(value)

    @overload
    async def interrupt(self, question: Any) -> Any: ...
    @overload
    async def interrupt(self, question: Any, kind: type[T]) -> T: ...

    async def interrupt(self, question: Any, kind: Any = Any) -> Any:
        """Ask a person ``question`` (any JSON) and return the answer, converted to ``kind``.

        Without an answer the run ends here, as interrupted; the run that brings the answer restarts the function. Ask
        the same question each time. An answer that does not match the schema of ``kind`` is rejected when it is sent,
        and the question stays open. Raises ``ValueError`` if an answer matches the schema but cannot be converted.
        """
        session = self._session
        branch, at = session.enter()
        value = to_builtins(question)
        id_ = interrupt_id(session.journal.begun.run, at, value)
        position = session.locate(at, KIND, id_)
        if position.recorded is not None:
            answer = msgspec.json.decode(position.recorded.result)
        elif id_ in session.run.answers:
            answer = session.answer(id_)
            session.journal.defer(position.entry(msgspec.json.encode(answer)))
        else:
            raise session.ask([Interrupt(id_, value, expects=expected(kind))], branch)
        try:
            return convert(answer, kind)
        except ValueError as error:
            raise ValueError(f"the answer does not match the requested type: {error}") from error

    @overload
    async def step(self, name: str, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def step(self, name: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def step(self, name: str, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Run ``work(*args, **kwargs)`` once and record its result under ``name``; a sync function runs in a thread.

        Returns the recorded JSON, converted to the return type of ``work``. Raises ``StepFailed`` if ``work`` raises.
        """
        if not name or name.startswith("__"):
            raise ValueError(f"a step cannot be named {name!r}")
        return await run_step(self._session, name, functools.partial(work, *args, **kwargs), returned_by(work))
