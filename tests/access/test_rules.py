"""Results of handlers, their effect, and which handler is called."""

import dataclasses
import re
from pathlib import Path
from typing import Any
from uuid import uuid4

import httpx
import pytest
from langgraph_sdk import Auth

from app.base.errors import Forbidden, Refused, Unauthenticated
from app.features.access import custom_auth
from app.infra.db.pool import APP_ROLE
from app.security.access.custom_auth_handlers import AuthHandlers, HandlerFailed, User
from tests.access.test_tenants import INPUT
from tests.statements import sent_by
from tests.system.services import API, Service, serving

ANN = User({"identity": "ann", "permissions": []})

ONLY_FILTERS = '''
from langgraph_sdk import Auth

auth = Auth()

@auth.authenticate
def authenticate(request, body, query_params, path_params, scopes, **more):
    """Synchronous, with every argument."""
    assert request.headers["x-api-key"] == more["headers"]["X-Api-Key"].decode()
    assert body is None or isinstance(body, dict | list)
    return request.headers["x-api-key"]

@auth.on.threads
async def threads(ctx, value):
    return {"members": {"$contains": [ctx.user.identity]}, "closed": {"$eq": False}}

@auth.on.threads.delete
async def delete(ctx, value):
    return False

@auth.on.threads.search
async def search(ctx, value):
    raise Auth.exceptions.HTTPException(status_code=403, detail="Searching is not allowed.")

@auth.on.store
async def store(ctx, value):
    return {"owner": ctx.user.identity}
'''


def registered(*places: tuple[str | None, str | None]) -> AuthHandlers:
    """Handlers that return where they are registered."""
    auth = Auth()

    @auth.authenticate
    async def authenticate() -> str:
        return "ann"

    for resource, action in places:

        def handler(said: str) -> Any:
            async def answer(ctx: Any, value: Any) -> Any:
                return {"handler": said}

            return answer

        decorator: Any = auth.on
        decorator(resources=resource, actions=action)(handler(f"{resource}.{action}"))
    return AuthHandlers(auth, "test")


def answering(answer: Any) -> AuthHandlers:
    auth = Auth()

    @auth.authenticate
    async def authenticate() -> str:
        return "ann"

    @auth.on
    async def handler(ctx: Any, value: Any) -> Any:
        if isinstance(answer, BaseException):
            raise answer
        return answer

    return AuthHandlers(auth, "test")


@pytest.mark.parametrize(
    "places, asked",
    [
        ([("threads", "read"), ("threads", None), (None, None)], "threads.read"),
        ([("threads", None), (None, "read"), (None, None)], "threads.None"),
        ([(None, "read"), (None, None)], "None.read"),
        ([("threads", "create"), (None, None)], "None.None"),
    ],
)
async def test_the_most_specific_handler_is_asked(places: list[tuple[str | None, str | None]], asked: str) -> None:
    assert await registered(*places).authorize(ANN, "threads", "read", {}) == f'{{"handler":"{asked}"}}'


async def test_without_a_handler_everything_is_permitted() -> None:
    assert await registered(("threads", "create")).authorize(ANN, "threads", "read", {}) is None


@pytest.mark.parametrize(
    "answer, owned",
    [
        (None, None),
        (True, None),
        ({}, None),
        ({"owner": "ann"}, '{"owner":"ann"}'),
        ({"owner": {"$eq": "ann"}}, '{"owner":"ann"}'),
        ({"members": {"$contains": "ann"}}, '{"members":["ann"]}'),
        ({"members": {"$contains": ["ann", "bob"]}, "open": True}, '{"members":["ann","bob"],"open":true}'),
    ],
)
async def test_a_filter_is_what_metadata_must_contain(answer: Any, owned: str | None) -> None:
    assert await answering(answer).authorize(ANN, "threads", "read", {}) == owned


@pytest.mark.parametrize(
    "answer", ["ann", 1, {"owner": {"$ne": "bob"}}, {"owner": {"$eq": {"a": 1}}}, {"owner": ["ann"]}, KeyError("ann")]
)
async def test_an_invalid_result_of_a_handler_refuses_the_request(answer: Any) -> None:
    with pytest.raises(HandlerFailed):
        await answering(answer).authorize(ANN, "threads", "read", {})


@pytest.mark.parametrize("answer", [False, AssertionError("no")])
async def test_a_handler_can_refuse(answer: Any) -> None:
    with pytest.raises(Forbidden):
        await answering(answer).authorize(ANN, "threads", "read", {})


async def test_an_http_exception_becomes_the_response() -> None:
    error = Auth.exceptions.HTTPException(status_code=409, detail="later", headers={"X-A": "1", "X-B": "a\r\nX-C: 2"})
    with pytest.raises(Refused, match="later") as raised:
        await answering(error).authorize(ANN, "threads", "read", {})
    assert (raised.value.status, raised.value.headers) == (409, {"X-A": "1"})


