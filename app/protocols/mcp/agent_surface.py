"""What ``/mcp`` and ``/mcp/{assistant}`` serve: agents as tools; threads, documents and store items as resources."""

from collections.abc import AsyncGenerator, Mapping
from typing import Any

from app.agents.port import Agent
from app.base.ids import agent_id
from app.features.assistants.structs import Assistant
from app.protocols.gateway import ProtocolGateway
from app.protocols.mcp.agents import AgentTools
from app.protocols.mcp.errors import INVALID_PARAMS, RpcError
from app.protocols.mcp.resources import StoredResources
from app.protocols.mcp.surface import Asked, Caller, Capabilities, Done, Named, Reply, ToolsOnly

INSTRUCTIONS = (
    "Each tool is an agent. Tell it what you want in `input`. To continue a conversation, send the thread_id that the "
    "result's _meta names, or one text of your own each time."
)


class AgentSurface(ToolsOnly):
    """All agents, or one ``assistant`` of them. Implements ``Surface``."""

    instructions = INSTRUCTIONS
    capabilities = Capabilities(tasks=True, resources=True, prompts=True, completions=True)

    def __init__(
        self,
        gateway: ProtocolGateway,
        tools: AgentTools,
        resources: StoredResources,
        prompts: Mapping[str, str],
        assistant: str | None = None,
    ) -> None:
        """``prompts``: the instructions of agents that have some, by name."""
        self._gateway = gateway
        self._tools = tools
        self._resources = resources
        self._prompts = prompts
        self._assistant = assistant

    async def tools(self, caller: Caller) -> list[dict[str, Any]]:
        """Return a tool per agent, in the order of the agents file."""
        if self._assistant is None:
            return [self._tools.tool(agent) for agent in self._gateway.assistants.agents()]
        agent, _, about = await self._one(caller, self._assistant)
        title, description = ("", "") if about is None else (about.name, about.description or "")
        return [self._tools.tool(agent, title=title, description=description)]

    async def _one(self, caller: Caller, assistant: str) -> tuple[Agent, str, Assistant | None]:
        """Return an assistant's agent, its id, and what is known of it if it is no system assistant."""
        assistants = self._gateway.assistants
        for agent in assistants.agents():
            if assistant in {agent.name, str(agent_id(agent.name))}:
                return agent, agent.name, None
        about = await assistants.get(caller.principal, assistants.id_of(assistant))
        agent, _ = await assistants.agent(caller.principal, str(about.assistant_id))
        return agent, str(about.assistant_id), about

    async def call_tool(self, caller: Caller, call: Named) -> Reply:
        """Start or continue a run of the agent ``call.name``."""
        if self._assistant is not None:
            agent, assistant, _ = await self._one(caller, self._assistant)
            if agent.name == call.name:
                return await self._tools.call(caller, assistant, agent, call)
        else:
            for agent in self._gateway.assistants.agents():
                if agent.name == call.name:
                    return await self._tools.call(caller, agent.name, agent, call)
        raise RpcError(INVALID_PARAMS, f"Unknown tool: {call.name[:100]!r}; tools/list names them.")

    async def respond(self, caller: Caller, state: Any, key: str, response: Any) -> None:
        """Answer a question of a run."""
        await self._tools.respond(caller, state, key, response)

    async def cancel(self, caller: Caller, request_id: str | int) -> None:
        """Cancel the run of a call."""
        await self._tools.cancel(caller, request_id)

    async def task(self, caller: Caller, task_id: str) -> dict[str, Any]:
        """Return the task of a call."""
        return await self._tools.task(caller, task_id)

    async def update_task(self, caller: Caller, task_id: str, answers: Mapping[str, Any]) -> None:
        """Answer questions of a task."""
        await self._tools.update_task(caller, task_id, answers)

    async def cancel_task(self, caller: Caller, task_id: str) -> None:
        """Cancel a task."""
        await self._tools.cancel_task(caller, task_id)

    def follow_task(self, caller: Caller, task_id: str) -> AsyncGenerator[dict[str, Any], None]:
        """Follow a task."""
        return self._tools.follow_task(caller, task_id)

    async def resource_templates(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the forms of threads, documents and items of the store."""
        return self._resources.templates()

    async def read_resource(self, caller: Caller, uri: str) -> list[dict[str, Any]]:
        """Read one of them."""
        return await self._resources.read(caller, uri)

    async def prompts(self, caller: Caller) -> list[dict[str, Any]]:
        """Return the instructions of each agent as a prompt."""
        names = [tool["name"] for tool in await self.tools(caller)]
        task = {"name": "input", "description": "What the prompt is to be applied to.", "required": False}
        return [
            {"name": name, "description": f"The instructions of the agent {name}.", "arguments": [task]}
            for name in names
            if name in self._prompts
        ]

    async def get_prompt(self, caller: Caller, call: Named) -> Done | Asked:
        """Return the instructions of an agent, and the input that is given."""
        if call.name not in {prompt["name"] for prompt in await self.prompts(caller)}:
            return await super().get_prompt(caller, call)
        given = call.arguments.get("input")
        texts = [self._prompts[call.name], *([given] if isinstance(given, str) and given else [])]
        messages = [{"role": "user", "content": {"type": "text", "text": text}} for text in texts]
        return Done({"description": f"The instructions of the agent {call.name}.", "messages": messages})

    async def complete(self, caller: Caller, reference: str, argument: str, typed: str) -> list[str]:
        """Complete ids of threads and documents, and namespaces."""
        return await self._resources.complete(caller, reference, argument, typed)
