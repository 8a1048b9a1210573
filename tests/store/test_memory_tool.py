"""The tool ``memory``: an agent recalls memories in later threads, for the same user."""

from pathlib import Path
from typing import Any

import pytest

from app.agents.tools.builtin.memory import namespace_of
from app.agents.tools.port import Tool, ToolClass, ToolContext
from app.agents.tools.registry import find_tool
from app.base.code_loader import load
from app.base.errors import Invalid, StartError
from app.base.ids import new_id
from app.security.access.structs import tenant_id_of
from tests.store.conftest import Store, Tenant, longterm_of


@pytest.fixture
def memory(store: Store) -> Tool:
    return find_tool("memory", Path(), load, longterm_of(store))


def context(user: str | None = "u1", key: str = "", tenant: str = "ours") -> ToolContext:
    return ToolContext(
        tenant_id=str(tenant_id_of(tenant)),
        thread_id=str(new_id()),
        run_id=str(new_id()),
        call_id="c",
        idempotency_key=key or str(new_id()),
        emit=lambda _: None,
        value=lambda _: None,
        interrupt=lambda *_: None,
        configurable={} if user is None else {"user_id": user},
    )


async def say(memory: Tool, where: ToolContext, action: str, **args: Any) -> str:
    return str((await memory.call({"action": action, **args}, where)).content)


async def test_a_memory_is_recalled_in_another_thread(memory: Tool) -> None:
    await say(memory, context(), "remember", text="Alice is allergic to peanuts")
    await say(memory, context(), "remember", text="Bob likes climbing")
    found = await say(memory, context(), "recall", text="peanut allergy")
    assert found.splitlines()[0].endswith("] Alice is allergic to peanuts")
    assert (await say(memory, context(), "recall")).splitlines()[0].endswith("] Bob likes climbing")


async def test_a_repeated_call_stores_one_memory(memory: Tool, ours: Tenant) -> None:
    for _ in range(2):
        await say(memory, context(key="same"), "remember", text="once")
    assert await ours.keys("memories.user.u1") == ["same"]
    assert memory.tool_class is ToolClass.IDEMPOTENT


async def test_a_memory_is_forgotten_by_its_key(memory: Tool) -> None:
    await say(memory, context(key="k"), "remember", text="once")
    assert await say(memory, context(), "forget", key="k") == "Forgotten: k"
    assert await say(memory, context(), "recall", text="once") == "Nothing is remembered."


async def test_users_and_tenants_share_no_memories_except_those_without_a_user(memory: Tool) -> None:
    await say(memory, context("a.b@example.org"), "remember", text="a secret")
    for other in (
        context("a"),
        context(None),
        context("a.b@example.org", tenant="theirs"),
        context("a%2Eb@example.org"),
    ):
        assert await say(memory, other, "recall", text="secret") == "Nothing is remembered."
    assert "a secret" in await say(memory, context("a.b@example.org"), "recall", text="secret")
    await say(memory, context(None), "remember", text="for all")
    assert "for all" in await say(memory, context(None), "recall", text="all")
    assert namespace_of({"user_id": 7}) == ["memories", "user", "7"]


async def test_an_item_put_by_a_client_is_recalled_as_it_is(memory: Tool, ours: Tenant) -> None:
    await ours.put("memories.shared", "k", {"text": 1})
    assert await say(memory, context(None), "recall") == '[k] {"text":1}'


async def test_invalid_arguments_are_errors_for_the_model(memory: Tool) -> None:
    for args, error in (
        ({"action": "remember"}, ValueError),
        ({"action": "remember", "text": " "}, ValueError),
        ({"action": "remember", "text": "x" * 4001}, ValueError),
        ({"action": "forget"}, ValueError),
        ({"action": "forget", "key": "x" * 2000}, Invalid),
    ):
        with pytest.raises(error):
            await memory.call(args, context())


def test_a_misspelt_tool_gets_a_suggestion() -> None:
    assert find_tool("memory", Path(), load).spec.name == "memory"
    with pytest.raises(StartError, match="did you mean 'memory'"):
        find_tool("memroy", Path(), load)
