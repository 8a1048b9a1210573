"""One run of a graph: drive it, report its steps and its output, and how it ends."""

from __future__ import annotations

import asyncio
import functools
from collections.abc import AsyncIterator, Callable
from typing import Any
from uuid import UUID

from langgraph.checkpoint.serde.types import INTERRUPT
from langgraph.constants import END, START
from langgraph.errors import GraphDrained
from langgraph.runtime import RunControl, Runtime
from langgraph.types import Command, Interrupt, Send

from agent_service_graphs.checkpoints import Answers, Document, Record
from agent_service_graphs.describing import has_default_context, next_nodes, serializer, shown_channels
from agent_service_graphs.documents import CannotStore
from agent_service_graphs.loading import Graph, GraphSource, location
from agent_service_graphs.model_calls import METADATA, ModelCalls, model_calls
from agent_service_graphs.projection import json_of, value_of
from agent_service_graphs.saver import RunSaver
from agent_service_graphs.store import EmptyStore, EngineStore
from agent_service_graphs.stored_values import StoredValues
from agent_service_graphs.stream import MessageReports
from agent_service_graphs.threads import ThreadStore
from agent_service_graphs.tool_classes import ClassedCalls, current_calls
from agent_service_graphs.tools import ToolCaller, offering
from agent_service_graphs.transformers import GraphTransformers
from agent_service_graphs.wire import Connection

CHECKPOINTER = "__pregel_checkpointer"
RUNTIME = "__pregel_runtime"
"""Keys of LangGraph's run configuration that name the checkpointer and the runtime to use."""
ROOT_MODES = {"messages", "custom"}
"""Stream modes reported as they come for the graph itself; the engine derives the others from committed steps."""
FIELDS = {"before": "interrupt_before", "after": "interrupt_after", "goto": "command.goto"}
"""What clients call that by which a run names nodes."""
MAX_ERROR = 2000
MARK_BYTES = 256 * 1024
"""After so many bytes of reports the engine acknowledges them."""
WINDOW_BYTES = 4 * 1024 * 1024
"""With so many bytes of reports that the engine has not dealt with, a run produces no more."""


class User(dict[str, Any]):
    """The user of a run as LangGraph shows it: fields as items and as attributes."""

    def __getattr__(self, name: str) -> Any:
        try:
            return self[name]
        except KeyError as error:
            raise AttributeError(name) from error

    identity: Any
    permissions: Any

    @property
    def is_authenticated(self) -> bool:
        """Whether the user is known."""
        return bool(self.get("is_authenticated", True))

    @property
    def display_name(self) -> str:
        """The name to show."""
        return str(self.get("display_name") or self.get("identity") or "")


def user_of(configurable: dict[str, Any]) -> User | None:
    """Return the user that ``configurable`` names: whom auth handlers returned, else the one of the key or token."""
    if (known := configurable.get("langgraph_auth_user")) is not None:
        return User(known)
    identity = configurable.get("langgraph_auth_user_id")
    return User({"identity": identity, "permissions": []}) if identity else None


def configurable_of(given: dict[str, Any], ids: dict[str, Any]) -> dict[str, Any]:
    """Return the ``configurable`` that a project sees: what is ``given``, with the user in LangGraph's form."""
    user = user_of(given)
    return {**given, **ids} if user is None else {**given, **ids, "langgraph_auth_user": user}


def server_runtime(access: Any, user: User | None, store: Any, context: Any = None) -> Any:
    """Return the ``ServerRuntime`` that a graph's factory gets."""
    from langgraph_sdk import runtime as sdk

    if access == "threads.create_run":
        return sdk._ExecutionRuntime(access_context="threads.create_run", user=user, store=store, context=context)  # noqa: SLF001
    return sdk._ReadRuntime(access_context=access, user=user, store=store or EmptyStore())  # noqa: SLF001  the types have no public name


