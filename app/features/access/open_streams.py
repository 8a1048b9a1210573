"""Recheck the credentials of open streams: keys are revoked and tokens expire while a stream is read."""

import asyncio
import time
from collections.abc import Awaitable, Callable, Hashable

from litestar.types import Scope

from app.base.errors import AgentServiceError, Forbidden, Refused, Unauthenticated
from app.base.tasks import Tasks
from app.features.access.custom_auth import CustomAuth
from app.features.access.guard import Authenticator, key_in

RECHECK_SECONDS = 30.0
"""Seconds between two calls of the operator's handler for one open stream."""

HANDLER_TIMEOUT = 10.0
"""Timeout of such a call, in seconds; a call that times out revokes nothing."""

MAX_CONCURRENT_HANDLERS = 8

INCONCLUSIVE = frozenset({408, 425, 429})
"""Statuses of a handler that say nothing about the credential, like those from 500 on."""


class OpenStreamAccess:
    """Implements ``app.infra.http.open_streams.CredentialCheck``.

    Keys and tokens are checked by the ``authenticator`` of requests, which caches its lookups. Streams admitted by
    ``custom_auth`` are checked by the same handler every ``RECHECK_SECONDS``, in ``tasks``.
    """

    def __init__(
        self, authenticator: Authenticator | None, custom_auth: CustomAuth | None = None, tasks: Tasks | None = None
    ) -> None:
        self._authenticator = authenticator
        self._custom_auth = custom_auth
        self._tasks = tasks or Tasks("access")
        self._handler_slots = asyncio.Semaphore(MAX_CONCURRENT_HANDLERS)

    def credential(self, scope: Scope) -> Hashable:
        """Return what a recheck needs: the key or token, or the handler's readmission; None if neither is possible."""
        if self._custom_auth is not None and not self._custom_auth.own_key(scope):
            readmit = self._custom_auth.readmission(scope)
            return None if readmit is None else _StreamAdmission(readmit)
        try:
            return key_in(scope["headers"])
        except Unauthenticated:
            return None

    def is_due(self, credential: Hashable) -> bool:
        """Return whether to check now: keys and tokens always, admissions of a handler after ``RECHECK_SECONDS``."""
        return not isinstance(credential, _StreamAdmission) or credential.refused or credential.due <= time.monotonic()

    async def is_valid(self, credential: Hashable) -> bool:
        """Return False if the credential is revoked or expired; an unavailable database revokes nothing."""
        if isinstance(credential, _StreamAdmission):
            if not credential.refused:
                credential.due = float("inf")  # until the handler has answered
                self._tasks.start(self._readmit(credential), name="readmit")
            return not credential.refused
        assert self._authenticator is not None
        return await _still_valid(self._authenticator.authenticate(str(credential)))

    async def _readmit(self, admission: "_StreamAdmission") -> None:
        try:
            async with self._handler_slots, asyncio.timeout(HANDLER_TIMEOUT):
                admission.refused = not await _still_valid(admission.readmit())
        except TimeoutError:
            pass
        finally:
            admission.due = time.monotonic() + RECHECK_SECONDS


class _StreamAdmission:
    """A stream that a handler admitted: when the next call is ``due``, and whether the last one ``refused``."""

    __slots__ = ("due", "readmit", "refused")

    def __init__(self, readmit: Callable[[], Awaitable[object]]) -> None:
        self.readmit = readmit
        self.due = time.monotonic() + RECHECK_SECONDS
        self.refused = False


async def _still_valid(check: Awaitable[object]) -> bool:
    """Return False only if ``check`` refuses the credential; errors of the check itself count as valid."""
    try:
        await check
    except Refused as refused:
        return refused.status >= 500 or refused.status in INCONCLUSIVE
    except (Unauthenticated, Forbidden):
        return False
    except AgentServiceError:
        return True
    return True
