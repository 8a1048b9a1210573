"""Citations: the tool ``knowledge``, ``context.documents`` and the search return exact positions."""

import contextlib
import json
from collections.abc import AsyncIterator, Sequence
from pathlib import Path
from typing import Any
from uuid import UUID

import pytest
from aiohttp import web

from app.agents.function import Context
from app.agents.functions.agent import FunctionAgent, FunctionResources
from app.agents.tool_loop.calls import Toolbox
from app.agents.tools.port import LongTerm, Tool, ToolClass, ToolContext
from app.agents.tools.registry import find_tool
from app.base.code_loader import load
from app.base.errors import Invalid, StartError
from app.base.ids import new_id
from app.security.access.structs import tenant_id_of
from app.server.composition.documents import DocumentServices
from tests.agents.functions import Crash, Dying, crashed, texts
from tests.documents.conftest import Library, Tenant, library_on
from tests.documents.samples import BOOK, pdf
from tests.llm.scripted_model import ScriptedModel

BOATS = b"A sloop has one mast. A ketch has two masts, and the taller one is forward."
BREAD = b"Bread needs flour, water, salt and time. Sourdough needs more time than others."


def longterm_of(library: Library) -> LongTerm:
    services = library.service.services
    return DocumentServices(services.persistence.database, services.features.store).library


def tool_of(library: Library, name: str = "knowledge") -> Tool:
    return find_tool(name, Path(), load, longterm_of(library))


def context(tenant: str = "ours") -> ToolContext:
    return ToolContext(
        tenant_id=str(tenant_id_of(tenant)),
        thread_id=str(new_id()),
        run_id=str(new_id()),
        call_id="c",
        idempotency_key="k",
        emit=lambda _: None,
        value=lambda _: None,
        interrupt=lambda *_: None,
    )


async def test_the_best_passage_comes_first_with_its_citation(ours: Tenant) -> None:
    boats = await ours.upload(BOATS, title="Boats", collection="sea", metadata='{"year": 2001}')
    await ours.upload(BREAD, title="Bread", collection="land", metadata='{"year": 2010}')
    best = (await ours.search("which boat has two masts"))[0]
    assert best.pop("score") > 0.9
    assert best == {
        "document_id": boats["document_id"],
        "title": "Boats",
        "collection": "sea",
        "chunk": 0,
        "start": 0,
        "end": len(BOATS),
        "page": None,
        "text": BOATS.decode(),
        "metadata": {"year": 2001},
    }


async def test_a_search_stays_within_its_collection_documents_and_filter(ours: Tenant) -> None:
    boats = await ours.upload(BOATS, title="Boats", collection="sea", metadata='{"year": 2001}')
    await ours.upload(BREAD, title="Bread", collection="land", metadata='{"year": 2010}')

    async def titles(**more: Any) -> list[str]:
        return [one["title"] for one in await ours.search("time masts", **more)]

    assert sorted(await titles()) == ["Boats", "Bread"]
    assert await titles(collection="sea") == ["Boats"]
    assert await titles(collection="se") == []
    assert await titles(filter={"year": {"$gt": 2005}}) == ["Bread"]
    assert await titles(filter={"year": 2001}) == ["Boats"]
    assert await titles(document_ids=[boats["document_id"]]) == ["Boats"]
    assert await titles(document_ids=[]) == []
    assert len(await titles(limit=1)) == len(await titles(limit=1, offset=1)) == 1


async def test_a_large_collection_is_searched_by_its_indexes(ours: Tenant) -> None:
    """With more chunks than an exact scan compares."""
    await ours.upload(BOOK * 90)
    await ours.upload(b"The heron stands in the reeds.", title="Heron", metadata='{"bird": true}')
    found = await ours.search("a heron in the reeds", limit=3)
    assert found[0]["title"] == "Heron"
    assert [one["title"] for one in await ours.search("speaks of", filter={"bird": True})] == ["Heron"]


async def test_the_tool_returns_numbered_passages_and_citations_for_clients(ours: Tenant, library: Library) -> None:
    pages = [f"Page {n} tells of thing{n} and nothing else." for n in range(1, 60)]
    document = await ours.upload(pdf(pages, "Things"), "application/pdf")
    knowledge = tool_of(library)
    assert knowledge.tool_class is ToolClass.READ_ONLY
    result = await knowledge.call({"query": "thing50", "limit": 1}, context())
    (citation,) = result.artifact["citations"]
    assert str(result.content).startswith(f"[1] Things, page {citation['page']} (document {document['document_id']}")
    text = await ours.text(document["document_id"])
    assert "thing50" in text[citation["start"] : citation["end"]]
    assert 1 <= citation["page"] <= 50
    nothing = await knowledge.call({"query": "thing50"}, context("theirs"))
    assert (nothing.content, nothing.artifact) == ("No document matches the query.", {"citations": []})
    with pytest.raises(ValueError, match="1 to 8000"):
        await knowledge.call({"query": " "}, context())


