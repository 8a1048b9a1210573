"""Checks the credentials of streams that stay open: a key may be revoked, and a token expires, while one is read."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable

from litestar.types import Scope

from app.base.errors import AgentServiceError, Forbidden, Refused, Unauthenticated
from app.base.tasks import Tasks
from app.features.access.custom_auth import CustomAuth
from app.features.access.guard import Authenticator, key_in

RECHECK_SECONDS = 30.0
"""Time between two calls of the operator's handler for one open stream."""

HANDLER_SECONDS = 10.0
"""How long such a call may take; one that takes longer revokes nothing."""

HANDLERS_AT_ONCE = 8

CANNOT_TELL = frozenset({408, 425, 429})
"""Statuses of a handler that say nothing about the credential, as those from 500 on do not."""


class OpenStreamAccess:
    """Implements ``app.infra.http.open_streams.CredentialCheck``.

    Keys and tokens are checked by the ``authenticator`` of requests, which remembers what it found lately. Streams that
    the operator's handlers let in (``people``) are checked by the same handler, now and then, in ``tasks``.
    """

    def __init__(
        self, authenticator: Authenticator | None, people: CustomAuth | None = None, tasks: Tasks | None = None
    ) -> None:
        self._authenticator = authenticator
        self._people = people
        self._tasks = tasks or Tasks("access")
        self._places = asyncio.Semaphore(HANDLERS_AT_ONCE)

    def credential(self, scope: Scope) -> Hashable:
        """The key or the token of a request, or how its handler admits it again; None where neither can be checked."""
        if self._people is not None and not self._people.own_key(scope):
            again = self._people.readmission(scope)
            return None if again is None else _StreamAdmission(again)
        try:
            return key_in(scope["headers"])
        except Unauthenticated:
            return None

    def is_due(self, credential: Hashable) -> bool:
        """Keys and tokens always; what a handler let in when its time has come."""
        return not isinstance(credential, _StreamAdmission) or credential.refused or credential.due <= time.monotonic()

    async def is_valid(self, credential: Hashable) -> bool:
        """False for one that is revoked or expired; a database that is away revokes nothing."""
        if isinstance(credential, _StreamAdmission):
            if not credential.refused:
                credential.due = float("inf")  # until the handler has answered: no other check waits for it
                self._tasks.start(self._readmit(credential), name="readmit")
            return not credential.refused
        assert self._authenticator is not None
        return await _holds(self._authenticator.authenticate(str(credential)))

    async def _readmit(self, admission: "_StreamAdmission") -> None:
        try:
            async with self._places, asyncio.timeout(HANDLER_SECONDS):
                admission.refused = not await _holds(admission.again())
        except TimeoutError:
            pass
        finally:
            admission.due = time.monotonic() + RECHECK_SECONDS


class _StreamAdmission:
    """A stream that a handler let in: how to ask it ``again``, when that is ``due``, and whether it ``refused``."""

    __slots__ = ("again", "due", "refused")

    def __init__(self, again: Callable[[], Awaitable[object]]) -> None:
        self.again = again
        self.due = time.monotonic() + RECHECK_SECONDS
        self.refused = False


async def _holds(asked: Awaitable[object]) -> bool:
    """Whether a credential is still good, as far as that can be found out."""
    try:
        await asked
    except Refused as refused:
        return refused.status >= 500 or refused.status in CANNOT_TELL
    except (Unauthenticated, Forbidden):
        return False
    except AgentServiceError:
        return True
    return True
