"""Two tools that let a model list and read the resources of an MCP server, where its operator wants that."""

from collections.abc import Awaitable, Callable, Mapping
from typing import Any

from app.agents.mcp.port import Connection
from app.agents.mcp.spec import shown_name
from app.agents.mcp.tool import Server, ServerTool
from app.agents.tools.content import tool_result
from app.agents.tools.port import ToolClass, ToolContext, ToolResult
from app.agents.tools.remote import failed
from app.providers.llm.port import ToolSpec

LIST_RESOURCES = "list_resources"
READ_RESOURCE = "read_resource"
MAX_RESOURCES = 200
"""Resources, and templates of their URIs, that a model is shown at once."""
MAX_LINE_LENGTH = 500

Use = Callable[[Connection, Mapping[str, Any]], Awaitable[ToolResult]]


class ResourceTool(ServerTool):
    """A tool of our own, called ``name``, for the resources of ``server``."""

    def __init__(self, server: Server, name: str, does: str, arguments: tuple[str, ...], use: Use) -> None:
        properties = {argument: {"type": "string"} for argument in arguments}
        parameters = {"type": "object", "properties": properties, "required": list(arguments)}
        spec = ToolSpec(name=shown_name(server.name, name), description=does, parameters=parameters)
        super().__init__(server, spec, ToolClass.READ_ONLY, server.spec.timeout)
        self._use = use

    async def call(self, args: dict[str, Any], context: ToolContext) -> ToolResult:
        """Ask the server; its errors, and its being unreachable, are results for the model."""
        try:
            async with self.time_limit():
                return await self.attempts(context, lambda connection: self._use(connection, args))
        except TimeoutError:
            return failed(self.too_long)


def resource_tools(server: Server) -> dict[str, ResourceTool]:
    """Return the tools for the resources of ``server``, by their names there."""
    lists = f"List the resources of {server.name}: their URIs, and what they are."
    reads = f"Read a resource of {server.name} by its URI."
    return {
        LIST_RESOURCES: ResourceTool(server, LIST_RESOURCES, lists, (), _list),
        READ_RESOURCE: ResourceTool(server, READ_RESOURCE, reads, ("uri",), _read),
    }


async def _list(connection: Connection, _args: Mapping[str, Any]) -> ToolResult:
    found = await connection.list_resources(MAX_RESOURCES + 1)
    lines = [_line(one) for one in found[:MAX_RESOURCES]]
    if len(found) > MAX_RESOURCES:
        lines.append(f"[cut: the server has more than {MAX_RESOURCES} resources]")
    return ToolResult(content="\n".join(lines) or "The server has no resources.")


async def _read(connection: Connection, args: Mapping[str, Any]) -> ToolResult:
    raw = await connection.read_resource(str(args["uri"]))
    if raw.get("resultType", "complete") != "complete":
        return failed("The server asks a question before it gives this resource, which it may not here.")
    contents = raw.get("contents")
    given = contents if isinstance(contents, list) else []
    return tool_result({"content": [{"type": "resource", "resource": one} for one in given]})


def _line(resource: Mapping[str, Any]) -> str:
    """Return one line about a resource or a template, without line breaks of the server's."""
    uri = resource.get("uri") or resource.get("uriTemplate") or ""
    title = resource.get("title") or resource.get("name") or ""
    kind = f" ({resource['mimeType']})" if resource.get("mimeType") else ""
    about = f" - {resource['description']}" if resource.get("description") else ""
    return " ".join(f"{uri}: {title}{kind}{about}".split())[:MAX_LINE_LENGTH]
