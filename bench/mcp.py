"""Cost of tools of MCP servers: ``python -m bench.mcp`` (under a minute).

The same call of the same server, in turn by the SDK's own client and as a tool of an agent: arguments are checked, the
pinned description and the result too. Then what a process holds and burns in which a server is configured and idle.
"""

import argparse
import asyncio
import contextlib
import gc
import json
import logging
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator
from pathlib import Path
from typing import Any

import structlog

from bench.processes import ROOT, answers, free_port

BLOCK = 50
AGENT = ("agent", "bench", ("*",))
SERVER = """
import os, sys
from mcp.server import MCPServer

server = MCPServer("bench")

@server.tool()
async def add(a: int, b: int) -> int:
    "Add two numbers."
    return a + b

if len(sys.argv) > 1:
    import uvicorn
    from starlette.responses import PlainTextResponse
    app = server.streamable_http_app()
    app.add_route("/ready", lambda request: PlainTextResponse("ready"))
    uvicorn.run(app, host="127.0.0.1", port=int(sys.argv[1]), log_config=None)
else:
    server.run()
"""

Call = Callable[[], Coroutine[Any, Any, None]]


@contextlib.contextmanager
def http_server(script: Path) -> Iterator[str]:
    """Run the server on loopback; yield its URL."""
    port = free_port()
    process = subprocess.Popen([sys.executable, str(script), str(port)], stderr=subprocess.DEVNULL)
    try:
        while not answers(port, "/ready"):
            time.sleep(0.05)
        yield f"http://127.0.0.1:{port}/mcp"
    finally:
        process.terminate()
        process.wait()


@contextlib.asynccontextmanager
async def servers_of(spec: dict[str, Any]) -> AsyncIterator[Any]:
    """The servers of an agents file with one, ``bench``, as a server process has them."""
    from app.agents.mcp.servers import Connector, McpServers
    from app.agents.mcp.spec import McpServerSpec
    from app.infra.egress.addresses import AddressAllowlist

    connector = Connector(Path.cwd(), lambda _: None, AddressAllowlist(["127.0.0.1"]))
    servers = McpServers({"bench": McpServerSpec(**spec)}, connector)
    servers.source(*AGENT)
    try:
        yield servers
    finally:
        await servers.aclose()


@contextlib.asynccontextmanager
async def ours(spec: dict[str, Any]) -> AsyncIterator[Call]:
    """A call as the built-in agent makes it."""
    from app.agents.testing import FakeRunContext
    from app.agents.tool_loop.calls import Toolbox
    from app.agents.tool_loop.conversation import PendingCalls
    from app.domain.messages import ToolCall

    async with servers_of(spec) as servers:
        server = servers.get("bench")
        if not await server.probe():
            raise SystemExit(server.problem)
        toolbox = Toolbox([], lambda *_: None, sources=server.sources)

        async def call() -> None:
            asked = ToolCall(name="bench__add", args={"a": 2, "b": 3}, id="call_1")
            (answer,) = (await toolbox.run(PendingCalls("m", [asked]), FakeRunContext())).messages
            assert answer.content == "5", answer

        yield call


@contextlib.asynccontextmanager
async def sdk(spec: dict[str, Any]) -> AsyncIterator[Call]:
    """The same call by the SDK's client, with the SDK's transports."""
    from mcp.client.client import Client
    from mcp.client.stdio import StdioServerParameters

    at: Any = spec.get("url") or StdioServerParameters(command=spec["command"][0], args=spec["command"][1:])
    async with Client(at) as client:

        async def call() -> None:
            answer = await client.call_tool("add", {"a": 2, "b": 3})
            assert answer.structured_content == {"result": 5}, answer

        yield call


async def compare(spec: dict[str, Any], blocks: int) -> dict[str, float]:
    """Milliseconds of a call, in blocks by turns; the first ones warm up."""
    taken: dict[str, list[float]] = {"sdk": [], "tool": []}
    async with sdk(spec) as by_sdk, ours(spec) as by_tool:
        for block in range(blocks + 1):
            for name, call in (("sdk", by_sdk), ("tool", by_tool)):
                for _ in range(BLOCK):
                    started_at = time.perf_counter()
                    await call()
                    if block:
                        taken[name].append((time.perf_counter() - started_at) * 1e3)
    medians = {f"{name}_ms": round(statistics.median(values), 2) for name, values in taken.items()}
    above = statistics.median(taken["tool"]) - statistics.median(taken["sdk"])
    return {**medians, "above_ms": round(above, 2)}


def private_mb() -> float:
    """Memory that this process shares with no other."""
    gc.collect()
    kinds = (line.split() for line in Path("/proc/self/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(kind[1]) for kind in kinds if kind[0].startswith("Private_")) / 1e3


async def rest(url: str, seconds: float) -> dict[str, float]:
    """Megabytes that the SDK and then a connected server take, and CPU milliseconds while nothing happens."""
    async with servers_of({"url": url}) as servers:
        before = private_mb()
        assert "mcp" not in sys.modules
        import app.agents.mcp.connection  # noqa: F401  as the first connection does

        loaded = private_mb()
        servers.start()
        await servers.wait()
        if problem := servers.get("bench").problem:
            raise SystemExit(problem)
        connected = private_mb()
        await asyncio.sleep(1)
        started_at = time.process_time()
        await asyncio.sleep(seconds)
        burnt = time.process_time() - started_at
    return {
        "sdk_mb": round(loaded - before, 1),
        "server_mb": round(connected - loaded, 1),
        "idle_cpu_ms_per_s": round(burnt * 1e3 / seconds, 2),
    }


def measure(*, quick: bool) -> dict[str, Any]:
    with tempfile.TemporaryDirectory() as folder:
        script = Path(folder) / "server.py"
        script.write_text(SERVER)
        with http_server(script) as url:
            blocks = 4 if quick else 20
            command = [sys.executable, "-m", "bench.mcp", "--rest", url]
            idle = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
            return {
                "load": round(os.getloadavg()[0], 1),
                "over HTTP": asyncio.run(compare({"url": url}, blocks)),
                "a child process": asyncio.run(compare({"command": [sys.executable, str(script)]}, blocks)),
                "idle": json.loads(idle.stdout),
            }


def main() -> None:
    parser = argparse.ArgumentParser(prog="python -m bench.mcp", description=__doc__)
    parser.add_argument("--quick", action="store_true")
    parser.add_argument("--rest", metavar="URL", help="in this process, what an idle connection to URL takes")
    given = parser.parse_args()
    structlog.configure(wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING))
    found = asyncio.run(rest(given.rest, 10)) if given.rest else measure(quick=given.quick)
    print(json.dumps(found, indent=2))


if __name__ == "__main__":
    main()
