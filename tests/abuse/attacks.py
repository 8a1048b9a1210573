"""Request bodies that are expensive for a parser, an encoder, a matcher or the database."""

import itertools
import json
import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, NamedTuple

from app.infra.http.request_bodies import MAX_BODY_BYTES, MAX_MESSAGES_BODY_BYTES

UNKNOWN = "00000000-0000-4000-8000-000000000001"


class Attack(NamedTuple):
    """One request below ``base``, and its allowed response statuses; empty: any below 500."""

    name: str
    method: str
    path: str
    body: bytes
    statuses: tuple[int, ...] = ()
    base: str = "/api/v1"


def run(content: bytes, assistant: bytes = b"echo") -> bytes:
    """Body of a run with one message of the JSON string ``content``."""
    return b'{"assistant_id":"%b","input":{"messages":[{"role":"user","content":"%b"}]}}' % (assistant, content)


def run_with(values: bytes) -> bytes:
    """Body of a run with the input ``values`` (JSON)."""
    return b'{"assistant_id":"echo","input":%b}' % values


def with_arguments(text: str) -> list[dict[str, Any]]:
    """Messages with a tool call that has the arguments ``text``."""
    call = {"id": "c", "type": "function", "function": {"name": "t", "arguments": text}}
    return [{"role": "assistant", "content": "", "tool_calls": [call]}]


def members(count: int) -> bytes:
    return b"{%b}" % b",".join(b'"k%d":1' % n for n in range(count))


def numbers(count: int) -> bytes:
    return b"[%b]" % b",".join([b"1"] * count)


def messages(count: int) -> bytes:
    return run_with(b'{"messages":[%b]}' % b",".join([b'"x"'] * count))


LARGE = MAX_MESSAGES_BODY_BYTES - 1024 * 1024
ARGUMENTS = '"' + '\\"' * 90_000

