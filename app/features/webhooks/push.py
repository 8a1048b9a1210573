"""Push notifications: where news of a run, and of the runs that continue it, are sent to.

The database fills their outbox in the transaction in which such a run ends; the dispatcher of webhooks delivers it.
"""

from collections.abc import Awaitable, Callable
from typing import Any
from uuid import UUID

import asyncpg
import msgspec

from app.base.errors import Invalid
from app.base.ids import new_id
from app.features.webhooks import queries
from app.features.webhooks.dispatcher import OutgoingCall
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.infra.egress.addresses import AddressAllowlist, check_url

MAX_CONFIGS = 20
MAX_LENGTH = 2_000
"""Characters of an id, a token, a scheme or credentials."""

TOKEN_HEADER = "X-A2A-Notification-Token"  # noqa: S105  the name of a header

Payload = Callable[[UUID, UUID, UUID], Awaitable[bytes | None]]
"""Build the body about a task: tenant, the task's first run, the run that ended. None if it is deleted."""


class PushTarget(msgspec.Struct, frozen=True, kw_only=True):
    """Where news are sent to. ``token`` is sent along; ``scheme`` and ``credentials`` become ``Authorization``."""

    url: str
    config_id: str
    token: str | None = None
    scheme: str | None = None
    credentials: str | None = None


class PushConfigs:
    """Push configurations of all tenants. ``wake``: looks at the outbox now."""

    def __init__(self, database: Database, allowed: AddressAllowlist, wake: Callable[[], None]) -> None:
        self._database = database
        self._allowed = allowed
        self._wake = wake

    def check(self, url: str, config_id: str | None, *texts: str | None) -> str:
        """Check a configuration; return its id. Raises ``Invalid``."""
        try:
            check_url(url, self._allowed)
        except ValueError as error:
            raise Invalid.at(f"The url cannot be called: {error}.", "/url") from error
        if any(text is not None and (len(text) > MAX_LENGTH or not text.isprintable()) for text in (config_id, *texts)):
            raise Invalid.at(f"id, token and credentials are texts of at most {MAX_LENGTH} characters.", "/id")
        return config_id or str(new_id())

    async def put(
        self, tenant_id: UUID, thread_id: UUID, task_id: UUID, target: PushTarget, *, ended: UUID | None = None
    ) -> None:
        """Store a configuration; if the run ``ended`` has ended already, send that. Raises ``Invalid`` for too many."""
        values = {"thread_id": thread_id, "task_id": task_id, **msgspec.structs.asdict(target)}
        async with self._database.writing(tenant_id) as session:
            known = await queries.push_configs_of(session, tenant_id, thread_id, task_id)
            if len(known) >= MAX_CONFIGS and target.config_id not in {row.config_id for row in known}:
                raise Invalid.at(f"A task has at most {MAX_CONFIGS} configurations: delete one.", "/id")
            await queries.put_config(session, tenant_id, values)
            if ended is not None:
                about = {"tenant": tenant_id, "thread": thread_id, "task": task_id, "run": ended}
                await queries.push_ended(session, {**about, "config": target.config_id})
        if ended is not None:
            self._wake()

    async def list(self, tenant_id: UUID, thread_id: UUID, task_id: UUID) -> list[PushTarget]:
        """Return the configurations of a task, the oldest first."""
        async with self._database.reading(tenant_id) as session:
            rows = await queries.push_configs_of(session, tenant_id, thread_id, task_id)
        return [from_row(PushTarget, row) for row in rows]

    async def delete(self, tenant_id: UUID, thread_id: UUID, task_id: UUID, config_id: str) -> None:
        """Delete a configuration, if it exists; what is due for it is not sent any more."""
        async with self._database.writing(tenant_id) as session:
            await queries.delete_config(session, tenant_id, thread_id, task_id, config_id)


class PushNotifications:
    """The outbox of push notifications. Implements ``app.features.webhooks.dispatcher.Outbox``."""

    prefix = "push"
    statements = queries.statements_of("push_deliveries")

    def __init__(self, database: Database, payload: Payload, media_type: str) -> None:
        self._database = database
        self._payload = payload
        self._media_type = media_type

    async def prepare(self, row: asyncpg.Record) -> OutgoingCall | None:
        """Return the task as it was when its run ended, with the credentials that the receiver knows."""
        tenant_id, task_id = row["tenant_id"], row["task_id"]
        async with self._database.engine_connection() as connection:
            config = await connection.fetchrow(
                queries.PUSH_CONFIG, tenant_id, row["thread_id"], task_id, row["config_id"]
            )
        if config is None:
            return None
        body = row["body"] or await self._payload(tenant_id, task_id, row["ended_run"])
        return None if body is None else OutgoingCall(body, self._headers(config))

    def _headers(self, config: Any) -> dict[str, str]:
        headers = {"content-type": self._media_type}
        if config["scheme"]:
            headers["Authorization"] = f"{config['scheme']} {config['credentials'] or ''}".strip()
        if config["token"]:
            headers[TOKEN_HEADER] = config["token"]
        return headers
