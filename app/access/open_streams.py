"""Checks the credentials of streams that stay open: a key may be revoked, and a token expires, while one is read."""

from litestar.types import Scope

from app.access.guard import Authenticator, key_in
from app.base.errors import AgentServiceError, Forbidden, Unauthenticated


class OpenStreamAccess:
    """Implements ``app.web.streams.Access`` by the authenticator of requests, which remembers what it found lately."""

    def __init__(self, authenticator: Authenticator) -> None:
        self._authenticator = authenticator

    def credential(self, scope: Scope) -> str:
        """The key or the token of a request."""
        try:
            return key_in(scope["headers"])
        except Unauthenticated:
            return ""

    async def is_valid(self, credential: str) -> bool:
        """False for one that is revoked or expired; a database that is away revokes nothing."""
        try:
            await self._authenticator.authenticate(credential)
        except (Unauthenticated, Forbidden):
            return False
        except AgentServiceError:
            return True
        return True
