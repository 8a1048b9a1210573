"""What those may do who look after the service."""

from litestar import Controller, post
from litestar.di import NamedDependency

from app.access.guard import ADMINISTERS
from app.access.structs import Reloaded
from app.secrets.ring import Vault


class AccessController(Controller):
    """The secrets of the service."""

    path = "/admin"
    tags = ("access",)
    opt = ADMINISTERS

    @post("/secrets/reload", status_code=200, summary="Read the secrets anew")
    async def reload(self, vault: NamedDependency[Vault]) -> Reloaded:
        """Those of this process at once; every process looks at its files every five seconds by itself."""
        return Reloaded(rotated=vault.look(), refused=dict(vault.refused))
