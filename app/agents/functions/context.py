"""What a function agent is given: everything it may do that is kept, streamed, or asked of a person."""

import functools
from collections.abc import Awaitable, Callable
from typing import Any, ParamSpec, TypeVar, overload
from uuid import UUID

import msgspec

from app.agents.functions.conversion import convert, expected, to_builtins
from app.agents.functions.memory_access import DocumentAccess, StoreAccess
from app.agents.functions.messages import structs
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
    """Which run this is, and what its caller set: ``configurable`` and ``context`` are any JSON members."""

    tenant_id: str
    thread_id: str
    run_id: str
    assistant_id: str
    configurable: dict[str, Any] = {}
    context: dict[str, Any] = {}


class Context:
    """The first argument of a function agent.

    ``state`` are the thread's values, ``memory`` what to remember in them, ``store`` the tenant's long-term memory,
    ``documents`` what its documents say,
    ``model`` and ``tools`` the agent's own, ``run`` the ids of the run. A function begins again from its start after a
    crash or an answer: what ``model``, ``tools``, ``store``, ``step`` and ``interrupt`` gave it before it then gets at
    once, without doing it again.
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
        )

    @property
    def messages(self) -> list[Message]:
        """The thread's conversation, oldest first: with the input, and with what ``say`` has added."""
        return self._session.conversation.messages()

    def say(self, *messages: Any) -> None:
        """Add messages to the conversation, with the next step: a text is the agent's own. Raises ``ValueError``."""
        place = self._session.branch().next_place()
        seed = UUID(self._session.journal.begun.run)
        said: list[Message] = []
        for one in messages:
            said += [AIMessage(content=one)] if isinstance(one, str) else structs(one, seed)
        self._session.conversation.say(said, place)

    def emit(self, value: Any) -> None:
        """Send ``value`` to ``custom`` streams, at once. Raises ``TypeError`` for what is no JSON.

        A value that was sent before the function began again is not sent twice.
        """
        self._session.emit(value)

    @overload
    async def interrupt(self, question: Any) -> Any: ...
    @overload
    async def interrupt(self, question: Any, kind: type[T]) -> T: ...

    async def interrupt(self, question: Any, kind: Any = Any) -> Any:
        """Ask a person ``question`` (any JSON); the answer, as a ``kind``.

        Until the answer is there the run ends here, as interrupted; the run that brings it begins the function again.
        Ask the same each time. An answer that does not fit the schema of ``kind`` is refused when it is sent, and the
        question stays open; ``ValueError`` is raised for one that fits the schema and is still no ``kind``.
        """
        session = self._session
        branch, at = session.enter()
        value = to_builtins(question)
        id_ = interrupt_id(session.journal.begun.run, at, value)
        place = session.locate(at, KIND, id_)
        if place.was is not None:
            answer = msgspec.json.decode(place.was.result)
        elif id_ in session.run.answers:
            answer = session.answer(id_)
            session.journal.later(place.entry(msgspec.json.encode(answer)))
        else:
            raise session.ask([Interrupt(id_, value, expects=expected(kind))], branch)
        try:
            return convert(answer, kind)
        except ValueError as error:
            raise ValueError(f"the answer is not what was asked for: {error}") from error

    @overload
    async def step(self, name: str, work: Callable[P, Awaitable[T]], /, *args: P.args, **kwargs: P.kwargs) -> T: ...
    @overload
    async def step(self, name: str, work: Callable[P, T], /, *args: P.args, **kwargs: P.kwargs) -> T: ...

    async def step(self, name: str, work: Callable[..., Any], /, *args: Any, **kwargs: Any) -> Any:
        """Do ``work(*args, **kwargs)`` once and keep what it returns, under ``name``; a sync function runs in a thread.

        What comes back is what was kept: its JSON, as the type that ``work`` says it returns. Raises ``StepFailed``
        when ``work`` raises.
        """
        if not name or name.startswith("__"):
            raise ValueError(f"a step cannot be named {name!r}")
        return await run_step(self._session, name, functools.partial(work, *args, **kwargs), returned_by(work))
