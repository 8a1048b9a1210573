"""The two bindings: how results, errors and events of an operation are written.

HTTP+JSON: https://a2a-protocol.org/latest/specification/#11-httpjsonrest-protocol-binding
JSON-RPC: https://a2a-protocol.org/latest/specification/#9-json-rpc-protocol-binding
"""

import contextlib
import math
from collections.abc import AsyncGenerator, Awaitable, Callable
from typing import Any, TypeVar

import msgspec

from app.base.errors import AgentServiceError, Invalid
from app.infra.http.event_streams import JsonAnswer, LateAnswer, WholeAnswer
from app.infra.http.json_decoding import explain
from app.infra.http.query_params import AnyRequest
from app.infra.wires.a2a import (
    ListTasksParams,
    Message,
    Part,
    PushConfig,
    PushConfigParams,
    SendConfiguration,
    SendMessageParams,
    TaskParams,
    Wire,
)
from app.protocols.a2a.card import OLD_VERSION, VERSION
from app.protocols.a2a.errors import VersionNotSupported, http_error, rpc_error

MEDIA_TYPE = "application/a2a+json"
_encode = msgspec.json.Encoder().encode

T = TypeVar("T", bound=Wire)

_PROTO = {
    name: name.split("_")[0] + "".join(word.title() for word in name.split("_")[1:])
    for struct in (
        Part, Message, PushConfig, SendConfiguration, SendMessageParams, TaskParams, ListTasksParams, PushConfigParams,
    )
    for name in struct.__struct_fields__
    if "_" in name
}  # fmt: skip
_FREE = {"metadata", "data"}
"""Members with names of the client's own."""


def _in_camel_case(value: Any) -> Any:
    """Return ``value`` with the names of fields in camel case: ProtoJSON accepts those of the .proto file as well."""
    if isinstance(value, list):
        return [_in_camel_case(one) for one in value]
    if not isinstance(value, dict):
        return value
    return {
        _PROTO.get(name, name): member if name in _FREE else _in_camel_case(member) for name, member in value.items()
    }


def read_params(given: Any, kind: type[T]) -> T:
    """Convert decoded JSON, or query parameters, to ``kind``. Raises ``Invalid``."""
    if not isinstance(given, dict):
        raise Invalid.at("The parameters must be an object.", "")
    try:
        return msgspec.convert(_in_camel_case(given), kind, strict=False)
    except msgspec.ValidationError as error:
        raise explain(str(error), kind) from error


Work = Callable[[], Awaitable[Any]]


def version_of(request: AnyRequest) -> str:
    """Return the version that the client speaks, as major.minor; empty if it says none.

    Raises ``VersionNotSupported``.
    """
    given = request.headers.get("a2a-version") or request.query_params.get("A2A-Version") or ""
    version = ".".join(given.strip().split(".")[:2])
    if version not in {"", VERSION, OLD_VERSION}:
        raise VersionNotSupported(
            f"This server speaks A2A {VERSION} and {OLD_VERSION}, not {given[:20]!r}: send one of them as A2A-Version."
        )
    return version


class HttpBinding:
    """HTTP+JSON. ``media_type``: ``application/a2a+json`` for clients that name it."""

    def __init__(self, request: AnyRequest) -> None:
        wants = MEDIA_TYPE in request.headers.get("accept", "")
        self.media_type = MEDIA_TYPE if wants else "application/json"

    def result(self, result: Any) -> LateAnswer:
        """Return the response with ``result``."""
        return LateAnswer(200, _encode(result))

    def error(self, error: AgentServiceError) -> LateAnswer:
        """Return the response with ``error``."""
        status, body = http_error(error)
        return LateAnswer(status, _encode(body))

    def events(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Return the events of ``chunks`` as they are."""
        return chunks


class RpcBinding:
    """JSON-RPC. ``converted``: rewrites results for peers that speak an older version."""

    media_type = "application/json"

    def __init__(self, request_id: Any, converted: Callable[[Any], Any] | None = None) -> None:
        self._head = b'{"jsonrpc":"2.0","id":%b,"result":' % _encode(request_id)
        self._id = request_id
        self._converted = converted

    def result(self, result: Any) -> LateAnswer:
        """Return the response with ``result``."""
        return LateAnswer(200, self._wrapped(_encode(result)))

    def _wrapped(self, result: bytes) -> bytes:
        if self._converted is not None:
            result = _encode(self._converted(msgspec.json.decode(result)))
        return self._head + result + b"}"

    def error(self, error: AgentServiceError, code: int | None = None) -> LateAnswer:
        """Return the response with ``error``."""
        return LateAnswer(200, _encode({"jsonrpc": "2.0", "id": self._id, "error": rpc_error(error, code=code)}))

    async def events(self, chunks: AsyncGenerator[bytes, None]) -> AsyncGenerator[bytes, None]:
        """Yield ``chunks`` with each event as a response."""
        async with contextlib.aclosing(chunks):
            async for chunk in chunks:
                events = chunk.split(b"\n\n")  # JSON has no line break of its own
                yield b"\n\n".join(
                    [b"data: " + self._wrapped(event[6:]) if event.startswith(b"data: ") else event for event in events]
                )


Binding = HttpBinding | RpcBinding


async def outcome(binding: Binding, work: Work) -> LateAnswer:
    """Do ``work``; return the response with its result or its error."""
    try:
        return binding.result(await work())
    except AgentServiceError as error:
        if error.status == 500:
            raise
        return binding.error(error)


def response(binding: Binding, answer: LateAnswer, error: AgentServiceError | None = None) -> WholeAnswer:
    """Return ``answer`` as a response that is complete."""
    wait = getattr(error, "retry_after", None)
    headers = {} if wait is None else {"Retry-After": str(max(1, math.ceil(wait)))}
    return WholeAnswer(answer, media_type=binding.media_type, headers=headers)


class TaskAnswer(JsonAnswer):
    """A response that waits for a task; a process that drains answers with the task as it is by then."""

    __slots__ = ("_current", "kind")

    def __init__(
        self, streams: Any, settled: Awaitable[LateAnswer], current: Work, media_type: str, holder: Any
    ) -> None:
        super().__init__(streams, settled, holder=holder)
        self._current = current
        self.kind = media_type.encode()

    async def _drained(self) -> None:
        if not self._begun:
            await self._send_whole(await self._current())