RUNS = [
    Attack(
        "unterminated arguments of escaped quotes",
        "POST",
        "/runs",
        json.dumps({"assistant_id": "echo", "input": {"messages": with_arguments(ARGUMENTS)}}).encode(),
        (422,),
    ),
    Attack(
        "a text that a pattern walks again and again", "POST", "/runs/wait", run(b"list " * 20_000, b"demo"), (200,)
    ),
    Attack("2,000,000 numbers", "POST", "/runs/wait", run_with(b'{"a":%b}' % numbers(2_000_000)), (400,)),
    Attack("400,000 numbers", "POST", "/runs/wait", run_with(b'{"a":%b}' % numbers(400_000)), (200,)),
    Attack("500,000 channels", "POST", "/runs/wait", run_with(members(500_000)), (400,)),
    Attack("90,000 channels", "POST", "/runs/wait", run_with(members(90_000)), (422,)),
    Attack("1,000 channels", "POST", "/runs/wait", run_with(members(999)), (200,)),
    Attack("10,000 messages", "POST", "/runs/wait", messages(10_000), (422,)),
    Attack("2,500 messages", "POST", "/runs/wait", messages(2_500), (200,)),
    Attack("7 MB of escaped quotes", "POST", "/runs/wait", run(b'\\"' * (LARGE // 2)), (400,)),
    Attack("7 MB of backslashes", "POST", "/runs/wait", run(b"\\\\" * (LARGE // 2)), (400,)),
    Attack("7 MB beyond ASCII", "POST", "/runs/wait", run("é".encode() * (LARGE // 2)), (200,)),
    Attack("4 MB of escaped quotes", "POST", "/runs/wait", run(b'\\"' * 1_900_000), (200,)),
]


def deep(count: int) -> bytes:
    return b'{"x":' + b"[" * count + b"]" * count + b"}"


SHAPES: dict[str, Callable[[int], bytes]] = {
    "oversize": lambda size: b'{"x":"%b"}' % (b"x" * size),
    "deep": lambda size: deep(min(size, 400_000) // 2 - 8),
    "just deep enough": lambda _: deep(60),
    "many values": lambda size: b'{"x":%b}' % numbers(size // 2 - 8),
    "many members": lambda size: b'{"x":%b}' % members(size // 12),
    "one member repeated": lambda size: b"{%b}" % b",".join([b'"metadata":{}'] * (size // 16)),
    "many strings": lambda size: b'{"x":[%b]}' % b",".join([b'"a"'] * (size // 4 - 8)),
    "escapes": lambda size: b'{"x":"%b"}' % (b'\\"' * (size // 2 - 8)),
    "unicode escapes": lambda size: b'{"x":"%b"}' % (b"\\ud83d\\ude00" * (size // 12 - 2)),
    "never closed": lambda size: b'{"x":"' + b'\\"' * (size // 2 - 8),
    "white space": lambda size: b" " * (size - 2) + b"{}",
    "long number": lambda size: b'{"x":1%b}' % (b"0" * (size - 16)),
    "not UTF-8": lambda size: b'{"x":"%b"}' % (b"\xc3\x28" * (size // 2 - 8)),
    "an array": lambda _: b"[" + b"{}," * 1000 + b"{}]",
    "a number": lambda _: b"1",
    "a string": lambda size: b'"%b"' % (b"x" * (size - 8)),
    "null": lambda _: b"null",
}


def ids(count: int) -> bytes:
    return b"[%b]" % b",".join(b'"00000000-0000-4000-8000-%012d"' % n for n in range(count))


def answers(count: int) -> bytes:
    return b"{%b}" % b",".join(b'"%032d":1' % n for n in range(count))


WIDE = members(60_000)
FIELDS = [
    Attack("threads by 25,000 ids", "POST", "/threads/search", b'{"ids":%b}' % ids(25_000), (200,)),
    Attack("a count of 25,000 ids", "POST", "/threads/count", b'{"ids":%b}' % ids(25_000), (200,)),
    Attack("wide metadata", "POST", "/threads", b'{"metadata":%b}' % WIDE, (200,)),
    Attack("threads by wide metadata", "POST", "/threads/search", b'{"metadata":%b}' % WIDE, (200,)),
    Attack("threads by wide values", "POST", "/threads/search", b'{"values":%b}' % WIDE, (200, 422)),
    Attack("a wide config", "POST", "/assistants", b'{"graph_id":"echo","config":{"configurable":%b}}' % WIDE, (200,)),
    Attack("assistants by wide metadata", "POST", "/assistants/search", b'{"metadata":%b}' % WIDE, (200,)),
    Attack(
        "a cancel of 25,000 runs",
        "POST",
        "/runs/cancel",
        b'{"thread_id":"%b","run_ids":%b}' % (UNKNOWN.encode(), ids(25_000)),
        (404,),
    ),
    Attack(
        "25,000 answers",
        "POST",
        f"/threads/{UNKNOWN}/runs",
        b'{"assistant_id":"echo","if_not_exists":"create","command":{"resume":%b}}' % answers(25_000),
        (409,),
    ),
]
"""Not covered by ``generated``: known fields, as wide as a body allows."""


def routes(document: dict[str, Any]) -> Iterator[tuple[str, str, dict[str, Any]]]:
    """Yield method, template of the path and operation of every route, those of protocols too."""
    for template, operations in document["paths"].items():
        for method, operation in operations.items():
            if method in {"get", "post", "put", "patch", "delete"}:
                yield method.upper(), template, operation


AGENTS = {"assistant": "echo", "agent": "echo", "model": "echo"}
"""Path parameters of protocols that name an agent."""


def filled(template: str, known: Mapping[str, str], other: str = UNKNOWN) -> str:
    """Return a path of ``template``: with what is ``known`` of its parameters, and ``other`` for the rest."""
    return re.sub(r"\{(\w+)[^}]*\}", lambda found: known.get(found[1], other), template)


def generated(document: dict[str, Any]) -> Iterator[Attack]:
    """Yield every shape for every route that accepts JSON, at the size limit of routes without messages.

    Path parameters are unknown ids and the last segments of other routes.
    """
    others = itertools.cycle((UNKNOWN, "documents", "runs", "state", "echo"))
    for method, template, operation in routes(document):
        if "application/json" in operation.get("requestBody", {}).get("content", {}):
            for shape, make in SHAPES.items():
                path = filled(template, AGENTS, next(others))
                yield Attack(f"{method} {path}: {shape}", method, path, make(MAX_BODY_BYTES), base="")
