"""HTTP routes for operators: usage and prices of models, the queue, the workers, the configuration in effect."""

from datetime import date
from typing import Annotated

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from app.features.access.guard import ADMINISTERS, OPERATES, READS, CurrentPrincipal
from app.features.system.operation import OperationService
from app.features.system.structs import ModelPrice, QueueState, Setting, Usage, UsagePart, Workers

Operation = NamedDependency[OperationService]
Since = Annotated[
    date | None,
    QueryParameter(description="The first day, in UTC; 29 days ago if it is missing."),
]
Until = Annotated[date | None, QueryParameter(description="The last day, in UTC; today if it is missing.")]
By = Annotated[
    list[UsagePart] | None,
    QueryParameter(
        description="What to sum by (repeatable): day, agent, requested_by, model; day and agent if missing."
    ),
]


class OperationController(Controller):
    """What operators see."""

    tags = ("system",)

    @get("/usage", opt=OPERATES, summary="Usage and cost of models")
    async def usage(
        self, principal: CurrentPrincipal, operation: Operation, since: Since = None, until: Until = None, by: By = None
    ) -> list[Usage]:
        """Runs that their worker ended, tokens and dollars of the tenant, kept for 400 days; no runs by model.

        `requested_by` is the key or user that requested the work, `key_name` the name of that key. Dollars are those of
        the price list (`GET /prices`) when the tokens were used.
        """
        return await operation.usage(principal.tenant_id, since, until, by or ["day", "agent"])

    @get("/prices", opt=READS, summary="Prices of models", sync_to_thread=False)
    def prices(self, operation: Operation) -> list[ModelPrice]:
        """Dollars for a million tokens. The longest name that begins a model's counts, `*` for all others."""
        return operation.prices()

    @get("/queue", opt=OPERATES, summary="The queue")
    async def queue(self, principal: CurrentPrincipal, operation: Operation) -> QueueState:
        """Runs of the tenant that wait, are scheduled for later, or run."""
        return await operation.queue(principal.tenant_id)

    @get("/admin/workers", opt=ADMINISTERS, summary="The workers")
    async def workers(self, operation: Operation) -> Workers:
        """Worker processes of the server that answers, and the processes of all servers that hold runs."""
        return await operation.workers()

    @get("/admin/configuration", opt=ADMINISTERS, summary="The configuration in effect", sync_to_thread=False)
    def configuration(self, operation: Operation) -> list[Setting]:
        """Every setting with its value; secrets are masked."""
        return operation.configuration()
