"""Routes that clients call and this version does not implement: 501 with an explanation."""

from litestar import Controller, HttpMethod, route

from app.base.errors import NotBuilt
from app.features.access.guard import WRITES

METHODS = [HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH, HttpMethod.DELETE]
STREAMS = ["/threads/{thread_id:str}/stream/events"]
OTHERS = [
    "/threads/{thread_id:str}/commands",
]


class NotImplementedController(Controller):
    """Routes that are not implemented."""

    include_in_schema = False
    opt = WRITES

    @route(STREAMS, http_method=METHODS)
    async def streams(self) -> None:
        """Streams of protocol version 2."""
        raise NotBuilt("Protocol version 2 is not built yet: GET /threads/{id}/stream follows all runs of a thread.")

    @route(OTHERS, http_method=METHODS)
    async def others(self) -> None:
        """Other routes."""
        raise NotBuilt("This route is not built yet in this version.")
