"""What operators see: usage and prices of models, the queue, the workers, the configuration in effect."""

import re
from collections.abc import Sequence
from datetime import date, timedelta
from typing import Any
from uuid import UUID

import msgspec

from app.base.clock import now
from app.base.errors import Invalid
from app.features.system import queries
from app.features.system.structs import (
    ModelPrice,
    QueueState,
    QueueTotals,
    Setting,
    Usage,
    UsagePart,
    WorkerRuns,
    Workers,
)
from app.infra.db.columns import from_row
from app.infra.db.engine import Database
from app.infra.secrets.secret import HIDDEN, Secret
from app.infra.settings.environment import Settings, variables
from app.infra.telemetry.shared_buffer import MetricsBuffers
from app.security.limits.prices import Prices

USAGE_DAYS = 30
"""Days that are shown if the request names no first one."""

MAX_USAGE_ROWS = 10_000

_CREDENTIALS = re.compile(r"(?<=://).*@", re.DOTALL)
"""What may be user and password of an address. To the last @: a password need not be escaped."""

_QUERY_VALUES = re.compile(r"(?<=[?&])([^=&#]*=|)[^&#]*")


class OperationService:
    """Reads what operators see. ``buffers``: one for each worker process of this server."""

    def __init__(self, database: Database, prices: Prices, settings: Settings, buffers: MetricsBuffers) -> None:
        self._database = database
        self._prices = prices
        self._settings = settings
        self._buffers = buffers

    async def usage(
        self, tenant_id: UUID, since: date | None, until: date | None, by: Sequence[UsagePart]
    ) -> list[Usage]:
        """Return a tenant's usage from the day ``since`` to ``until``, summed over all parts but ``by``.

        Raises ``Invalid`` for more rows than fit.
        """
        first = now().date() - timedelta(days=USAGE_DAYS - 1) if since is None else since
        async with self._database.reading(tenant_id) as session:
            rows = await queries.usage(session, tenant_id, first, until or date.max, by, MAX_USAGE_ROWS + 1)
        if len(rows) > MAX_USAGE_ROWS:
            raise Invalid(f"This is more than {MAX_USAGE_ROWS:,} rows: name fewer days, or fewer parts in by.")
        return [from_row(Usage, row, total_tokens=row.input_tokens + row.output_tokens) for row in rows]

    def prices(self) -> list[ModelPrice]:
        """Return the prices by model name."""
        return [ModelPrice(model=name, input=one.input, output=one.output) for name, one in self._prices]

    async def queue(self, tenant_id: UUID) -> QueueState:
        """Return a tenant's queue, in all and by agent."""
        async with self._database.reading(tenant_id) as session:
            rows = await queries.queue_of(session, tenant_id)
        agents = [from_row(QueueTotals, row) for row in rows]
        oldest = [one.oldest_due for one in agents if one.oldest_due is not None]
        return QueueState(
            pending=sum(one.pending for one in agents),
            scheduled=sum(one.scheduled for one in agents),
            running=sum(one.running for one in agents),
            oldest_due=min(oldest, default=None),
            agents=agents,
        )

    async def workers(self) -> Workers:
        """Return the worker processes of this server, and all that hold runs, of all tenants."""
        async with self._database.engine_connection() as connection:
            rows = await connection.fetch(queries.WORKERS)
        alive = sum(buffer.is_alive for buffer in self._buffers)
        return Workers(
            processes=self._settings.server.workers, alive=alive, holders=[WorkerRuns(**row) for row in rows]
        )

    def configuration(self) -> list[Setting]:
        """Return all settings in effect, without secrets."""
        titles = {part.name: str(part.type.__doc__) for part in msgspec.structs.fields(Settings)}
        return [
            Setting(
                name=one.name,
                group=titles[one.group],
                meaning=str(one.meta.description),
                value=_shown(value := getattr(getattr(self._settings, one.group), one.field)),
                is_default=value == one.default,
                secret=one.is_secret,
            )
            for one in variables()
        ]


def _shown(value: Any) -> Any:
    """Return a setting's value without secrets, also those inside an address."""
    if isinstance(value, Secret):
        return HIDDEN
    if not isinstance(value, str) or "://" not in value:
        return value
    return _QUERY_VALUES.sub(rf"\1{HIDDEN}", _CREDENTIALS.sub(f"{HIDDEN}@", value))
