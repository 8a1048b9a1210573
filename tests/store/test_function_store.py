"""``context.store``: items of function agents outlive their threads; a restarted function reads what it read before."""

from typing import Any

import pytest

from app.agents.function import Context
from app.agents.functions.agent import FunctionAgent, FunctionResources
from app.agents.tool_loop.calls import Toolbox
from app.base.errors import Invalid
from app.security.access.structs import tenant_id_of
from tests.agents.functions import Crash, Dying, crashed, texts
from tests.llm.scripted_model import ScriptedModel
from tests.store.conftest import Store, Tenant, longterm_of


def agent_on(store: Store | None, function: Any) -> FunctionAgent:
    longterm = None if store is None else longterm_of(store)
    resources = FunctionResources(ScriptedModel(()), Toolbox([], lambda *_: None), store=longterm)
    return FunctionAgent("test", "./test.py:run", function, resources)


def run_of(tenant: str, most: int = 100) -> Dying:
    run = Dying()
    run.tenant_id, run.max_steps = tenant_id_of(tenant), most
    return run


async def test_a_function_stores_finds_and_deletes_items_of_its_tenant(
    store: Store, ours: Tenant, theirs: Tenant
) -> None:
    answers: list[Any] = []

    async def run(context: Context) -> str:
        await context.store.put(["notes"], "a", {"text": "climbing"})
        await context.store.put(["notes"], "b", {"text": "violin"}, index=["text"])
        await context.store.put(["notes"], "c", {"text": "deleted"})
        await context.store.delete(["notes"], "c")
        answers.append(await context.store.get(["notes"], "a"))
        answers.append(await context.store.get(["notes"], "c"))
        (found,) = await context.store.search(["notes"], "violins", limit=1)
        answers.append((found.namespace, found.key, found.value, found.score is not None))
        answers.append([one.key for one in await context.store.search(["notes"], filter={"text": "climbing"})])
        with pytest.raises(Invalid, match="must not contain a dot"):
            await context.store.get(["a.b"], "k")
        return "done"

    played = run_of("ours")
    await played.play(agent_on(store, run), "go")
    assert texts(played)[-1] == "done"
    assert answers == [{"text": "climbing"}, None, (["notes"], "b", {"text": "violin"}, True), ["a"]]
    assert await ours.keys("notes") == ["b", "a"]
    assert await theirs.keys("notes") == []


async def test_a_restarted_function_reads_what_it_read_the_first_time(store: Store, ours: Tenant) -> None:
    async def run(context: Context) -> str:
        before = await context.store.get(["notes"], "k")
        await context.store.put(["notes"], "k", {"n": (before or {"n": 0})["n"] + 1})
        found = await context.store.search(["notes"])
        return f"{before} {[one.value for one in found]}"

    tested = agent_on(store, run)
    for most in range(3):
        await ours.sdk.delete_item(["notes"], "k")
        first = run_of("ours", most)
        with pytest.raises(Crash):
            await first.play(tested, "go")
        again = crashed(first)
        again.tenant_id = first.tenant_id
        if most:
            await ours.put("notes", "k", {"n": 41})  # by another client, after it was read
        await again.play(tested)
        value = {"n": 41} if most == 2 else {"n": 1}
        assert texts(again)[-1] == f"None [{value}]"


async def test_without_a_store_the_error_says_so() -> None:
    async def run(context: Context) -> None:
        await context.store.get(["notes"], "k")

    with pytest.raises(RuntimeError, match="no store"):
        await run_of("ours").play(agent_on(None, run), "go")
