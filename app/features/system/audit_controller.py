"""The audit log of the caller's tenant."""

from typing import Annotated
from uuid import UUID

from litestar import Controller, get
from litestar.di import NamedDependency
from litestar.params import QueryParameter

from app.features.access.guard import OPERATES, CurrentPrincipal
from app.infra.http.query_params import Limit
from app.security.audit.service import AuditService
from app.security.audit.structs import Entry

Before = Annotated[UUID | None, QueryParameter(description="Only entries older than this one.")]


class AuditController(Controller):
    """Audit events: actions and refusals."""

    path = "/audit"
    tags = ("access",)
    opt = OPERATES

    @get(summary="Read the audit log")
    async def entries(
        self,
        principal: CurrentPrincipal,
        audit: NamedDependency[AuditService],
        limit: Limit = 100,
        before: Before = None,
    ) -> list[Entry]:
        """Newest first. Entries are retained for 90 days; page with `before`, the last entry's `entry_id`."""
        return await audit.entries(principal.tenant_id, limit, before)
