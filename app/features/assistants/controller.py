"""HTTP routes of assistants."""

from typing import Any
from uuid import UUID

from litestar import Controller, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, JSONBody

from app.features.access.guard import ADDS_NOTHING, READS, WRITES
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
"""An assistant's id, or the name of its agent: as elsewhere that stands for the agent's system assistant."""
CurrentPrincipal = NamedDependency[Principal]
Service = NamedDependency[AssistantService]


class AssistantsController(Controller):
    """Assistants: configured, versioned agents."""

    path = "/assistants"
    tags = ("assistants",)
    opt = WRITES

    @post(status_code=200, summary="Create an assistant")
    async def create(
        self, data: JSONBody[AssistantCreate], principal: CurrentPrincipal, assistants: Service, request: AnyRequest
    ) -> Response[Any]:
        """For one of the server's agents, which ``graph_id`` names. Takes an ``Idempotency-Key``."""
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
        """Those that a search without a page would find."""
        return await assistants.count(principal, data)

    @get("/{assistant_id:str}", opt=READS, summary="One assistant")
    async def get_one(self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service) -> Assistant:
        """Its latest version."""
        return await assistants.get(principal, assistants.id_of(assistant_id))

    @patch("/{assistant_id:str}", summary="Change an assistant")
    async def change(
        self,
        assistant_id: Id,
        data: JSONBody[AssistantPatch],
        principal: CurrentPrincipal,
        assistants: Service,
    ) -> Assistant:
        """Makes a new version, the latest from now on."""
        return await assistants.patch(principal, assistant_id, data)

    @delete("/{assistant_id:str}", summary="Delete an assistant")
    async def delete_one(self, assistant_id: Id, principal: CurrentPrincipal, assistants: Service) -> None:
        """System assistants stay."""
        await assistants.delete(principal, assistant_id)

    @get(
        ["/{assistant_id:str}/subgraphs", "/{assistant_id:str}/subgraphs/{namespace:str}"],
        opt=READS,
        summary="An assistant's subgraphs",
    )
    async def subgraphs(self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service) -> dict[str, Any]:
        """Namespace → schemas; the agents of this version have none."""
        await assistants.get(principal, assistants.id_of(assistant_id))
        return {}

    @get("/{assistant_id:str}/schemas", opt=READS, summary="JSON Schemas of an assistant")
    async def schemas(self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service) -> dict[str, Any]:
        """Of its input, output, state, configuration and context."""
        agent, name = await assistants.agent(principal, assistant_id)
        return {"graph_id": name, **agent.schemas()}

    @get("/{assistant_id:str}/graph", opt=READS, summary="An assistant drawn")
    async def graph(self, assistant_id: Named, principal: CurrentPrincipal, assistants: Service) -> dict[str, Any]:
        """Its nodes and edges."""
        agent, _ = await assistants.agent(principal, assistant_id)
        return agent.graph()

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

    @post("/{assistant_id:str}/latest", status_code=200, opt=ADDS_NOTHING, summary="Go to a version")
    async def latest(
        self,
        assistant_id: Id,
        data: JSONBody[LatestVersion],
        principal: CurrentPrincipal,
        assistants: Service,
    ) -> Assistant:
        """Back or forward."""
        return await assistants.set_latest(principal, assistant_id, data.version)