async def test_a_tool_may_be_bound_to_a_collection(ours: Tenant, library: Library) -> None:
    await ours.upload(BOATS, title="Boats", collection="sea")
    await ours.upload(BREAD, title="Bread", collection="land")
    knowledge = tool_of(library, "knowledge:sea")
    assert knowledge.spec.name == "knowledge_sea"
    result = await knowledge.call({"query": "time masts"}, context())
    assert [one["title"] for one in result.artifact["citations"]] == ["Boats"]
    for wrong in ("knowledge:", "knowledge:a b", "knowledge:" + "x" * 60):
        with pytest.raises(StartError, match="name of a collection"):
            find_tool(wrong, Path(), load)
    with pytest.raises(StartError, match="did you mean 'knowledge'"):
        find_tool("knowlege", Path(), load)


async def test_an_agent_uses_the_tool(fresh_database_url: str, tmp_path: Path) -> None:
    """A model of the OpenAI API calls the tool; the tool message has the citations."""
    file = tmp_path / "agents.toml"
    file.write_text('[agents.librarian]\nmodel = "openai:gpt"\ntools = ["knowledge:sea"]\n')
    call = {"id": "c1", "type": "function", "function": {"name": "knowledge_sea", "arguments": '{"query": "masts"}'}}
    asked = {"role": "assistant", "content": "", "tool_calls": [{**call, "index": 0}]}
    async with provider([asked, {"role": "assistant", "content": "Two [1]."}]) as url:
        settings = {"AGENT_CONFIG": str(file), "OPENAI_BASE_URL": url, "OPENAI_API_KEY": "k"}
        async with library_on(fresh_database_url, **settings) as library, library.tenant("t") as ours:
            await ours.upload(BOATS, title="Boats", collection="sea")
            body = {"assistant_id": "librarian", "input": {"messages": [{"role": "user", "content": "How many?"}]}}
            answer = (await ours.http.post("/runs/wait", json=body)).json()
    (message,) = [one for one in answer["messages"] if one["type"] == "tool"]
    (citation,) = message["artifact"]["citations"]
    assert message["content"].startswith("[1] Boats")
    assert BOATS.decode()[citation["start"] : citation["end"]] == BOATS.decode()
    assert answer["messages"][-1]["content"] == "Two [1]."


@contextlib.asynccontextmanager
async def provider(messages: Sequence[dict[str, Any]]) -> AsyncIterator[str]:
    """A Chat Completions server that answers with ``messages``, one after the other."""
    remaining = list(messages)

    async def answer(request: web.Request) -> web.StreamResponse:
        response = web.StreamResponse(headers={"Content-Type": "text/event-stream"})
        await response.prepare(request)
        message = remaining.pop(0)
        reason = "tool_calls" if "tool_calls" in message else "stop"
        for choice in ({"delta": message, "finish_reason": None}, {"delta": {}, "finish_reason": reason}):
            chunk = {"id": "x", "object": "chat.completion.chunk", "choices": [{"index": 0, **choice}]}
            await response.write(b"data: " + json.dumps(chunk).encode() + b"\n\n")
        await response.write(b"data: [DONE]\n\n")
        return response

    app = web.Application()
    app.router.add_post("/v1/chat/completions", answer)
    runner = web.AppRunner(app, access_log=None, shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0).start()
    try:
        yield f"http://127.0.0.1:{runner.addresses[0][1]}/v1"
    finally:
        await runner.cleanup()


async def test_a_restarted_function_searches_once(ours: Tenant, library: Library) -> None:
    await ours.upload(BOATS, title="Boats", collection="sea")

    async def run(context: Context) -> str:
        found = await context.documents.search("two masts", collection="sea", limit=1)
        with pytest.raises(Invalid, match="not a valid name"):
            await context.documents.search("x", collection="a.b")
        return f"{found[0].title} {found[0].chunk} {found[0].start} {found[0].end} {found[0].document_id}"

    resources = FunctionResources(ScriptedModel(()), Toolbox([], lambda *_: None), store=longterm_of(library))
    tested = FunctionAgent("test", "./test.py:run", run, resources)
    first = Dying()
    first.tenant_id, first.max_steps = tenant_id_of("ours"), 1
    with pytest.raises(Crash):
        await first.play(tested, "go")
    (document,) = (await ours.http.get("/documents")).json()
    assert (await ours.http.delete(f"/documents/{document['document_id']}")).status_code == 204
    again = crashed(first)
    again.tenant_id = first.tenant_id
    await again.play(tested)
    said = str(texts(again)[-1]).split()
    assert said[:4] == ["Boats", "0", "0", str(len(BOATS))]
    assert UUID(said[4]) == UUID(document["document_id"])
