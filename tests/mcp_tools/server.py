"""A small MCP server of the official SDK, on standard input and output when it is run."""

import asyncio
import base64
import logging
import os
import sys
from typing import Any

from mcp.server import MCPServer
from mcp.server.mcpserver import Context
from mcp.server.mcpserver.exceptions import ToolError
from mcp_types import (
    AudioContent,
    BlobResourceContents,
    CallToolResult,
    ElicitRequest,
    ElicitRequestFormParams,
    ElicitResult,
    EmbeddedResource,
    ImageContent,
    InputRequiredResult,
    ResourceLink,
    ResourceListChangedNotification,
    ResourceUpdatedNotification,
    ResourceUpdatedNotificationParams,
    TextContent,
    TextResourceContents,
    ToolAnnotations,
    ToolListChangedNotification,
)
from pydantic import BaseModel

PIXEL = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
SOUND = base64.b64encode(b"RIFF").decode()


def mcp_server(name: str, instructions: str | None = None) -> MCPServer:
    """Return a server without tools; the handler that its class gives the root logger is taken away again.

    With it, all that the process logs would be printed, in the output of commands that other tests compare.
    """
    before = logging.root.handlers[:], logging.root.level
    made = MCPServer(name, instructions=instructions)
    logging.root.handlers[:] = before[0]
    logging.root.setLevel(before[1])
    return made


server = mcp_server("fixture", "Tools for tests.")
metas: list[dict[str, Any]] = []
headers: list[dict[str, str]] = []
hanging: list[str] = []
cancelled: list[str] = []
failures: list[str] = []


@server.tool()
async def add(a: int, b: int) -> int:
    """Add two numbers."""
    return a + b


@server.tool()
async def environment() -> dict[str, str]:
    """Return the variables of the process."""
    return dict(os.environ)


@server.tool()
async def die(code: int = 3) -> str:
    """End the process."""
    sys.stderr.write("out of luck\n")
    sys.stderr.flush()
    os._exit(code)


@server.tool()
async def media() -> CallToolResult:
    """Return a text, an image and a sound."""
    return CallToolResult(
        content=[
            TextContent(type="text", text="here:"),
            ImageContent(type="image", data=PIXEL, mime_type="image/png"),
            AudioContent(type="audio", data=SOUND, mime_type="audio/wav"),
        ]
    )


TIDE = TextResourceContents(uri="notes://tide", mime_type="text/plain", text="The tide turns at six.")
BELL = BlobResourceContents(uri="notes://bell", mime_type="audio/wav", blob=SOUND)
HARBOUR = ResourceLink(type="resource_link", name="harbour", uri="notes://harbour", description="Its depth.")


@server.tool()
async def report(context: Context) -> CallToolResult:
    """Return resources, after many notifications that were not asked for."""
    updated = ResourceUpdatedNotification(params=ResourceUpdatedNotificationParams(uri="notes://tide"))
    for _ in range(100):
        for notification in (ResourceListChangedNotification(), ToolListChangedNotification(), updated):
            await context.session.send_notification(notification, context.request_id)
            await context.session.send_notification(notification)
    resources = [EmbeddedResource(type="resource", resource=one) for one in (TIDE, BELL)]
    return CallToolResult(content=[*resources, HARBOUR])


@server.resource("notes://harbour", description="The depth of the harbour.")
def harbour() -> str:
    return "Nine metres."


@server.resource("notes://{name}/depth")
def depth(name: str) -> str:
    return f"The depth of {name} is not known."


@server.tool(annotations=ToolAnnotations(read_only_hint=True))
async def work(context: Context, steps: int = 3) -> str:
    """Report progress, and what the request's metadata says."""
    metas.append(dict(context.request_context.meta or {}))
    headers.append(dict(context.headers or {}))
    for step in range(1, steps + 1):
        await context.report_progress(step, steps, f"step {step}")
        await asyncio.sleep(0.06)
    return "worked"


@server.tool()
async def hang(context: Context) -> str:
    """Answer never."""
    hanging.append(str(context.request_id))
    try:
        await asyncio.Event().wait()
    finally:
        cancelled.append(str(context.request_id))
    return "never"


@server.tool()
async def broken() -> str:
    """Fail."""
    failures.append("orders")
    raise ToolError("there are no orders")


SIZES = {
    "type": "object",
    "properties": {"size": {"type": "string", "enum": ["S", "L"]}, "gift": {"type": "boolean", "default": False}},
    "required": ["size", "gift"],
}
orders: list[str] = []


class Size(BaseModel):
    size: str


@server.tool()
async def order(context: Context, item: str) -> str | InputRequiredResult:
    """Order an item; a person is asked for its size, in the way of the revision."""
    if context.protocol_version == "2025-11-25":
        asked = await context.elicit(f"Which size of {item}?", Size)
        size = asked.data.size if asked.action == "accept" else asked.action
    elif context.input_responses is None:
        question = ElicitRequestFormParams(message=f"Which size of {item}?", requested_schema=SIZES)
        return InputRequiredResult(
            input_requests={"size": ElicitRequest(params=question)}, request_state=f"cart of {item}"
        )
    else:
        answer = context.input_responses["size"]
        assert isinstance(answer, ElicitResult)
        assert context.request_state == f"cart of {item}"
        size = str(answer.content["size"]) if answer.content else answer.action
        assert not answer.content or answer.content["gift"] is False
    orders.append(f"{item} {size}")
    return f"ordered {item} {size}"


if __name__ == "__main__":
    server.run()
