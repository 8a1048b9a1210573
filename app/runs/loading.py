"""The thread as a run finds it, and the settings it runs with."""

from typing import Any
from uuid import UUID

import msgspec

from app.agents.open_calls import open_calls
from app.agents.port import UNLIMITED, RunConfig
from app.base.bulk import offload
from app.base.errors import NotFound
from app.base.ids import origin_id
from app.checkpoints.cache import StateCache
from app.checkpoints.entry import FIRST_STEP
from app.checkpoints.snapshot import COLUMNS, ITEMS, read, size_of
from app.db.engine import Database
from app.domain.state import State
from app.runs.entries import Claimed
from app.runs.questions import Past, load_past
from app.runs.structs import RunRequest
from app.tools.caller import AUTH_NAMES, AUTH_USER_ID


class Loaded(msgspec.Struct, kw_only=True):
    """The thread as the run finds it: its state and where its last checkpoint stands (none: a new thread).

    ``written``: a client wrote that checkpoint, not a run.
    """

    request: RunRequest
    state: State
    checkpoint_id: UUID | None = None
    run_id: UUID | None = None
    step: int = FIRST_STEP - 1
    next: tuple[str, ...] = ()
    written: bool = False
    past: Past = Past()


SNAPSHOT = (
    f"select {COLUMNS} from checkpoints c {ITEMS} where c.tenant_id = $1 and c.thread_id = $2 and c.checkpoint_id = $3"
)


REQUEST = "select request from runs where tenant_id = $1 and run_id = $2"


async def load_thread(database: Database, cache: StateCache, claimed: Claimed) -> Loaded:
    """The state that the run goes on from, from the cache or in one round trip.

    It is that of the thread's head; for a run that forks and has not left its fork yet, that of the fork. A run that
    goes on with earlier work also learns what was asked and answered, and what may have been done.
    """
    loaded = await _load(database, cache, claimed)
    request = loaded.request
    if claimed.torn or request.answers or (loaded.next and loaded.run_id != claimed.run_id):
        branches = loaded.written or request.checkpoint_id is not None
        changes = request.brings_values and loaded.run_id != claimed.run_id
        calls = None if changes else open_calls(loaded.state)
        loaded.past = await load_past(database, claimed, request.answers, calls, branches=branches)
    return loaded


async def _load(database: Database, cache: StateCache, claimed: Claimed) -> Loaded:
    request = await _request(database, claimed)
    fork = request.checkpoint_id
    start = fork == origin_id(claimed.thread_id)
    if claimed.head is None:
        return Loaded(request=request, state=State(claimed.last_number))
    kept = cache.take(claimed.tenant_id, claimed.thread_id, claimed.head)
    if kept is not None and fork is None:
        return Loaded(request=request, state=kept.state, checkpoint_id=claimed.head, step=kept.step, next=kept.next)
    async with database.engine_connection() as connection:
        row = await connection.fetchrow(SNAPSHOT, claimed.tenant_id, claimed.thread_id, claimed.head)
        if fork is not None and row["run_id"] != claimed.run_id:
            if start:
                return Loaded(request=request, state=State(claimed.last_number))
            row = await connection.fetchrow(SNAPSHOT, claimed.tenant_id, claimed.thread_id, fork)
    if row is None:
        raise NotFound(f"Checkpoint {fork} is no longer there.")
    snapshot = await offload(size_of(row), read, row, claimed.last_number)
    return Loaded(
        request=request,
        state=snapshot.state,
        checkpoint_id=snapshot.checkpoint_id,
        run_id=snapshot.run_id,
        written=snapshot.run_id is None,
        step=snapshot.step,
        next=snapshot.next,
    )


async def _request(database: Database, claimed: Claimed) -> RunRequest:
    text = claimed.request
    if not text:
        async with database.engine_connection() as connection:
            text = await connection.fetchval(REQUEST, claimed.tenant_id, claimed.run_id)
    if text is None:
        raise NotFound("The run was deleted.")
    return await offload(len(text), msgspec.json.decode, text, type=RunRequest)


def settings_of(claimed: Claimed, request: RunRequest) -> tuple[RunConfig, dict[str, Any]]:
    """The configuration and context of a run: its assistant's, and over them its own."""
    assistant = msgspec.json.decode(claimed.assistant_config)
    own = msgspec.to_builtins(request.config) if request.config else {}
    configurable = {**(assistant.get("configurable") or {}), **(own.get("configurable") or {})}
    for name in AUTH_NAMES:
        configurable.pop(name, None)
    if (user := request.langgraph_auth_user) is not msgspec.UNSET:
        configurable |= dict(zip(AUTH_NAMES, (user, user["identity"], user["permissions"]), strict=True))
    elif (user_id := request.langgraph_auth_user_id) is not msgspec.UNSET:
        configurable[AUTH_USER_ID] = user_id
    limit = own.get("recursion_limit") or assistant.get("recursion_limit") or UNLIMITED
    config = RunConfig(configurable=configurable, recursion_limit=limit, tags=own.get("tags") or [])
    return config, {**msgspec.json.decode(claimed.assistant_context), **request.context}
