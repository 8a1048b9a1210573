"""Replies of ``scripted:demo``: a rule-based demonstration that identifies itself as a script."""

import json
import re
import shlex
from collections.abc import Sequence
from typing import Any

from app.domain.messages import AIMessage, HumanMessage, Message, ToolCall, ToolMessage, text_of
from app.providers.llm.port import ModelRequest, ToolSpec

SCRIPT = "I am a script, not a language model."
HINT = "Set OPENAI_API_KEY, OPENAI_BASE_URL or ANTHROPIC_API_KEY and start again to talk to a real one."
EXAMPLES = {
    "clock": "“what time is it?”",
    "calculator": "“what is 12*(3+4)?”",
    "notes": "“note buy milk” or “list notes”",
}
RESULT_CHARACTERS = 500

TIME = re.compile(r"\b(time|date|clock|today|day is it|hour)\b", re.IGNORECASE)
SENTENCE_END = re.compile(r"[.?!]")
LIST = re.compile(r"\b(?:list|show|read|what are)\b", re.IGNORECASE)
NOTES = re.compile(r"\bnotes\b", re.IGNORECASE)
NEW_NOTE = re.compile(r"\b(?:note|remember)\b(?:\s+(?:that|down|to)\b)?[\s:,]+(?P<text>[^\n.?!]+)", re.IGNORECASE)
NUMBER = r"(?:\d++(?:\.\d++)?|\.\d++)"
ARITHMETIC = re.compile(rf"[-+(\s]*+{NUMBER}[\s)]*+(?:(?:\*\*|//|[-+*/%])[-+(\s]*+{NUMBER}[\s)]*+)+")
MAX_TEXT = 2000
"""Characters of a question that the script reads."""


def scripted_reply(request: ModelRequest) -> tuple[str, list[ToolCall]]:
    """Return the text and the tool calls of the next reply to ``request``."""
    results = _results(request.messages)
    if results and request.output_schema is not None:
        return json.dumps(sample(request.output_schema.schema)), []
    if results:
        shown = " ".join(f"The tool {name} answered: {text}" for name, text in results)
        return f"{SCRIPT} {shown}", []
    asked = next((m for m in reversed(request.messages) if isinstance(m, HumanMessage)), None)
    text = "" if asked is None else text_of(asked.content)[:MAX_TEXT]
    tools = {tool.name: tool for tool in request.tools}
    wanted = _named_calls(text, tools) or [(name, args) for name, args in _requested_calls(text) if name in tools]
    if request.tool_choice.mode == "none":
        wanted = []
    elif request.tool_choice.mode == "required" and not wanted and tools:
        tool = request.tools[0]
        wanted = [(tool.name, sample(tool.parameters))]
    if not wanted and request.output_schema is not None:
        return json.dumps(sample(request.output_schema.schema)), []
    if not wanted:
        return _introduction(tools), []
    turn = len(request.messages)
    calls = [ToolCall(name, args, f"call_{turn}_{place}") for place, (name, args) in enumerate(wanted)]
    return f"{SCRIPT} I call {' and '.join(call.name for call in calls)}.", calls


def sample(schema: Any) -> Any:
    """Return a small value that fits ``schema``, as far as types, ``enum`` and ``required`` tell."""
    schema = schema if isinstance(schema, dict) else {}
    if schema.get("enum"):
        return schema["enum"][0]
    match schema.get("type"):
        case "object":
            properties = schema.get("properties") or {}
            return {name: sample(properties.get(name)) for name in schema.get("required") or ()}
        case "array":
            return [sample(schema.get("items"))] * int(schema.get("minItems") or 0)
        case "integer" | "number":
            return schema.get("minimum", 1)
        case "boolean":
            return True
        case "null":
            return None
        case _:
            return "text"


def expression_in(text: str) -> str:
    """Return the first arithmetic expression in ``text`` with balanced parentheses; empty if there is none."""
    for found in ARITHMETIC.finditer(text[:MAX_TEXT]):
        expression = found.group().strip()
        while expression.count("(") > expression.count(")") and expression.startswith("("):
            expression = expression[1:].strip()
        while expression.count(")") > expression.count("(") and expression.endswith(")"):
            expression = expression[:-1].strip()
        if expression.count("(") == expression.count(")"):
            return expression
    return ""


def _asks_for_notes(text: str) -> bool:
    """Whether a sentence of ``text`` asks to list notes."""
    sentences = SENTENCE_END.split(text)
    return any((verb := LIST.search(one)) and NOTES.search(one, verb.end()) for one in sentences)


def _requested_calls(text: str) -> list[tuple[str, dict[str, Any]]]:
    calls: list[tuple[str, dict[str, Any]]] = []
    if _asks_for_notes(text):
        calls.append(("notes", {"action": "list"}))
    elif note := NEW_NOTE.search(text):
        calls.append(("notes", {"action": "add", "text": note["text"].strip()}))
        text = text[: note.start()] + text[note.end() :]
    if expression := expression_in(text):
        calls.append(("calculator", {"expression": expression}))
    if TIME.search(text):
        calls.append(("clock", {}))
    return calls


def _named_calls(text: str, tools: dict[str, ToolSpec]) -> list[tuple[str, dict[str, Any]]]:
    """Return the calls that ``call NAME argument=value …`` asks for, of any offered tool."""
    try:
        words = shlex.split(text)
    except ValueError:
        words = text.split()
    calls: list[tuple[str, dict[str, Any]]] = []
    before = ""
    for word in words:
        argument, equals, value = word.partition("=")
        if before.lower() == "call" and word in tools:
            calls.append((word, {}))
        elif calls and equals:
            calls[-1][1][argument] = _value(value, tools[calls[-1][0]].parameters.get("properties", {}).get(argument))
        before = word
    return calls


def _value(text: str, schema: Any) -> Any:
    if isinstance(schema, dict) and schema.get("type") == "string":
        return text
    try:
        return json.loads(text)
    except ValueError:
        return text


def _results(messages: Sequence[Message]) -> list[tuple[str, str]]:
    """Return (tool name, answer) for each tool message after the model's last message."""
    results: list[tuple[str, str]] = []
    names: dict[str, str] = {}
    for message in reversed(messages):
        if isinstance(message, ToolMessage):
            text = text_of(message.content)
            failed = "an error: " if message.status == "error" else ""
            results.append((message.name or message.tool_call_id, failed + text[:RESULT_CHARACTERS]))
        else:
            if isinstance(message, AIMessage):
                names = {call.id: call.name for call in message.tool_calls}
            break
    return [(names.get(name, name), text) for name, text in reversed(results)]


def _introduction(tools: dict[str, ToolSpec]) -> str:
    examples = [f"{example} calls {name}" for name, example in EXAMPLES.items() if name in tools]
    for name, tool in tools.items():
        if name not in EXAMPLES:
            words = ["call", name, *(f"{argument}=…" for argument in tool.parameters.get("required", ()))]
            examples.append(f"“{' '.join(words)}” calls {name}")
    shown = f"I can show streaming and tools: {'; '.join(examples)}." if examples else "I can show streaming."
    return f"{SCRIPT} {shown} {HINT}"
