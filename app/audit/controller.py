"""The audit log of the caller's tenant."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from app.access.guard import OPERATES
from app.access.structs import Principal
from app.audit.service import AuditService
from app.audit.structs import Entry
from app.web.params import Limit

Who = NamedDependency[Principal]
Before = Annotated[UUID | None, QueryParameter(description="Only entries older than this one.")]


class AuditController(Controller):
    """Who did what, and who was refused."""

    path = "/audit"
    tags = ("access",)
    opt = OPERATES

    @get(summary="Read the audit log")
    async def entries(
        self, principal: Who, audit: NamedDependency[AuditService], limit: Limit = 100, before: Before = None
    ) -> list[Entry]:
        """The newest first. Entries are kept for 90 days; the next page begins before the last one's `entry_id`."""
        return await audit.entries(principal.tenant_id, limit, before)
