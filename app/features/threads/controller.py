"""HTTP routes of threads, their states and their history."""

from typing import Any
from uuid import UUID

from litestar import Controller, Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from app.features.access.guard import ADDS_NOTHING, READS, WRITES
from app.features.access.idempotency import key_in
from app.features.threads.service import ThreadService
from app.features.threads.states import has_checkpoint_id
from app.features.threads.structs import (
    CheckpointQuery,
    HistoryQuery,
    Prune,
    Pruned,
    StateUpdate,
    Thread,
    ThreadCreate,
    ThreadPatch,
    ThreadSearch,
    ThreadState,
)
from app.infra.http.query_params import NEXT_PAGE, AnyRequest, Limit, choices, page_headers, project
from app.security.access.structs import Principal
from app.security.limits.storage_quota import StorageQuota

Id = FromPath[UUID]
CurrentPrincipal = NamedDependency[Principal]
Service = NamedDependency[ThreadService]


class ThreadsController(Controller):
    """Threads: conversations and their states."""

    path = "/threads"
    tags = ("threads",)
    opt = WRITES

    @post(status_code=200, summary="Create a thread")
    async def create(
        self, data: JSONBody[ThreadCreate], principal: CurrentPrincipal, threads: Service, request: AnyRequest
    ) -> Response[Any]:
        """With an id of the client's own, if it likes. Takes an ``Idempotency-Key``."""
        return Response(await threads.create(principal, data, await key_in(request)), status_code=200)

    @post("/search", status_code=200, opt=READS, summary="Search threads")
    async def search(
        self, data: JSONBody[ThreadSearch], principal: CurrentPrincipal, threads: Service
    ) -> Response[list[Any]]:
        """Newest first; totals are in the ``X-Pagination-*`` headers."""
        found, total = await threads.search(principal, data)
        return Response(project(found, data.fields()), headers=page_headers(total, data.offset, len(found)))

    @post("/count", status_code=200, opt=READS, summary="Count threads")
    async def count(self, data: JSONBody[ThreadSearch], principal: CurrentPrincipal, threads: Service) -> int:
        """Those that a search without a page would find."""
        return await threads.count(principal, data)

    @get("/{thread_id:str}", opt=READS, summary="One thread")
    async def get_one(
        self, thread_id: Id, principal: CurrentPrincipal, threads: Service, request: AnyRequest
    ) -> Thread:
        """With its latest values; with ``include=ttl`` also its lifetime."""
        wanted = choices(request, ("include",), "include", ("ttl",)) or ()
        return await threads.get(principal, thread_id, ttl="ttl" in wanted)

    @patch("/{thread_id:str}", opt=ADDS_NOTHING, summary="Change a thread's metadata")
    async def change(
        self,
        thread_id: Id,
        data: JSONBody[ThreadPatch],
        principal: CurrentPrincipal,
        threads: Service,
        quota: NamedDependency[StorageQuota],
        request: Request[Any, Any, Any],
    ) -> Response[Thread | None]:
        """Merged into what is there. ``Prefer: return=minimal`` is answered with 204."""
        if data.metadata:  # a TTL frees storage, so it may be set when that is full
            quota.check(principal.tenant_id)
        thread = await threads.patch(principal, thread_id, data)
        if "return=minimal" in request.headers.get("prefer", ""):
            return Response(None, status_code=204)
        return Response(thread)

    @delete("/{thread_id:str}", summary="Delete a thread")
    async def delete_one(self, thread_id: Id, principal: CurrentPrincipal, threads: Service) -> None:
        """With its runs, states and events."""
        await threads.delete(principal, thread_id)

    @get("/{thread_id:str}/state", opt=READS, summary="A thread's latest state")
    async def state(self, thread_id: Id, principal: CurrentPrincipal, threads: Service) -> ThreadState:
        """Its values and what would run next."""
        return await threads.state(principal, thread_id)

    @post("/{thread_id:str}/state", status_code=200, summary="Write a thread's state")
    async def update_state(
        self,
        thread_id: Id,
        data: JSONBody[StateUpdate],
        principal: CurrentPrincipal,
        threads: Service,
        request: AnyRequest,
    ) -> Response[Any]:
        """As one of its agent's nodes would, on the newest state or at a checkpoint. Takes an ``Idempotency-Key``."""
        made = await threads.update_state(principal, thread_id, data, await key_in(request))
        return Response(made, status_code=200)

    @get("/{thread_id:str}/storage", opt=READS, summary="What a thread takes on disk")
    async def storage(self, thread_id: Id, principal: CurrentPrincipal, threads: Service) -> dict[str, Any]:
        """Bytes of its checkpoints, and of its values by channel."""
        return await threads.storage(principal, thread_id)

    @get("/{thread_id:str}/state/{checkpoint_id:str}", opt=READS, summary="A thread's state at a checkpoint")
    async def state_at(
        self, thread_id: Id, checkpoint_id: Id, principal: CurrentPrincipal, threads: Service
    ) -> ThreadState:
        """As it was then."""
        return await threads.state_at(principal, thread_id, str(checkpoint_id))

    @post("/{thread_id:str}/state/checkpoint", status_code=200, opt=READS, summary="A thread's state at a checkpoint")
    async def state_at_checkpoint(
        self, thread_id: Id, data: JSONBody[CheckpointQuery], principal: CurrentPrincipal, threads: Service
    ) -> ThreadState:
        """The checkpoint is given by its reference; without an id it is the latest."""
        if not has_checkpoint_id(data.checkpoint):
            return await threads.state(principal, thread_id)
        return await threads.state_at(principal, thread_id, data.checkpoint)

    @get("/{thread_id:str}/history", opt=READS, summary="A thread's states")
    async def history(
        self,
        thread_id: Id,
        principal: CurrentPrincipal,
        threads: Service,
        limit: Limit = 10,
        before: FromQuery[str | None] = None,
    ) -> Response[list[ThreadState]]:
        """Newest first; an answer cut because it grew large names in ``X-Pagination-Next`` the next ``before``."""
        return _page(*await threads.history(principal, thread_id, HistoryQuery(limit=limit, before=before)))

    @post("/{thread_id:str}/history", status_code=200, opt=READS, summary="A thread's states")
    async def search_history(
        self, thread_id: Id, data: JSONBody[HistoryQuery], principal: CurrentPrincipal, threads: Service
    ) -> Response[list[ThreadState]]:
        """Newest first; an answer cut because it grew large names in ``X-Pagination-Next`` the next ``before``."""
        return _page(*await threads.history(principal, thread_id, data))

    @post("/{thread_id:str}/copy", status_code=200, summary="Copy a thread")
    async def copy(
        self, thread_id: Id, principal: CurrentPrincipal, threads: Service, request: AnyRequest
    ) -> Response[Any]:
        """Its values and its history, not its runs. Takes an ``Idempotency-Key``."""
        return Response(await threads.copy(principal, thread_id, await key_in(request)), status_code=200)

    @post("/prune", status_code=200, opt=ADDS_NOTHING, summary="Prune threads")
    async def prune(self, data: JSONBody[Prune], principal: CurrentPrincipal, threads: Service) -> Pruned:
        """Remove threads, or all but their newest checkpoints; those with a live run are left alone."""
        return await threads.prune(principal, data)


def _page(states: list[ThreadState], following: UUID | None) -> Response[list[ThreadState]]:
    return Response(states, status_code=200, headers={} if following is None else {NEXT_PAGE: str(following)})
