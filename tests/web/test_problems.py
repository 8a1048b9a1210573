"""Every error is problem+json with a helpful sentence and no internals."""

from enum import Enum
from typing import Annotated, Any, Literal
from uuid import UUID

import msgspec
import pytest
import structlog
from litestar import get, post, put
from litestar.exceptions import HTTPException, NotAuthorizedException
from litestar.params import FromPath, FromQuery, JSONBody
from structlog.typing import EventDict

from app.base import errors
from app.infra.http.problems import KINDS, WHERE
from tests.web.serving import serving

SECRET = "SELECT key FROM secrets"


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Circle(msgspec.Struct, tag="circle", tag_field="kind"):
    radius: Annotated[int, msgspec.Meta(ge=1, le=9)]


class Square(msgspec.Struct, tag="square", tag_field="kind"):
    side: float = 1


class Line(msgspec.Struct):
    role: Literal["user", "ai"]
    colour: Colour = Colour.RED
    sizes: dict[str, int] = {}


class Drawing(msgspec.Struct, rename={"slashed": "a/b~c"}):
    lines: list[Line] = []
    shape: Circle | Square | None = None
    mode: Literal["values", "updates"] | list[Literal["values", "updates"]] | None = None
    pair: tuple[int, str] = (0, "")
    owner: UUID | None = None
    slashed: bool = False
    name: Annotated[str, msgspec.Meta(max_length=3)] = ""


@post("/drawings", status_code=200)
async def draw(data: JSONBody[Drawing]) -> Drawing:
    return data


@get("/threads/{thread_id:str}")
async def thread(
    thread_id: FromPath[UUID], limit: FromQuery[int] = 10, mode: FromQuery[Literal["a", "b"]] = "a"
) -> str:
    return f"{thread_id} {limit} {mode}"


@get("/needs")
async def needs(word: FromQuery[str]) -> str:
    return word


def raising(error: Exception) -> Any:
    @get("/boom")
    async def boom() -> None:
        raise error

    return boom


async def problem_of(error: Exception) -> tuple[dict[str, Any], dict[str, str], list[EventDict]]:
    """(problem, headers, log lines) of a handler that raises ``error``."""
    with structlog.testing.capture_logs() as lines:
        async with serving(raising(error)) as client:
            response = await client.get("/boom")
    assert response.headers["content-type"] == "application/problem+json"
    problem = response.json()
    assert problem["status"] == response.status_code
    assert problem["type"] == f"/docs/errors#{KINDS[response.status_code].slug}"
    return problem, dict(response.headers), lines


@pytest.mark.parametrize(
    "kind",
    [
        errors.BadRequest,
        errors.Unauthenticated,
        errors.Forbidden,
        errors.NotFound,
        errors.Conflict,
        errors.Gone,
        errors.Invalid,
        errors.Limited,
        errors.NotBuilt,
        errors.Unavailable,
    ],
)
async def test_an_error_of_our_tree_keeps_its_status_its_title_and_its_sentence(kind: Any) -> None:
    problem, _, _ = await problem_of(kind("Do this instead."))
    assert (problem["status"], problem["title"], problem["detail"]) == (kind.status, kind.title, "Do this instead.")
    assert problem["instance"] == "/boom"


@pytest.mark.parametrize("kind, wait", [(errors.Limited, "3"), (errors.Unavailable, "3")])
async def test_retry_after_is_in_whole_seconds(kind: Any, wait: str) -> None:
    _, headers, _ = await problem_of(kind("Later.", 2.1))
    assert headers["retry-after"] == wait


@pytest.mark.parametrize("error", [errors.Unauthenticated("No key."), NotAuthorizedException("No key.")])
async def test_a_request_without_a_key_gets_the_scheme(error: Exception) -> None:
    problem, headers, _ = await problem_of(error)
    assert (problem["status"], headers["www-authenticate"]) == (401, "Bearer")


@pytest.mark.parametrize(
    "error",
    [
        ValueError(SECRET),
        KeyError(SECRET),
        errors.AgentError(SECRET),
        errors.LeaseLost(SECRET),
        errors.ModelRejected(SECRET, vendor="x"),
        errors.ModelRateLimited(SECRET, vendor="x", retry_after=1),
        msgspec.ValidationError(SECRET),
        msgspec.DecodeError(SECRET),
        HTTPException(SECRET, status_code=500),
    ],
)
async def test_internal_errors_are_logged_and_not_shown(error: Exception) -> None:
    problem, headers, lines = await problem_of(error)
    assert problem["status"] == 500
    assert SECRET not in str(problem)
    assert SECRET not in str(headers)
    [line] = lines
    assert line["event"] == "request_failed"
    if isinstance(error, errors.ModelError):  # its words are the provider's, which may repeat the prompt
        assert line["error"] == type(error).__name__
        assert SECRET not in str(line)
    else:
        assert line["exc_info"] == error
    assert "request_id" in problem["detail"]


async def test_errors_of_a_client_write_no_log_line() -> None:
    _, _, lines = await problem_of(errors.NotFound("No such thread."))
    assert lines == []


