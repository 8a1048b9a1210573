"""HTTP routes of threads, their states and their history."""

from collections.abc import Sequence
from typing import Any
from uuid import UUID

import msgspec
from litestar import Controller, MediaType, Request, Response, delete, get, patch, post
from litestar.di import NamedDependency
from litestar.params import FromPath, FromQuery, JSONBody

from app.base.offload import offload
from app.features.access.guard import ADDS_NOTHING, READS, WRITES, CurrentPrincipal
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
from app.features.threads.subgraphs import place_of
from app.features.threads.views import selected
from app.infra.http.query_params import NEXT_PAGE, AnyRequest, Limit, choices, page_headers, project
from app.security.limits.storage_quota import StorageQuota

Id = FromPath[UUID]
Service = NamedDependency[ThreadService]

encode = msgspec.json.Encoder().encode

MAX_BYTES_ON_LOOP = 2**25
"""Bytes of values that are encoded in less than a tenth of a second."""


class ThreadsController(Controller):
    """Threads: conversations and their states."""

    path = "/threads"
    tags = ("threads",)
    opt = WRITES

    @post(status_code=200, summary="Create a thread")
    async def create(
        self, data: JSONBody[ThreadCreate], principal: CurrentPrincipal, threads: Service, request: AnyRequest
    ) -> Response[Any]:
        """Create a thread; the client may choose its id. Takes an ``Idempotency-Key``."""
        return await _encoded(await threads.create(principal, data, await key_in(request)))

    @post("/search", status_code=200, opt=READS, summary="Search threads")
    async def search(
        self, data: JSONBody[ThreadSearch], principal: CurrentPrincipal, threads: Service
    ) -> Response[list[Any]]:
        """Newest first; totals are in the ``X-Pagination-*`` headers."""
        found, total = await threads.search(principal, data)
        return Response(project(found, data.fields()), headers=page_headers(total, data.offset, len(found)))

    @post("/count", status_code=200, opt=READS, summary="Count threads")
    async def count(self, data: JSONBody[ThreadSearch], principal: CurrentPrincipal, threads: Service) -> int:
        """Count all threads that match a search."""
        return await threads.count(principal, data)

    @get("/{thread_id:str}", opt=READS, summary="One thread")
    async def get_one(
        self, thread_id: Id, principal: CurrentPrincipal, threads: Service, request: AnyRequest
    ) -> Response[Thread]:
        """Return a thread with its latest values; ``include=ttl`` adds its TTL."""
        wanted = choices(request, ("include",), "include", ("ttl",)) or ()
        return await _encoded(await threads.get(principal, thread_id, ttl="ttl" in wanted))

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
        """Merge metadata and set the TTL. With ``Prefer: return=minimal`` the status is 204."""
        if data.metadata:  # a TTL frees storage, so it may be set when that is full
            quota.check(principal.tenant_id)
        thread = await threads.patch(principal, thread_id, data)
        if "return=minimal" in request.headers.get("prefer", ""):
            return Response(None, status_code=204)
        return await _encoded(thread)

    @delete("/{thread_id:str}", summary="Delete a thread")
    async def delete_one(self, thread_id: Id, principal: CurrentPrincipal, threads: Service) -> None:
        """Delete a thread with its runs, states and events."""
        await threads.delete(principal, thread_id)

    @get("/{thread_id:str}/state", opt=READS, summary="A thread's latest state")
    async def state(
        self,
        thread_id: Id,
        principal: CurrentPrincipal,
        threads: Service,
        request: AnyRequest,
        subgraphs: FromQuery[bool] = False,
    ) -> Response[ThreadState]:
        """Return the latest values and the nodes that would run next; ``subgraphs``: with the tasks' own states.

        ``select``: only some fields, ``values.NAME`` for one value.
        """
        return await _state(await threads.state(principal, thread_id, subgraphs=subgraphs), _wanted(request))

    @post("/{thread_id:str}/state", status_code=200, summary="Write a thread's state")
    async def update_state(
        self,
        thread_id: Id,
        data: JSONBody[StateUpdate],
        principal: CurrentPrincipal,
        threads: Service,
        request: AnyRequest,
    ) -> Response[Any]:
        """Write as a node of the agent, on the newest state or a checkpoint. Takes an ``Idempotency-Key``."""
        updated = await threads.update_state(principal, thread_id, data, await key_in(request))
        return Response(updated, status_code=200)

    @get("/{thread_id:str}/storage", opt=READS, summary="Storage of a thread")
    async def storage(self, thread_id: Id, principal: CurrentPrincipal, threads: Service) -> dict[str, Any]:
        """Return the stored bytes of a thread's checkpoints, and of its values by channel."""
        return await threads.storage(principal, thread_id)

    @get("/{thread_id:str}/state/{checkpoint_id:str}", opt=READS, summary="A thread's state at a checkpoint")
    async def state_at(
        self,
        thread_id: Id,
        checkpoint_id: Id,
        principal: CurrentPrincipal,
        threads: Service,
        request: AnyRequest,
        subgraphs: FromQuery[bool] = False,
    ) -> Response[ThreadState]:
        """Return the values and next nodes at a checkpoint; ``subgraphs`` and ``select`` as for the latest state."""
        found = await threads.state_at(principal, thread_id, str(checkpoint_id), subgraphs=subgraphs)
        return await _state(found, _wanted(request))

    @post("/{thread_id:str}/state/checkpoint", status_code=200, opt=READS, summary="A thread's state at a checkpoint")
    async def state_at_checkpoint(
        self, thread_id: Id, data: JSONBody[CheckpointQuery], principal: CurrentPrincipal, threads: Service
    ) -> Response[ThreadState]:
        """Return the state at a checkpoint reference, of a subgraph too; without a checkpoint id, the latest state."""
        wants = data.subgraphs
        if (place := place_of(data.checkpoint)) is not None:
            found = await threads.subgraphs.at(principal, thread_id, place, subgraphs=wants)
        elif not has_checkpoint_id(data.checkpoint):
            found = await threads.state(principal, thread_id, subgraphs=wants)
        else:
            found = await threads.state_at(principal, thread_id, data.checkpoint, subgraphs=wants)
        return await _state(found, data.select)

    @get("/{thread_id:str}/history", opt=READS, summary="A thread's states")
    async def history(
        self,
        thread_id: Id,
        principal: CurrentPrincipal,
        threads: Service,
        limit: Limit = 10,
        before: FromQuery[str | None] = None,
    ) -> Response[list[ThreadState]]:
        """Newest first. If a page is cut for its size, ``X-Pagination-Next`` is the ``before`` of the next one."""
        return _page(*await threads.history(principal, thread_id, HistoryQuery(limit=limit, before=before)))

    @post("/{thread_id:str}/history", status_code=200, opt=READS, summary="A thread's states")
    async def search_history(
        self, thread_id: Id, data: JSONBody[HistoryQuery], principal: CurrentPrincipal, threads: Service
    ) -> Response[list[ThreadState]]:
        """Newest first. If a page is cut for its size, ``X-Pagination-Next`` is the ``before`` of the next one."""
        return _page(*await threads.history(principal, thread_id, data), data.select)

    @post("/{thread_id:str}/copy", status_code=200, summary="Copy a thread")
    async def copy(
        self, thread_id: Id, principal: CurrentPrincipal, threads: Service, request: AnyRequest
    ) -> Response[Any]:
        """Copy values and history, without runs. Takes an ``Idempotency-Key``."""
        return await _encoded(await threads.copy(principal, thread_id, await key_in(request)))

    @post("/prune", status_code=200, opt=ADDS_NOTHING, summary="Prune threads")
    async def prune(self, data: JSONBody[Prune], principal: CurrentPrincipal, threads: Service) -> Pruned:
        """Delete threads, or all their checkpoints but the newest; threads with a live run are skipped."""
        return await threads.prune(principal, data)


async def _encoded(view: Thread | ThreadState | msgspec.Raw) -> Response[Any]:
    """Return a response with ``view``, encoded off the event loop if it is very large.

    Others are encoded at once: views that waited for a thread would add up before the budget of answers counts them.
    """
    size = len(view if isinstance(view, msgspec.Raw) else view.values)
    if size < MAX_BYTES_ON_LOOP:
        return Response(view, status_code=200)
    return Response(await offload(size, encode, view), status_code=200, media_type=MediaType.JSON)


async def _state(state: ThreadState, fields: Sequence[str] | None) -> Response[Any]:
    if fields is None:
        return await _encoded(state)
    return Response(selected(state, fields), status_code=200)


def _wanted(request: AnyRequest) -> list[str] | None:
    given = [text for text in request.query_params.getall("select", []) if text]
    return [name for text in given for name in text.split(",")] or None


def _page(
    states: list[ThreadState], following: UUID | None, fields: Sequence[str] | None = None
) -> Response[list[Any]]:
    shown = states if fields is None else [selected(state, fields) for state in states]
    return Response(shown, status_code=200, headers={} if following is None else {NEXT_PAGE: str(following)})
