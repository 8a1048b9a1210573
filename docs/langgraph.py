"""Writes the table of methods in docs/reference/langgraph-compatibility.md: `make docs-langgraph`."""

import inspect
import re
from pathlib import Path

from langgraph_sdk import get_client

PAGE = Path(__file__).parent / "reference" / "langgraph-compatibility.md"
BEGIN, END = "<!-- methods: `make docs-langgraph` writes them -->", "<!-- end of methods -->"

MEMBERS = "every member (`tests/graphs/test_stream_members.py`)"
"""What the table says about areas of the Python SDK that are no part of ``AREAS``."""

AREAS = ("assistants", "threads", "runs", "crons", "store")

JAVASCRIPT = {
    "assistants": "count create delete get getGraph getSchemas getSubgraphs getVersions search setLatest update",
    "threads": "copy count create delete get getHistory getState joinStream patchState prune search stream update"
    " updateState",
    "runs": "cancel cancelMany create createBatch delete get join joinStream list stream wait",
    "crons": "count create createForThread delete search update",
    "store": "deleteItem getItem listNamespaces putItem searchItems",
    "threads.stream()": "agent.getTree audio close extensions files images input.inject input.respond messages onError"
    " onEvent output respondInput run.start startLifecycleWatcher state.fork state.get state.listCheckpoints subagents"
    " subgraphs submitRun subscribe toolCalls values video",
}
"""Public methods of ``@langchain/langgraph-sdk``, without those that its classes share; the suite compares them."""

DIFFERENT = {
    "threads.patchState": "refused with 405: LangGraph's server does not have the route either",
}
"""Methods of the JavaScript SDK that do not work, and why."""


def python_methods() -> dict[str, list[str]]:
    """Return the public methods of ``langgraph_sdk`` by area."""
    client = get_client(url="http://127.0.0.1")
    return {area: _public(type(getattr(client, area))) for area in AREAS}


def _public(kind: type) -> list[str]:
    return sorted(name for name, _ in inspect.getmembers(kind, inspect.isfunction) if not name.startswith("_"))


def render() -> str:
    """Return the tables."""
    lines = [BEGIN, "", "| of | `langgraph_sdk` | `@langchain/langgraph-sdk` |", "|---|---|---|"]
    python = {area: _listed(names) for area, names in python_methods().items()}
    for area, names in JAVASCRIPT.items():
        scripts = [name for name in names.split() if f"{area}.{name}" not in DIFFERENT]
        known = python.get(area, MEMBERS)
        lines.append(f"| `client.{area}` | {known} | {_listed(scripts)} |")
    lines += ["", "Those that differ, in JavaScript:", "", "| method | why |", "|---|---|"]
    lines += [f"| `{name}` | {why} |" for name, why in DIFFERENT.items()]
    return "\n".join([*lines, "", END])


def _listed(names: list[str]) -> str:
    return ", ".join(f"`{name}`" for name in names)


def page() -> str:
    """Return the page with the tables as they should be."""
    return re.sub(f"{re.escape(BEGIN)}.*{re.escape(END)}", lambda _: render(), PAGE.read_text(), flags=re.DOTALL)


if __name__ == "__main__":
    PAGE.write_text(page())
