"""Threads as hosted graphs use them: with the access rules of the run's caller."""

from typing import Any

import pytest

from app.base.errors import Conflict, Invalid
from app.domain.caller import Caller
from app.features.threads.graph_threads import ThreadOperations
from app.infra.db.engine import Database
from app.security.access.structs import MetadataFilter, Principal
from tests.runs.engine import TENANT


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
    row = await threads.operate(ada, write)
    assert [one["values"] for one in await threads.operate(ada, {"do": "read", "thread": "notes"})] == [{"count": b"1"}]
    assert await threads.operate(bob, {"do": "read", "thread": "notes"}) == []
    for refused in (write, {**write, "at": row}, {**write, "at": row, "added": False}):
        with pytest.raises(Conflict, match="has been changed meanwhile"):
            await threads.operate(bob, refused)
    await threads.operate(bob, {"do": "delete", "threads": ["notes"]})
    with pytest.raises(Conflict, match="has been changed meanwhile"):
        await threads.operate(ada, write)
    await threads.operate(ada, {**write, "at": row, "changes": {"count": ["v", b"2"]}})
    found = await threads.operate(ada, {"do": "read", "thread": "notes"})
    assert [one["values"]["count"] for one in found] == [b"2", b"1"]
    with pytest.raises(Invalid, match="is not valid"):
        await threads.operate(ada, {"do": "read", "thread": 5})
