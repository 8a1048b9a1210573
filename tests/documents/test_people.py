"""Auth handlers restrict documents as they restrict everything: those of another user do not exist."""

import contextlib
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest

from tests.access.test_handlers import FILE
from tests.documents.conftest import Tenant
from tests.system.program import Program

TEXT = b"The heron stands in the reeds."


@pytest.fixture
async def program(fresh_database_url: str) -> AsyncIterator[Program]:
    async with Program.on(fresh_database_url, AGENT_AUTH="none", AGENT_CONFIG=FILE) as program:
        yield program


@contextlib.asynccontextmanager
async def people(program: Program, *names: str) -> AsyncIterator[list[Tenant]]:
    """Clients of users whose tokens are their ``names``; an API key is accepted too."""
    async with contextlib.AsyncExitStack() as stack:
        clients = [program.client(authorization=f"Bearer {name}") for name in names]
        yield [Tenant(await stack.enter_async_context(client)) for client in clients]


async def test_a_user_reads_finds_and_deletes_only_their_documents(program: Program) -> None:
    async with people(program, "ann", "bob") as (ann, bob):
        mine, other = await ann.upload(TEXT), await bob.upload(TEXT)
        assert mine["metadata"] == {"owner": "ann"}
        assert mine["document_id"] != other["document_id"]  # the same content, but each their own
        assert [one["document_id"] for one in await ann.search("heron")] == [mine["document_id"]]
        assert [one["document_id"] for one in (await ann.http.get("/documents")).json()] == [mine["document_id"]]
        for path in ("", "/chunks", "/content", "/text"):
            assert (await ann.http.get(f"/documents/{mine['document_id']}{path}")).status_code == 200
            assert (await ann.http.get(f"/documents/{other['document_id']}{path}")).status_code == 404
        assert (await ann.http.delete(f"/documents/{other['document_id']}")).status_code == 404
        assert (await bob.get(other["document_id"]))["status"] == "ready"
        assert (await ann.http.delete(f"/documents/{mine['document_id']}")).status_code == 204


async def ask(user: Tenant, agent: str, text: str) -> Any:
    """Return the answer of ``agent`` in a stateless run of ``user``."""
    body = {"assistant_id": agent, "input": {"messages": [{"role": "user", "content": text}]}}
    answer = await user.http.post("/runs/wait", json=body)
    assert answer.status_code == 200, answer.text
    assert "__error__" not in answer.json(), answer.text
    return answer.json()["messages"][-1]["content"]


async def test_an_agent_shows_a_user_only_what_they_may_read(program: Program) -> None:
    """By tool, from a function, in the store and in memories: users of one tenant."""
    async with people(program, "ann", "bob", "eve") as (ann, bob, eve):
        await ann.upload(TEXT)
        await ask(ann, "scribe", "The heron is called Hera.")
        await bob.upload(b"The heron of Bob is grey.")
        hers, his, nothing = [json.loads(await ask(user, "librarian", "heron")) for user in (ann, bob, eve)]
    assert hers["documents"] == [TEXT.decode()]
    assert hers["store"] == ["The heron is called Hera."]
    assert (hers["tool"].count("heron"), hers["memory"].count("Hera")) == (1, 1)
    assert his["documents"] == ["The heron of Bob is grey."]
    assert (his["tool"].count("heron"), his["store"]) == (1, [])
    assert "Hera" not in json.dumps(his)
    assert nothing == {
        "tool": "No document matches the query.",
        "documents": [],
        "store": [],
        "memory": "Nothing is remembered.",
    }


async def test_items_that_an_agent_stores_for_a_user_are_found_by_their_requests(program: Program) -> None:
    async with people(program, "ann", "bob") as (ann, bob):
        await ask(ann, "scribe", "The heron is called Hera.")
        for user, found in ((ann, True), (bob, False)):
            item = (await user.http.get("/store/items", params={"namespace": "messages", "key": "by agent"})).json()
            assert bool(item) is found


async def test_a_run_claimed_by_another_process_is_restricted_as_well(fresh_database_url: str) -> None:
    settings: dict[str, Any] = {"AGENT_AUTH": "none", "AGENT_CONFIG": FILE}
    async with (
        Program.on(fresh_database_url, **settings, AGENT_ROLE="worker"),
        Program.on(fresh_database_url, **settings, AGENT_ROLE="api") as front,
        people(front, "ann", "bob") as (ann, bob),
    ):
        await ann.upload(TEXT)
        hers, his = [json.loads(await ask(user, "librarian", "heron")) for user in (ann, bob)]
    assert hers["documents"] == [TEXT.decode()]
    assert (his["documents"], his["tool"]) == ([], "No document matches the query.")


async def test_an_operators_api_key_is_restricted_only_by_its_tenant(fresh_database_url: str) -> None:
    async with (
        Program.on(fresh_database_url, AGENT_AUTH="api_key", AGENT_CONFIG=FILE) as program,
        people(program, "ann", await program.service.key("default")) as (ann, operator),
    ):
        await ann.upload(TEXT)
        assert json.loads(await ask(operator, "librarian", "heron"))["documents"] == [TEXT.decode()]


REFUSING = """
from langgraph_sdk import Auth

auth = Auth()

@auth.authenticate
async def authenticate(authorization: str) -> str:
    return authorization.removeprefix("Bearer ")

@auth.on(resources="documents", actions="search")
async def search(ctx, value):
    raise Auth.exceptions.HTTPException(status_code=403, detail=f"Not for {ctx.user.identity}: {value['query']}")
"""


async def test_a_handler_that_refuses_a_search_refuses_the_agent_too(fresh_database_url: str, tmp_path: Path) -> None:
    """The model gets the refusal as a tool error; the audit log names the user."""
    (tmp_path / "auth.py").write_text(REFUSING)
    (tmp_path / "agent.py").write_text(
        "async def run(context):\n    return str(await context.tools.call('knowledge', query='heron'))\n"
    )
    (tmp_path / "agents.toml").write_text(
        '[auth]\npath = "./auth.py:auth"\n[agents.one]\nfunction = "./agent.py:run"\ntools = ["knowledge"]\n'
    )
    async with (
        Program.on(fresh_database_url, AGENT_AUTH="none", AGENT_CONFIG=str(tmp_path / "agents.toml")) as program,
        people(program, "ann") as (ann,),
    ):
        await ann.upload(TEXT)
        body = {"assistant_id": "one", "input": {"messages": []}}
        answer = (await ann.http.post("/runs/wait", json=body)).json()
    assert "Not for ann: heron" in json.dumps(answer)
    assert "reeds" not in json.dumps(answer)
