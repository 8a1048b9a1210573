"""HTTP routes of webhook deliveries."""

from uuid import UUID

from litestar import Controller, get, post
from litestar.di import NamedDependency, Provide
from litestar.params import FromPath, FromQuery

from app.features.access.guard import OPERATES, CurrentPrincipal
from app.features.webhooks.service import WebhookService
from app.features.webhooks.structs import Delivery, DeliveryStatus
from app.infra.http.query_params import Page, page_of

Service = NamedDependency[WebhookService]


class WebhooksController(Controller):
    """Webhook deliveries and their outcomes."""

    tags = ("webhooks",)
    opt = OPERATES
    dependencies = {"page": Provide(page_of, sync_to_thread=False)}  # noqa: RUF012  as the framework declares it

    @get("/webhooks/deliveries", summary="List deliveries")
    async def list_deliveries(
        self,
        principal: CurrentPrincipal,
        webhooks: Service,
        page: NamedDependency[Page],
        status: FromQuery[DeliveryStatus | None] = None,
    ) -> list[Delivery]:
        """Newest first; ``status=dead`` lists deliveries that were given up."""
        return await webhooks.list(principal.tenant_id, status=status, limit=page.limit, offset=page.offset)

    @post("/webhooks/deliveries/{run_id:str}/retry", status_code=200, summary="Send a delivery again")
    async def retry(self, run_id: FromPath[UUID], principal: CurrentPrincipal, webhooks: Service) -> Delivery:
        """Retry with the same id and body, and with the full period of attempts."""
        return await webhooks.retry(principal.tenant_id, run_id)