def goto_of(target: Any) -> Any:
    """Return the targets of a command as LangGraph takes them: node names, and sends of an input to a node."""
    if isinstance(target, list):
        return [goto_of(one) for one in target]
    return Send(target["node"], target.get("input")) if isinstance(target, dict) else target


class GraphRun:
    """A run that the engine has asked for with the message ``asked``, on a thread with ``values``.

    ``keep`` is called with the values that the run leaves, if it ends well.
    """

    def __init__(
        self,
        connection: Connection,
        source: GraphSource,
        asked: dict[str, Any],
        values: StoredValues,
        keep: Callable[[StoredValues], None],
    ) -> None:
        self._connection = connection
        self._source = source
        self._asked = asked
        self._values = values
        self._keep = keep
        self._ended = False
        self._number = asked["run"]
        self._caller = ToolCaller(connection, self._number)
        self._waits = asked["durability"] == "sync"
        self.control = RunControl()
        self._waiting: dict[int, asyncio.Future[None]] = {}
        self._reports = 0
        self._unmarked = 0
        self._marks: dict[int, int] = {}
        self._room = asyncio.Event()
        self._updates: list[Any] = []
        self._messages = MessageReports()
        self._models = ModelCalls(self._on_model)
        self._before: Any = None
        self._interrupts: dict[str, Interrupt] = {}
        self._paused = False
        self._graph: Graph | None = None
        self._document: Document | None = None
        self._task: asyncio.Task[Any] | None = None
        self._unstored: CannotStore | None = None

    async def run(self) -> None:
        """Run to the end, and report it."""
        self._task = asyncio.current_task()
        try:
            with offering(self._asked["tools"], self._caller):
                ending = await self._run()
            self._report_uncommitted()
            self._report_changes(waits=False)
            ending["kept"] = self._values.memory()
            self._keep(self._values)
        except GraphDrained:
            self._on_change(waits=False)
            ending = {"status": "drained"}
        except asyncio.CancelledError:
            if self._unstored is None:
                return
            ending = failure(self._unstored)
        except (Exception, SystemExit, KeyboardInterrupt) as error:  # noqa: BLE001  whatever a graph raises ends its run alone
            ending = failure(error)
            if not isinstance(error, CannotStore):
                self._report_uncommitted()
                self._on_change(waits=False)
        self._ended = True  # what comes later is not stored, and must not be in the values that are kept
        self._report("end", **ending)

    async def _run(self) -> dict[str, Any]:
        asked = self._asked
        user = user_of(asked["configurable"])
        store = EngineStore(self._connection, self._number)
        given = asked["context"] or None
        config = self._config()

        async with self._source.open(config, lambda: server_runtime("threads.create_run", user, store, given)) as graph:
            self._graph = graph
            self._check_nodes(graph)
            serde = serializer(graph)
            self._document = document = Document(self._values, asked["run_id"], serde, shown_channels(graph))
            answers = Answers(asked["answers"], document.used)
            threads = ThreadStore(self._connection, self._number, asked["thread_id"], document.codec)
            saver = RunSaver(document, answers, self._on_step, self._on_change, threads=threads)
            self._caller.document = document
            model_calls.set(self._models)
            if document.root is not None:
                self._before = document.root.checkpoint["channel_values"].get("messages")
            current_calls.set(ClassedCalls(self._caller, document, self._on_change))
            context = {} if given is None and has_default_context(graph) else given
            config["configurable"] |= {CHECKPOINTER: saver, RUNTIME: Runtime(store=graph.store or store)}
            if asked["fork"] and document.root is not None and not document.is_of_run:
                config["configurable"]["checkpoint_id"] = document.root.checkpoint["id"]
                document.superseded = True
                document.forget_call_results()
            await self._drive(graph, self._input(document, answers), config, context)
            await self._caller.settle()
        if self._interrupts:
            return {"status": "interrupted", "interrupts": [_asked(one) for one in self._interrupts.values()]}
        return {"status": "paused" if self._paused else "done"}

    def _check_nodes(self, graph: Graph) -> None:
        """Raise ``ValueError`` for nodes that a graph does not have which a function has made for this run."""
        asked = self._asked
        goto = asked["goto"] if isinstance(asked["goto"], list) else [asked["goto"]]
        targets = [one for one in (to["node"] if isinstance(to, dict) else to for to in goto) if one not in {None, END}]
        for field, named in (("before", asked["before"]), ("after", asked["after"]), ("goto", targets)):
            for name in named if isinstance(named, list) else ():
                if name not in graph.nodes:
                    nodes = ", ".join(one for one in graph.nodes if one != START)
                    raise ValueError(f"{FIELDS[field]} names {name!r}, which is not a node of this graph: use {nodes}.")

    def _config(self) -> dict[str, Any]:
        asked = self._asked
        ids = {name: asked[name] for name in ("thread_id", "run_id", "assistant_id", "graph_id")}
        config: dict[str, Any] = {
            "configurable": configurable_of(asked["configurable"], {**ids, "checkpoint_ns": ""}),
            "metadata": {**asked["metadata"], **ids},
            "tags": asked["tags"],
            "run_id": UUID(asked["run_id"]),
        }
        if asked["recursion_limit"]:
            config["recursion_limit"] = asked["recursion_limit"]
        return config

    def _input(self, document: Document, answers: Answers) -> Any:
        """Return the input, the command, or None to continue from the checkpoint."""
        asked = self._asked
        command: dict[str, Any] = {}
        if answers.open:
            command["resume"] = dict(answers.open)
        if not document.is_of_run:  # else an earlier owner of this run has applied them
            if asked["update"] is not None:
                command["update"] = value_of(asked["update"])
            if asked["goto"] is not None:
                command["goto"] = goto_of(asked["goto"])
        if command:
            return Command(**command)
        return None if document.is_of_run or asked["input"] is None else value_of(asked["input"])

    async def _drive(self, graph: Graph, given: Any, config: dict[str, Any], context: Any) -> None:
        asked = self._asked
        transformers = GraphTransformers(graph, self._on_item)
        wanted = {"updates", *asked["modes"]}
        drive: Any = graph.astream  # the stream modes come from the engine
        stream: AsyncIterator[Any] = drive(
            given,
            config,
            context=context,
            stream_mode=[*wanted | transformers.modes],
            subgraphs=True,
            durability=asked["durability"],
            interrupt_before=asked["before"],
            interrupt_after=asked["after"],
            control=self.control,
        )
        try:
            async for namespace, mode, data in stream:
                if mode in wanted:
                    self._on_output(namespace, mode, data)
                await transformers.take(namespace, mode, data)
                while sum(self._marks.values()) > WINDOW_BYTES:
                    self._room.clear()
                    await self._room.wait()
        except Exception as error:
            await transformers.fail(error)
            raise
        await transformers.aclose()

    def _on_model(self, call: dict[str, Any]) -> None:
        """Report a call of a model."""
        if self._connection.in_loop:
            self._report("model", **call)
        else:
            self._connection.loop.call_soon_threadsafe(functools.partial(self._report, "model", **call))

    def _on_item(self, name: str, item: Any) -> None:
        """Report what a transformer of the graph has pushed to its channel ``name``."""
        if "custom" in self._asked["modes"]:
            self._report("emit", kind="custom", data=json_of({"name": name, "payload": item}))

    def _on_output(self, namespace: tuple[str, ...], mode: str, data: Any) -> None:
        if mode == "messages":
            for report in self._messages.of(*data):
                self._report("emit", **report, namespace=namespace)
        elif mode == "custom" and self._is_own(namespace):
            self._report("emit", kind="custom", data=json_of(data))
        elif namespace:
            if self._asked["subgraphs"] and mode in self._asked["modes"]:
                self._report("emit", kind="subgraph", mode=mode, namespace=namespace, data=json_of(data))
        elif mode == "updates":
            self._on_update(data)

    def _is_own(self, namespace: tuple[str, ...]) -> bool:
        """Whether a custom value is of the graph itself: of its nodes, or of their ``@task`` functions.

        The namespace of such a function is that of its caller; the checkpointer knows those of subgraphs.
        """
        if not namespace or self._asked["subgraphs"] or self._document is None:
            return not namespace
        knows = self._document.invocations.knows
        return not any(knows("|".join(namespace[:depth])) for depth in range(1, len(namespace) + 1))

    def _on_update(self, data: dict[str, Any]) -> None:
        if INTERRUPT not in data:
            self._updates.append(data)
            return
        interrupts = data[INTERRUPT]
        self._paused = self._paused or not interrupts
        self._interrupts.update({one.id: one for one in interrupts})

    def _report_uncommitted(self) -> None:
        """Report the updates of nodes that have finished in a superstep which others keep open."""
        updates, self._updates = self._updates, []
        for update in updates if "updates" in self._asked["modes"] else ():
            self._report("emit", kind="subgraph", mode="updates", data=json_of(update))

    def _on_step(self, record: Record) -> asyncio.Future[None] | None:
        """Report the end of a superstep."""
        if self._ended:
            return None
        assert self._graph is not None
        assert self._document is not None
        updates, self._updates = self._updates, []
        before, self._before = self._before, record.checkpoint["channel_values"].get("messages")
        return self._numbered(
            self._waits,
            op="step",
            changes=self._document.take_changes(),
            nodes=[name for update in updates for name in update if name != METADATA],
            next=next_nodes(self._graph, record.checkpoint),
            updates=[json_of(update) for update in updates],
            usage=self._models.usage_of(updates, before),
        )

    def _on_change(self, waits: bool) -> asyncio.Future[None] | None:
        """Report what changed inside of a superstep; a value that has no stored form ends the run."""
        try:
            return self._report_changes(waits=waits and self._waits)
        except CannotStore as error:
            self._unstored = error
            if self._task is not None:
                self._task.cancel()
            return None

    def _report_changes(self, *, waits: bool) -> asyncio.Future[None] | None:
        """Report what changed inside of a superstep, if anything."""
        document = self._document
        if document is None or self._ended:
            return None
        with document.lock:
            if not document.dirty:
                return None
            return self._numbered(waits, op="change", changes=document.take_changes())

    def _numbered(self, waits: bool, **report: Any) -> asyncio.Future[None] | None:
        if not waits:
            self._report(**report)
            return None
        self._reports += 1
        acknowledged = self._waiting[self._reports] = self._connection.loop.create_future()
        self._report(**report, wait=self._reports)
        return acknowledged

    def acknowledge(self, number: int) -> None:
        """Take the engine's acknowledgement of the report ``number``."""
        if self._marks.pop(number, 0):
            self._room.set()
        acknowledged = self._waiting.pop(number, None)
        if acknowledged is not None and not acknowledged.done():
            acknowledged.set_result(None)

    def _report(self, op: str, **what: Any) -> None:
        self._unmarked += self._connection.send(op=op, run=self._number, **what)
        if self._unmarked >= MARK_BYTES:
            self._reports += 1
            self._marks[self._reports] = self._unmarked
            self._unmarked = 0
            self._connection.send(op="mark", run=self._number, wait=self._reports)


def _asked(interrupt: Interrupt) -> dict[str, Any]:
    schema = getattr(interrupt, "response_schema", None)
    return {
        "id": interrupt.id,
        "value": json_of(interrupt.value),
        "schema": schema if isinstance(schema, dict) else None,
    }


def failure(error: BaseException) -> dict[str, Any]:
    """Return the report of a run that ended with ``error``."""
    try:
        message = str(error)[:MAX_ERROR]
    except Exception:  # noqa: BLE001  the text of a foreign error is made by its own code
        message = ""
    return {"status": "error", "error": type(error).__name__, "message": message, "at": location(error)}
