"""A tool of each class. Every effect is durable in the external ledger before its call returns."""

import os
import time

import httpx

from app.tools import ToolContext, ToolResult, tool

LEDGER = os.environ["FAULTS_LEDGER"]


async def effect(name: str, n: int, key: str) -> None:
    began = time.monotonic()
    async with httpx.AsyncClient(timeout=30) as http:
        body = {"tool": name, "n": n, "key": key, "pid": os.getpid(), "began": began}
        answer = await http.post(f"{LEDGER}/effects", json=body)
        answer.raise_for_status()


async def happened(key: str) -> str | None:
    """Return the result of the call with ``key``; None if it had no effect."""
    async with httpx.AsyncClient(timeout=30) as http:
        count = (await http.get(f"{LEDGER}/effects", params={"key": key})).json()["count"]
    return "booked" if count else None


@tool(tool_class="read_only")
async def read(n: int, context: ToolContext) -> str:
    """Look at something."""
    await effect("read", n, context.idempotency_key)
    return f"read {n}"


@tool(tool_class="transactional")
async def add(n: int, context: ToolContext) -> ToolResult:
    """Add to the thread's total, in the transaction of the step."""
    return ToolResult(content=f"added {n}", update={"total": (context.value("total") or 0) + n})


@tool(tool_class="idempotent")
async def put(n: int, context: ToolContext) -> str:
    """Do something under a key."""
    await effect("put", n, context.idempotency_key)
    return f"put {n}"


@tool(tool_class="reconcilable", lookup=happened)
async def book(n: int, context: ToolContext) -> str:
    """Do something that can be looked up."""
    await effect("book", n, context.idempotency_key)
    return "booked"


@tool(tool_class="unsafe")
async def pay(n: int, context: ToolContext) -> str:
    """Do something that must not happen twice."""
    await effect("pay", n, context.idempotency_key)
    return f"paid {n}"
