"""Routes that clients know and this version does not serve yet: 501 with a sentence, never silence."""

from litestar import Controller, HttpMethod, route

from app.base.errors import NotBuilt
from app.features.access.guard import WRITES

EVERY = [HttpMethod.GET, HttpMethod.POST, HttpMethod.PUT, HttpMethod.PATCH, HttpMethod.DELETE]
STREAMS = ["/threads/{thread_id:str}/stream/events"]
OTHERS = [
    "/threads/{thread_id:str}/commands",
]


class NotImplementedController(Controller):
    """What comes later."""

    include_in_schema = False
    opt = WRITES

    @route(STREAMS, http_method=EVERY)
    async def streams(self) -> None:
        """A thread as protocol version 2 has it."""
        raise NotBuilt("Protocol version 2 is not built yet: GET /threads/{id}/stream follows all runs of a thread.")

    @route(OTHERS, http_method=EVERY)
    async def others(self) -> None:
        """Single routes."""
        raise NotBuilt("This route is not built yet in this version.")
