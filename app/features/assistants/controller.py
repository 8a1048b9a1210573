"""HTTP routes of assistants."""

from typing import Any
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from app.agents.port import GraphShape, ToolDescription, WithSubgraphs, WithTools
from app.base.errors import Invalid
from app.domain.caller import AUTH_NAMES
from app.features.access.guard import ADDS_NOTHING, READS, WRITES, CurrentPrincipal
from app.features.access.idempotency import key_in
from app.features.assistants.service import AssistantService
from app.features.assistants.structs import (
    Assistant,
    AssistantCreate,
    AssistantPatch,
    AssistantSearch,
    AssistantVersion,
    LatestVersion,
    VersionSearch,
)
from app.infra.http.query_params import AnyRequest, page_headers, project
from app.security.access.structs import Principal

Id = FromPath[UUID]
Named = FromPath[str]
"""An assistant's id, or an agent's name, which stands for its system assistant."""
Service = NamedDependency[AssistantService]
MAX_XRAY = 100


def read_xray(text: str) -> bool | int:
    """Read the parameter ``xray``. Raises ``Invalid``."""
    if text.lower() in {"", "false", "true"}:
        return text.lower() == "true"
    if text.isdigit() and int(text) <= MAX_XRAY:
        return int(text)
    raise Invalid(f"xray must be true, false, or a number up to {MAX_XRAY}.", (("/xray", "out of range"),))


class AssistantsController(Controller):
    """Assistants: configured, versioned agents."""

    path = "/assistants"
    tags = ("assistants",)
    opt = WRITES

    @post(status_code=200, summary="Create an assistant")
    async def create(
        self, data: JSONBody[AssistantCreate], principal: CurrentPrincipal, assistants: Service, request: AnyRequest
    ) -> Response[Any]:
        """Create an assistant for the agent ``graph_id``. Takes an ``Idempotency-Key``."""
        return Response(await assistants.create(principal, data, await key_in(request)), status_code=200)

    @post("/search", status_code=200, opt=READS, summary="Search assistants")
    async def search(
        self, data: JSONBody[AssistantSearch], principal: CurrentPrincipal, assistants: Service
    ) -> Response[list[Any]]:
        """Newest first; totals are in the ``X-Pagination-*`` headers."""
        found, total = await assistants.search(principal, data)
        return Response(project(found, data.select), headers=page_headers(total, data.offset, len(found)))

    @post("/count", status_code=200, opt=READS, summary="Count assistants")
    async def count(self, data: JSONBody[AssistantSearch], principal: CurrentPrincipal, assistants: Service) -> int:
        """Count all assistants that match a search."""
        return await assistants.count(principal, data)

    @get("/{assistant_id:str}", opt=READS, summary="One assistant")
    async def get_one(self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service) -> Assistant:
        """Return the latest version of an assistant."""
        return await assistants.get(principal, assistants.id_of(assistant_id))

    @patch("/{assistant_id:str}", summary="Change an assistant")
    async def change(
        self,
        assistant_id: Id,
        data: JSONBody[AssistantPatch],
        principal: CurrentPrincipal,
        assistants: Service,
    ) -> Assistant:
        """Create a new version, which becomes the latest."""
        return await assistants.patch(principal, assistant_id, data)

    @delete("/{assistant_id:str}", summary="Delete an assistant")
    async def delete_one(self, assistant_id: Id, principal: CurrentPrincipal, assistants: Service) -> None:
        """Delete an assistant and its versions; system assistants cannot be deleted."""
        await assistants.delete(principal, assistant_id)

    @get("/{assistant_id:str}/subgraphs", opt=READS, summary="Subgraphs of an assistant")
    async def subgraphs(self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service) -> dict[str, Any]:
        """Return namespace → schemas of all subgraphs."""
        return (await _shape(assistants, principal, assistant_id)).subgraphs

    @get("/{assistant_id:str}/subgraphs/{namespace:str}", opt=READS, summary="One subgraph of an assistant")
    async def subgraph(
        self, assistant_id: Named, namespace: FromPath[str], principal: CurrentPrincipal, assistants: Service
    ) -> dict[str, Any]:
        """Return namespace → schemas of the subgraph ``namespace``; nothing if there is none."""
        found = (await _shape(assistants, principal, assistant_id)).subgraphs
        return {name: schemas for name, schemas in found.items() if name == namespace}

    @get("/{assistant_id:str}/schemas", opt=READS, summary="JSON Schemas of an assistant")
    async def schemas(self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service) -> dict[str, Any]:
        """Return the schemas of input, output, state, configuration and context."""
        _, name = await assistants.agent(principal, assistant_id)
        return {"graph_id": name, **(await _shape(assistants, principal, assistant_id)).schemas}

    @get("/{assistant_id:str}/graph", opt=READS, summary="Graph of an assistant")
    async def graph(
        self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service, xray: FromQuery[str] = ""
    ) -> dict[str, Any]:
        """Return the nodes and edges of an assistant's graph; ``xray``: true, or the levels of subgraphs to show."""
        return (await _shape(assistants, principal, assistant_id, read_xray(xray))).graph

    @get("/{assistant_id:str}/tools", opt=READS, summary="Tools of an assistant")
    async def tools(
        self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service
    ) -> list[ToolDescription]:
        """Return the tools that the agent has now, each with its class: what happens to a call after a crash.

        A graph's tools are those of the agents file and those that its nodes hold.
        """
        agent, _ = await assistants.agent(principal, assistant_id)
        return agent.tools() if isinstance(agent, WithTools) else []

    @post("/{assistant_id:str}/versions", status_code=200, opt=READS, summary="Versions of an assistant")
    async def versions(
        self,
        assistant_id: Named,
        data: JSONBody[VersionSearch],
        principal: CurrentPrincipal,
        assistants: Service,
    ) -> list[AssistantVersion]:
        """Newest first."""
        return await assistants.versions(principal, assistants.id_of(assistant_id), data)

    @post("/{assistant_id:str}/latest", status_code=200, opt=ADDS_NOTHING, summary="Set the latest version")
    async def latest(
        self,
        assistant_id: Id,
        data: JSONBody[LatestVersion],
        principal: CurrentPrincipal,
        assistants: Service,
    ) -> Assistant:
        """Make an older or newer version the latest."""
        return await assistants.set_latest(principal, assistant_id, data.version)


async def _shape(
    assistants: AssistantService, principal: Principal, named: str, xray: bool | int = False
) -> GraphShape:
    """Return the shape of an assistant's graph, which a function may make from its configuration for the caller."""
    agent, _ = await assistants.agent(principal, named)
    if not isinstance(agent, WithSubgraphs):
        return GraphShape(graph=agent.graph(), schemas=agent.schemas())
    about = await assistants.get(principal, assistants.id_of(named))
    configurable = about.config.get("configurable") or {}
    settings = {name: value for name, value in configurable.items() if name not in AUTH_NAMES}
    return await agent.shape({**settings, **principal.configurable()}, xray)
