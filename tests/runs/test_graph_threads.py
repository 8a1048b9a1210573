"""Threads as hosted graphs use them: with the access rules of the run's caller."""

from typing import Any

import pytest

from app.agents.langgraph.store import GraphStore
from app.agents.testing import FakeRunContext
from app.base.errors import BadRequest, Conflict, Invalid, LeaseLost
from app.domain.caller import Caller
from app.features.threads.graph_threads import ThreadOperations
from app.infra.db.engine import Database
from app.security.access.structs import MetadataFilter, Principal
from tests.runs.engine import TENANT, Engine, fetch
from tests.statements import sent_by


def owned() -> None:
    """Say that the run has its lease."""


class OwnThreads:
    """Rules by which a user has the threads that carry its name."""

    def __init__(self, name: str) -> None:
        self.user = {"identity": name}

    async def authorize(self, resource: str, action: str, value: dict[str, Any]) -> MetadataFilter:
        assert resource == "threads"
        if action == "create":
            value["metadata"]["owner"] = self.user["identity"]
        return f'{{"owner": "{self.user["identity"]}"}}'


async def test_a_graph_uses_the_threads_of_its_runs_user_alone(database: Database) -> None:
    threads = ThreadOperations(
        database, lambda caller: Principal(caller.tenant_id, rules=OwnThreads((caller.user or {})["identity"]))
    )
    ada, bob = (Caller(tenant_id=TENANT, user={"identity": name}) for name in ("ada", "bob"))
    write = {"do": "write", "thread": "notes", "added": True, "changes": {"count": ["v", b"1"]}}
    row = await threads.operate(ada, write, owned)
    assert [one["values"] for one in await threads.operate(ada, {"do": "read", "thread": "notes"}, owned)] == [
        {"count": b"1"}
    ]
    assert await threads.operate(bob, {"do": "read", "thread": "notes"}, owned) == []
    for refused in (write, {**write, "at": row}, {**write, "at": row, "added": False}):
        with pytest.raises(Conflict, match="has been changed meanwhile"):
            await threads.operate(bob, refused, owned)
    await threads.operate(bob, {"do": "delete", "threads": ["notes"]}, owned)
    with pytest.raises(Conflict, match="has been changed meanwhile"):
        await threads.operate(ada, write, owned)
    await threads.operate(ada, {**write, "at": row, "changes": {"count": ["v", b"2"]}}, owned)
    found = await threads.operate(ada, {"do": "read", "thread": "notes"}, owned)
    assert [one["values"]["count"] for one in found] == [b"2", b"1"]
    with pytest.raises(Invalid, match="is not valid"):
        await threads.operate(ada, {"do": "read", "thread": 5}, owned)


async def test_threads_are_deleted_and_pruned_together_and_locked_in_one_order(database: Database) -> None:
    """Whatever their number, and whatever rules apply to each: so no two such operations wait for each other."""
    sent: list[int] = []
    for count in (2, 20):
        names = [f"thread {number} of {count}" for number in range(count)]
        threads = ThreadOperations(
            database, lambda caller: Principal(caller.tenant_id, rules=OwnThreads((caller.user or {})["identity"]))
        )
        ada = Caller(tenant_id=TENANT, user={"identity": "ada"})
        for name in names:
            await threads.operate(
                ada, {"do": "write", "thread": name, "added": True, "changes": {"count": ["v", b"1"]}}, owned
            )
        async with sent_by(database) as statements:
            await threads.operate(ada, {"do": "prune", "threads": names}, owned)
            await threads.operate(ada, {"do": "delete", "threads": names}, owned)
        sent.append(len(statements))
        assert all("order by thread_id" in one for one in statements if "for update" in one)
        assert await threads.operate(ada, {"do": "read", "thread": names[0]}, owned) == []
    assert sent[0] == sent[1]


@pytest.mark.parametrize(
    "op,error",
    [
        ({"do": "read", "thread": "a", "limit": 0}, Invalid),
        ({"do": "read", "thread": "a", "limit": -1}, Invalid),
        ({"do": "delete", "threads": ["a"], "more": [[]] * 600_000}, BadRequest),
        ({"do": "write", "thread": "a", "added": True, "changes": {"x": ["v", b"[" * 90 + b"]" * 90]}}, BadRequest),
        ({"do": "write", "thread": "a", "added": True, "changes": {"x": ["s", 0, [b"[" * 90]]}}, BadRequest),
        ({"do": "write", "thread": "a", "added": True, "changes": 5}, Invalid),
    ],
)
async def test_what_a_graph_sends_is_bounded_as_every_other_input(
    database: Database, op: dict[str, Any], error: type[Exception]
) -> None:
    threads = ThreadOperations(database, lambda caller: Principal(caller.tenant_id))
    with pytest.raises(error):
        await threads.operate(Caller(tenant_id=TENANT), op, owned)


async def test_runs_that_wait_for_their_time_keep_the_checkpoints_of_others(database: Database, engine: Engine) -> None:
    """One that forks may start from any of them."""
    threads = ThreadOperations(database, lambda caller: Principal(caller.tenant_id))
    first = await engine.begin("one")
    await engine.result(first)
    later = await engine.accept("two", thread=first.thread_id, owner=None, delay=60.0)
    count, delete = "select count(*) from checkpoints", {"do": "delete_runs", "runs": [str(first.run_id)]}
    before = await fetch(database, count)
    await threads.operate(Caller(tenant_id=TENANT), delete, owned)
    assert await fetch(database, count) == before
    await fetch(database, "delete from runs where run_id = $1", later.run_id)
    await threads.operate(Caller(tenant_id=TENANT), delete, owned)
    assert await fetch(database, count) == [{"count": 0}]


async def test_a_run_that_has_lost_its_lease_does_nothing(database: Database) -> None:
    class LostRun(FakeRunContext):
        def check_lease(self) -> None:
            raise LeaseLost("The lease has expired.")

    threads = ThreadOperations(database, lambda caller: Principal(caller.tenant_id))
    delete = {"do": "delete", "threads": []}
    store = GraphStore(threads, threads)
    with pytest.raises(LeaseLost):
        await store.answer_threads(LostRun(), delete)
    with pytest.raises(LeaseLost):
        await store.answer(LostRun(), [delete])
