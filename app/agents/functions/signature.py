"""Read a function agent's input and return types from its signature, at server start."""

import inspect
import typing
from collections.abc import Callable
from typing import Any
from uuid import UUID

import msgspec

from app.agents.functions.context import Context
from app.agents.functions.conversion import convert, convert_input, schema_of
from app.agents.functions.messages import MESSAGE
from app.agents.functions.step_journal import begin
from app.agents.functions.steps import declared_steps, returned_by
from app.agents.tool_loop.graph import END, SCHEMAS, START
from app.agents.tool_loop.inputs import read_input
from app.base.errors import AgentError, StartError
from app.domain.state import MESSAGES

SIGNATURE_HINT = "write async def run(context: Context), or async def run(context: Context, wanted: YourType)"


class Signature:
    """Signature of ``function``, named ``code`` in errors. Raises ``StartError`` if it is not supported.

    ``input_type``: type of its input; None for a function that takes the context alone. ``input_required``: whether
    the input has no default.
    """

    def __init__(self, code: str, function: Callable[..., Any]) -> None:
        if not inspect.isfunction(function):
            raise StartError(f"{code!r} is not a function but of type {type(function).__name__}: {SIGNATURE_HINT}")
        if not inspect.iscoroutinefunction(function):
            what = "yields" if inspect.isasyncgenfunction(function) else "is not async"
            raise StartError(f"{code!r} {what}: {SIGNATURE_HINT}")
        try:
            hints = typing.get_type_hints(function, include_extras=True)
        except (NameError, AttributeError, TypeError, SyntaxError) as error:
            raise StartError(f"{code!r}: its annotations cannot be read: {error}") from error
        parameters = list(inspect.signature(function).parameters.values())
        for parameter in parameters:
            if parameter.kind not in {parameter.POSITIONAL_ONLY, parameter.POSITIONAL_OR_KEYWORD}:
                raise StartError(f"{code!r}: parameter {parameter.name!r} must be an ordinary one: {SIGNATURE_HINT}")
        if not parameters or hints.get(parameters[0].name, Context) is not Context:
            raise StartError(f"{code!r} must take the context first: {SIGNATURE_HINT}")
        if len(parameters) > 2:
            raise StartError(
                f"{code!r} takes {len(parameters)} parameters, more than the context and one input: {SIGNATURE_HINT}"
            )
        wanted = parameters[1] if len(parameters) > 1 else None
        self.function = function
        self.node: str = function.__name__
        self.steps = [name for name in declared_steps(function) if name != self.node]
        self.input_type: Any = None if wanted is None else hints.get(wanted.name, Any)
        self.input_required = wanted is not None and wanted.default is wanted.empty
        self._returns = returned_by(function)
        self._schema = (
            None if wanted is None else schema_of(self.input_type, f"{code!r}: its parameter {wanted.name!r}")
        )

    def read_input(self, agent: str, value: Any, run_id: UUID) -> dict[str, Any]:
        """Return the update of the state that restarts ``agent``: messages, other values, and the typed input.

        Raises ``Invalid``.
        """
        if self.input_type is None:
            return {**read_input(value, run_id), **begin(agent, str(run_id))}
        convert_input(value, self.input_type, "/input")
        conversation = {MESSAGES: value[MESSAGES]} if isinstance(value, dict) and value.get(MESSAGES) else {}
        return {**read_input(conversation, run_id), **begin(agent, str(run_id), value)}

    def arguments(self, given: Any) -> tuple[Any, ...]:
        """Return the arguments after the context. Raises ``AgentError`` if a required input is missing."""
        if self.input_type is None or (given is msgspec.UNSET and not self.input_required):
            return ()
        if given is msgspec.UNSET:
            raise AgentError("The function takes an input and the run has none: send one.")
        return (convert(given, self.input_type),)

    def schemas(self) -> dict[str, Any]:
        """Return JSON Schemas: of the input type if there is one, of a conversation otherwise."""
        schemas = dict(SCHEMAS)
        if self._schema is not None:
            schemas["input_schema"] = {"title": "Input", **self._schema}
        if self._returns not in {Any, None, type(None), str} and self._returns not in MESSAGE:
            try:
                schemas["output_schema"] = {"title": "Output", **schema_of(self._returns, "its answer")}
            except StartError:  # a type without a JSON Schema: describe the values instead
                schemas["output_schema"] = SCHEMAS["state_schema"]
        return schemas

    def graph(self) -> dict[str, Any]:
        """Return the function's node, with an edge to and from each step declared in its module."""
        node, steps = self.node, self.steps
        step_edges = [
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
                *step_edges,
                {**last, "conditional": True} if steps else last,
            ],
        }