@pytest.mark.parametrize("metadata", [{"owner": "bob"}, {"owner": ["ann"]}, {"owner": None}])
async def test_no_resource_is_created_for_another_user(metadata: dict[str, Any]) -> None:
    for action in ("create", "update", "create_run"):
        with pytest.raises(Forbidden, match="inaccessible to you"):
            await answering({"owner": "ann"}).authorize(ANN, "threads", action, {"metadata": metadata})
    assert await answering({"owner": "ann"}).authorize(ANN, "threads", "update", {"metadata": {"a": 1}})


@dataclasses.dataclass
class Made:
    identity: str
    permissions: tuple[str, ...] = ("a",)
    is_authenticated: bool = True


class Plain:
    def __init__(self) -> None:
        self.identity = "ann"
        self.team = "red"


@pytest.mark.parametrize(
    "user, permissions, team",
    [
        ("ann", [], None),
        ({"identity": "ann", "permissions": ["a"], "team": "red"}, ["a"], "red"),
        (Made("ann"), ["a"], None),
        (Plain(), [], "red"),
    ],
)
async def test_a_user_may_be_anything_with_an_identity(user: Any, permissions: list[str], team: str | None) -> None:
    auth = Auth()

    @auth.authenticate
    async def authenticate() -> Any:
        return user

    shown = await AuthHandlers(auth, "test").authenticate({})
    assert (shown["identity"], shown["permissions"], shown.get("team")) == ("ann", permissions, team)
    seen = User(shown)
    assert (seen.identity, seen["identity"], "identity" in seen) == ("ann", "ann", True)
    assert isinstance(seen, Auth.types.MinimalUser)


@pytest.mark.parametrize("user", [None, {"identity": "ann", "is_authenticated": False}, Made("ann", (), False)])
async def test_a_user_without_an_identity_gets_401(user: Any) -> None:
    auth = Auth()

    @auth.authenticate
    async def authenticate() -> Any:
        return user

    with pytest.raises(Unauthenticated):
        await AuthHandlers(auth, "test").authenticate({})


async def test_filters_alone_bound_threads_by_lists_and_values(database_url: str, tmp_path: Path) -> None:
    """If the handler does not stamp, the creator names the owner, within its own filter."""
    (tmp_path / "auth.py").write_text(ONLY_FILTERS)
    (tmp_path / "agents.toml").write_text('[auth]\npath = "./auth.py:auth"\n')
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(tmp_path / "agents.toml")) as service:
        ann, bob, eve = (f"{name}-{uuid4().hex}" for name in ("ann", "bob", "eve"))

        async def make(who: str, **metadata: Any) -> httpx.Response:
            return await ask(service, who, "POST", "/threads", {"metadata": metadata})

        both = (await make(ann, members=[ann, bob], closed=False)).json()["thread_id"]
        assert (await make(ann, members=[bob], closed=False)).status_code == 403
        assert (await make(ann, members=bob)).status_code == 403
        for who, status in ((ann, 200), (bob, 200), (eve, 404)):
            assert (await ask(service, who, "GET", f"/threads/{both}")).status_code == status
            run = await ask(
                service, who, "POST", f"/threads/{both}/runs/wait", {"assistant_id": "echo", "input": INPUT}
            )
            assert run.status_code == status
        assert (await ask(service, ann, "DELETE", f"/threads/{both}")).status_code == 403
        refused = await ask(service, ann, "POST", "/threads/search", {})
        assert (refused.status_code, refused.json()["detail"]) == (403, "Searching is not allowed.")
        assert (await ask(service, ann, "POST", "/store/items/search", {})).status_code == 403
        closing = await ask(service, ann, "PATCH", f"/threads/{both}", {"metadata": {"closed": True}})
        assert closing.status_code == 403


async def ask(service: Service, token: str, method: str, path: str, body: Any = None) -> httpx.Response:
    return await service.client.request(method, API + path, json=body, headers={"x-api-key": token})


async def test_a_filter_costs_no_statement_of_its_own(database_url: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(custom_auth, "CACHE_TTL", 600.0)
    file = str(Path(__file__).parent / "handlers" / "agents.toml")
    results = []
    for config in ("", file):
        async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=config) as service:
            thread = (await ask(service, "ann", "POST", "/threads", {})).json()["thread_id"]
            asked = {"assistant_id": "echo", "input": INPUT}
            await ask(service, "ann", "POST", f"/threads/{thread}/runs/wait", asked)
            counts = []
            for method, path, body in (
                ("GET", f"/threads/{thread}", None),
                ("GET", f"/threads/{thread}/state", None),
                ("GET", f"/threads/{thread}/runs", None),
                ("POST", "/threads/search", {"ids": [thread]}),
                ("POST", f"/threads/{thread}/runs/wait", asked),
            ):
                async with sent_by(service.services.persistence.database) as statements:
                    assert (await ask(service, "ann", method, path, body)).status_code == 200
                # not counting periodic background queries, which do not use these tables
                counts.append(len([one for one in statements.of(APP_ROLE) if re.search("threads|runs", one)]))
            results.append(counts)
    assert results[0] == results[1]
    assert all(results[0][:4]), "a request that reads sends a statement"
