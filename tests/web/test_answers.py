"""Our request and response classes behave as Litestar's."""

from typing import Any

import msgspec
from litestar import Request, Response, delete, post
from litestar.params import JSONBody

from tests.web.serving import Message, application, scope


class Thing(msgspec.Struct):
    name: str


@post("/things", status_code=200)
async def things(data: JSONBody[Thing], request: Request[Any, Any, Any]) -> dict[str, str]:
    return {"name": data.name, "again": (await request.body()).decode()}


@delete("/things")
async def remove() -> None:
    """No content."""


@delete("/others")
async def remove_other() -> Response[None]:
    return Response(None, headers={"x-left": "3"})


async def ask(method: str, path: str, *messages: Message) -> list[Message]:
    coming = iter(messages)
    sent: list[Message] = []

    async def receive() -> Any:
        return next(coming)

    async def send(message: Any) -> None:
        sent.append(message)

    await application(things, remove, remove_other)(scope(method, path), receive, send)  # type: ignore[arg-type]
    return sent


def piece(body: bytes, *, more: bool) -> Message:
    return {"type": "http.request", "body": body, "more_body": more}


async def test_a_body_in_pieces_is_one_body_however_often_it_is_asked_for() -> None:
    start, body = await ask("POST", "/things", piece(b'{"name":', more=True), piece(b' "a"}', more=False))
    assert start["status"] == 200
    assert msgspec.json.decode(body["body"]) == {"name": "a", "again": '{"name": "a"}'}


async def test_an_incomplete_body_is_a_client_error() -> None:
    start, *_ = await ask("POST", "/things", piece(b'{"name":', more=True), {"type": "http.disconnect"})
    assert start["status"] == 400


async def test_an_answer_without_content_says_nothing_of_one() -> None:
    for _ in range(2):
        start, body = await ask("DELETE", "/things")
        assert (start["status"], list(start["headers"]), body["body"]) == (204, [], b"")


async def test_an_answer_without_content_keeps_its_headers() -> None:
    start, body = await ask("DELETE", "/others")
    assert (start["status"], list(start["headers"]), body["body"]) == (204, [(b"x-left", b"3")], b"")
