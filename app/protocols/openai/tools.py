"""Tools of a request, the choice among them and the form of the answer, as both APIs write them."""

from collections.abc import Sequence
from typing import Any

from app.agents.port import ModelOptions
from app.base.errors import Invalid
from app.providers.llm.port import ANY_TOOL, OutputSchema, ToolChoice, ToolSpec

CHOICES = "must be auto, none, required, a function, or allowed_tools with a mode and tools"
NO_ARGUMENTS: dict[str, Any] = {"type": "object", "properties": {}}


def options_of(
    tools: Sequence[dict[str, Any]] | None,
    choice: str | dict[str, Any] | None,
    parallel: bool | None,
    instructions: str | None = None,
    output: OutputSchema | None = None,
) -> ModelOptions | None:
    """Return what a request asks of the model calls; None if nothing. Raises ``Invalid``."""
    options = ModelOptions(
        tools=tuple(_tool(tool, at) for at, tool in enumerate(tools or ())),
        tool_choice=_choice(choice),
        parallel_tool_calls=parallel is not False,
        instructions=instructions or "",
        output_schema=output,
    )
    return None if options == ModelOptions() else options


def output_of(form: Any, field: str) -> OutputSchema | None:
    """Return the form of the answer that ``field`` of a request asks for; None for text. Raises ``Invalid``."""
    match form or {"type": "text"}:
        case {"type": "text"}:
            return None
        case {"type": "json_object"}:
            return OutputSchema(schema={"type": "object"}, strict=False)
        case {"type": "json_schema", **members}:
            nested = members.get("json_schema")
            given = nested if isinstance(nested, dict) else members
            schema, name = given.get("schema"), given.get("name")
            if isinstance(schema, dict) and isinstance(name, str):
                return OutputSchema(schema=schema, name=name, strict=given.get("strict") is True)
    raise _invalid(field, "must be text, json_object, or json_schema with a name and a schema")


def client_tool_names(options: ModelOptions | None) -> tuple[str, ...]:
    """Return the names of the tools whose calls go to the client."""
    tools = () if options is None else options.tools
    return tuple(tool.name for tool in tools if options is not None and options.tool_choice.allows(tool.name))


def _tool(tool: dict[str, Any], at: int) -> ToolSpec:
    if tool.get("type") != "function":
        kind = str(tool.get("type"))[:100]
        raise _invalid(f"tools[{at}].type", f"is {kind!r}: an agent has its own tools, a request adds functions")
    function = tool.get("function")
    if not isinstance(function, dict):  # Responses, and not Chat Completions
        function = tool
    name, parameters = function.get("name"), function.get("parameters")
    if not isinstance(name, str):
        raise _invalid(f"tools[{at}].name", "is missing")
    if parameters is not None and not isinstance(parameters, dict):
        raise _invalid(f"tools[{at}].parameters", "must be a JSON Schema")
    return ToolSpec(name, str(function.get("description") or ""), parameters or NO_ARGUMENTS)


def _choice(choice: str | dict[str, Any] | None) -> ToolChoice:
    match choice:
        case None | "auto":
            return ANY_TOOL
        case "none":
            return ToolChoice(mode="none")
        case "required":
            return ToolChoice(mode="required")
        case dict():
            return _chosen(choice)
    raise _invalid("tool_choice", CHOICES)


def _chosen(choice: dict[str, Any]) -> ToolChoice:
    """Read one function, or ``allowed_tools``, whose members Chat Completions nests once more."""
    if choice.get("type") == "function":
        return ToolChoice(mode="required", names=(_name(choice),))
    nested = choice.get("allowed_tools")
    allowed = nested if isinstance(nested, dict) else choice
    mode, tools = allowed.get("mode", "auto"), allowed.get("tools")
    if choice.get("type") != "allowed_tools" or mode not in ("auto", "required") or not isinstance(tools, list):
        raise _invalid("tool_choice", CHOICES)
    return ToolChoice(mode=mode, names=tuple(map(_name, tools)))


def _name(reference: Any) -> str:
    reference = reference if isinstance(reference, dict) else {}
    function = reference.get("function")
    name = (function if isinstance(function, dict) else reference).get("name")
    if not isinstance(name, str):
        raise _invalid("tool_choice", "must name a function")
    return name


def _invalid(field: str, words: str) -> Invalid:
    return Invalid(f"{field} {words}.", (("/" + field.replace("[", "/").replace("]", "").replace(".", "/"), words),))