async def test_an_unknown_path_is_404() -> None:
    async with serving(draw) as client:
        problem = (await client.get("/nope")).json()
    assert (problem["status"], problem["detail"]) == (404, f"No route matches /nope. {WHERE}")


async def test_a_wrong_method_gets_the_allowed_ones() -> None:
    @put("/drawings")
    async def replace() -> None: ...

    async with serving(draw, replace) as client:
        response = await client.delete("/drawings")
    assert response.status_code == 405
    assert response.headers["allow"] == "OPTIONS, POST, PUT"
    assert response.json()["detail"] == "DELETE is not allowed here; use OPTIONS, POST, PUT."


async def test_an_invalid_host_header_is_400() -> None:
    async with serving(draw) as client:
        response = await client.get("/", headers={"host": "a b"})
    assert response.status_code == 400
    assert response.headers["content-type"] == "application/problem+json"


@pytest.mark.parametrize(
    "query, sentence, parameter",
    [
        ("limit=x", "`limit` must be an integer, not a string.", "limit"),
        ("mode=q", "`mode` has the invalid enum value 'q': use one of a, b.", "mode"),
    ],
)
async def test_a_parameter_that_does_not_fit_is_422(query: str, sentence: str, parameter: str) -> None:
    async with serving(thread) as client:
        response = await client.get(f"/threads/01a206d1-e7f2-7379-81bc-ab80d7f491cc?{query}")
    assert response.status_code == 422
    assert response.json()["errors"] == [{"detail": sentence, "parameter": parameter}]


@pytest.mark.parametrize("text", ["abc", "01a206d1-e7f2-7379-81bc", "a%20b", "%F0%9F%98%80"])
async def test_a_path_id_that_is_not_a_uuid_is_422_by_name(text: str) -> None:
    async with serving(thread) as client:
        response = await client.get(f"/threads/{text}")
    assert (response.status_code, response.json()["detail"]) == (422, "Invalid thread ID: must be a UUID")


async def test_a_missing_parameter_is_422() -> None:
    async with serving(needs) as client:
        response = await client.get("/needs")
    assert (response.status_code, response.json()["detail"]) == (422, "Missing required query parameter 'word'.")


@pytest.mark.parametrize(
    "body, pointer, sentence",
    [
        ('{"lines": [{"role": "ai"}, {}]}', "/lines/1/role", "`lines[1].role` is required."),
        (
            '{"lines": [{"role": "x"}]}',
            "/lines/0/role",
            "`lines[0].role` has the invalid enum value 'x': use one of ai, user.",
        ),
        (
            '{"lines": [{"role": "ai", "colour": "green"}]}',
            "/lines/0/colour",
            "`lines[0].colour` has the invalid enum value 'green': use one of blue, red.",
        ),
        ('{"mode": "q"}', "/mode", "`mode` has the invalid enum value 'q': use one of updates, values."),
        ('{"mode": ["q"]}', "/mode/0", "`mode[0]` has the invalid enum value 'q': use one of updates, values."),
        ('{"mode": 1}', "/mode", "`mode` must be a string or an array or null, not an integer."),
        (
            '{"shape": {"kind": "star"}}',
            "/shape/kind",
            "`shape.kind` has the invalid value 'star': use one of circle, square.",
        ),
        ('{"shape": {"kind": "circle", "radius": 10}}', "/shape/radius", "`shape.radius` must be an integer <= 9."),
        ('{"pair": [1]}', "/pair", "`pair` must be an array of length 2."),
        ('{"owner": "me"}', "/owner", "`owner` is invalid: invalid UUID."),
        ('{"name": "four"}', "/name", "`name` must be a string of length <= 3."),
        (
            '{"lines": [{"role": "ai", "sizes": {"a": "b"}}]}',
            "/lines/0/sizes",
            "A value in `lines[0].sizes` must be an integer, not a string.",
        ),
        ('{"a/b~c": 1}', "/a~1b~0c", "`a/b~c` must be true or false, not an integer."),
        ("[]", "", "The body must be an object, not an array."),
    ],
)
async def test_a_body_that_does_not_fit_is_422_with_a_pointer(body: str, pointer: str, sentence: str) -> None:
    async with serving(draw) as client:
        response = await client.post("/drawings", content=body, headers={"content-type": "application/json"})
    problem = response.json()
    assert (response.status_code, problem["detail"]) == (422, sentence)
    assert problem["errors"] == [{"detail": sentence, "pointer": pointer}]


async def test_a_clients_own_long_value_is_not_repeated_whole() -> None:
    async with serving(draw) as client:
        response = await client.post("/drawings", json={"mode": "x" * 100_000})
    assert len(response.content) < 1500


async def test_the_titles_are_those_of_the_tree() -> None:
    tree = [kind for kind in errors.AgentServiceError.__subclasses__() if kind.status != 500]
    assert [kind.title for kind in tree] == [KINDS[kind.status].title for kind in tree]
