"""Use cases of webhook deliveries: list and retry."""

from typing import Any
from uuid import UUID

from sqlalchemy import Row

from app.base.errors import NotFound
from app.features.webhooks import queries
from app.features.webhooks.dispatcher import WebhookDispatcher
from app.features.webhooks.structs import Delivery
from app.infra.db.columns import from_row
from app.infra.db.engine import Database


class WebhookService:
    """Webhook deliveries of all tenants."""

    def __init__(self, database: Database, dispatcher: WebhookDispatcher) -> None:
        self._database = database
        self._dispatcher = dispatcher

    async def list(self, tenant_id: UUID, *, status: str | None, limit: int, offset: int) -> list[Delivery]:
        """Return a page of deliveries, newest first."""
        async with self._database.reading(tenant_id) as session:
            rows = await queries.list_page(session, tenant_id, status=status, limit=limit, offset=offset)
        return [_delivery_view(row) for row in rows]

    async def retry(self, tenant_id: UUID, run_id: UUID) -> Delivery:
        """Schedule a delivery at once, with the full period of attempts. Raises ``NotFound``."""
        async with self._database.writing(tenant_id) as session:
            row = await queries.reset(session, tenant_id, run_id)
        if row is None:
            raise NotFound(f"There is no delivery for run {run_id}")
        self._dispatcher.wake()
        return _delivery_view(row)


def _delivery_view(row: Row[Any]) -> Delivery:
    return from_row(Delivery, row, next_attempt_at=row.due_at if row.status == "pending" else None)
