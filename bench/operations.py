"""Operations of a client; each checks its response and raises ``Failed`` if it is wrong."""

from collections.abc import Awaitable, Callable
from typing import NamedTuple

from bench.client import TOKEN, Answer, Connection, Failed, request

API = "/api/v1"
HELLO = {"messages": [{"role": "user", "content": "hello"}]}
TOKENS = 100
"""Output of the agent ``stream100``."""


class Done(NamedTuple):
    """One operation: its events, and the seconds to the first of them and to the first token."""

    events: int
    first: float
    token: float = 0.0


Operation = Callable[[Connection], Awaitable[Done]]


def checked(answer: Answer) -> Answer:
    """Return ``answer`` if it is good. Raises ``Failed``."""
    if answer.status != 200:
        raise Failed(f"{answer.status} {answer.body[:200]!r}")
    return answer


def getting(path: str) -> Operation:
    """One GET."""
    ready = request("GET", path)

    async def get(connection: Connection) -> Done:
        return Done(1, checked(await connection.ask(ready)).first)

    return get


def reading_frames(path: str) -> Operation:
    """One GET of a stream of ready frames."""
    ready = request("GET", path)

    async def get(connection: Connection) -> Done:
        answer = checked(await connection.ask(ready))
        return Done(answer.body.count(b"\nid: "), answer.first, answer.token)

    return get


async def new_thread(connection: Connection) -> str:
    """Create a thread; return its id."""
    answer = checked(await connection.ask(NEW_THREAD))
    _, found, rest = answer.body.partition(b'"thread_id":"')
    if not found:
        raise Failed(f"no thread in {answer.body[:200]!r}")
    return rest[:36].decode()


NEW_THREAD = request("POST", f"{API}/threads", {})
ECHO = request("POST", "PATH", {"assistant_id": "echo", "input": HELLO})


async def echo(connection: Connection) -> Done:
    """Create a thread and wait for a run of ``echo`` on it: two requests."""
    thread = await new_thread(connection)
    answer = checked(await connection.ask(ECHO.replace(b"PATH", f"{API}/threads/{thread}/runs/wait".encode(), 1)))
    if b'"echo: hello"' not in answer.body:
        raise Failed(f"not an echo: {answer.body[:200]!r}")
    return Done(1, answer.first)


STREAM = request(
    "POST",
    f"{API}/runs/stream",
    {"assistant_id": "stream100", "input": HELLO, "stream_mode": "messages-tuple"},
)


async def stream100(connection: Connection) -> Done:
    """Stream a stateless run of a hundred tokens to its end."""
    answer = whole_stream(checked(await connection.ask(STREAM)))
    return Done(answer.body.count(b"\nid: "), answer.first, answer.token)


def whole_stream(answer: Answer) -> Answer:
    """Return ``answer`` if it is a complete stream. Raises ``Failed``."""
    if answer.body.count(TOKEN) < TOKENS or b'"status":"success"' not in answer.body[-300:]:
        raise Failed(f"not a whole stream: {answer.body[-300:]!r}")
    return answer


def token_bytes(body: bytes) -> float:
    """The mean bytes of a token's event in a stream, framing included."""
    frames = [frame for frame in body.split(b"\r\n\r\n") if frame.startswith(TOKEN)]
    return round(sum(len(frame) + 4 for frame in frames) / len(frames), 1)
