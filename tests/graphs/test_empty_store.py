"""The store that factories get outside of runs."""

import pytest

from agent_service_graphs.runs import server_runtime
from agent_service_graphs.store import EmptyStore


async def test_a_factory_that_describes_its_graph_has_an_empty_store_that_takes_no_writes() -> None:
    store = server_runtime("assistants.read", None, None).store
    assert isinstance(store, EmptyStore)
    assert await store.aget(("facts",), "name") is None
    assert store.search(("facts",)) == store.list_namespaces() == []
    with pytest.raises(RuntimeError, match="during a run only"):
        store.put(("facts",), "name", {"is": "Ann"})
