"""What a function asks to be given and says it gives back, read from its signature when the server starts."""

import inspect
import typing
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from app.agents.functions.context import Context
from app.agents.functions.conversion import convert, read, schema_of
from app.agents.functions.messages import MESSAGE
from app.agents.functions.step_journal import begin
from app.agents.functions.steps import returned_by, steps_beside
from app.agents.tool_loop.graph import END, SCHEMAS, START
from app.agents.tool_loop.inputs import read_input
from app.base.errors import AgentError, StartError
from app.domain.state import MESSAGES

FORM = "write async def run(context: Context), or async def run(context: Context, wanted: YourType)"


class Signature:
    """How the ``function`` of ``code`` is called. Raises ``StartError`` for one that cannot be an agent.

    ``takes`` is the type of its input; None for a function that is given the conversation alone. ``needs`` tells
    whether it cannot be called without one.
    """

    def __init__(self, code: str, function: Callable[..., Any]) -> None:
        if not inspect.isfunction(function):
            raise StartError(f"{code!r} is no function but of type {type(function).__name__}: {FORM}")
        if not inspect.iscoroutinefunction(function):
            what = "yields" if inspect.isasyncgenfunction(function) else "is not async"
            raise StartError(f"{code!r} {what}: {FORM}")
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            raise StartError(f"{code!r}: its annotations cannot be read: {error}") from error
        parameters = list(inspect.signature(function).parameters.values())
        for parameter in parameters:
            if parameter.kind not in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
                raise StartError(f"{code!r}: parameter {parameter.name!r} must be an ordinary one: {FORM}")
        if not parameters or hints.get(parameters[0].name, Context) is not Context:
            raise StartError(f"{code!r} must take the context first: {FORM}")
        if len(parameters) > 2:
            raise StartError(
                f"{code!r} takes {len(parameters)} parameters, more than the context and one input: {FORM}"
            )
        wanted = parameters[1] if len(parameters) > 1 else None
        self.function = function
        self.node: str = function.__name__
        self.steps = [name for name in steps_beside(function) if name != self.node]
        self.takes: Any = None if wanted is None else hints.get(wanted.name, Any)
        self.needs = wanted is not None and wanted.default is wanted.empty
        self._returns = returned_by(function)
        self._schema = None if wanted is None else schema_of(self.takes, f"{code!r}: its parameter {wanted.name!r}")

    def read_input(self, agent: str, value: Any, run_id: UUID) -> dict[str, Any]:
        """An update of the state with which ``agent`` begins anew: messages, other values, and the typed input.

        Raises ``Invalid``.
        """
        if self.takes is None:
            return {**read_input(value, run_id), **begin(agent, str(run_id))}
        read(value, self.takes, "/input")
        talk = {MESSAGES: value[MESSAGES]} if isinstance(value, dict) and value.get(MESSAGES) else {}
        return {**read_input(talk, run_id), **begin(agent, str(run_id), value)}

    def arguments(self, given: Any) -> tuple[Any, ...]:
        """What the function is called with after its context. Raises ``AgentError`` without an input that it needs."""
        if self.takes is None or (given is msgspec.UNSET and not self.needs):
            return ()
        if given is msgspec.UNSET:
            raise AgentError("The function takes an input and the run has none: send one.")
        return (convert(given, self.takes),)

    def schemas(self) -> dict[str, Any]:
        """JSON Schemas: of the input type if there is one, of a conversation otherwise."""
        schemas = dict(SCHEMAS)
        if self._schema is not None:
            schemas["input_schema"] = {"title": "Input", **self._schema}
        if self._returns not in {Any, None, type(None), str} and self._returns not in MESSAGE:
            try:
                schemas["output_schema"] = {"title": "Output", **schema_of(self._returns, "its answer")}
            except StartError:  # a type that only the function knows: the values tell
                schemas["output_schema"] = SCHEMAS["state_schema"]
        return schemas

    def graph(self) -> dict[str, Any]:
        """The function, with the steps that are declared beside it around it."""
        node, steps = self.node, self.steps
        around = [
            edge
            for name in steps
            for edge in (
                {"source": node, "target": name, "conditional": True},
                {"source": name, "target": node},
            )
        ]
        last: dict[str, Any] = {"source": node, "target": END["id"]}
        return {
            "nodes": [
                START,
                *({"id": name, "type": "runnable", "data": {"name": name}} for name in (node, *steps)),
                END,
            ],
            "edges": [
                {"source": START["id"], "target": node},
                *around,
                {**last, "conditional": True} if steps else last,
            ],
        }
