"""Authenticate requests by the operator's handlers (``app.security.access.custom_auth_handlers``)."""

import time
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from uuid import UUID

import msgspec
from litestar import Request
from litestar.types import Receive, Scope

from app.agents.config.agents_file import AgentsFile
from app.base.code_loader import load
from app.base.errors import Forbidden, StartError, Unauthenticated, UsageError
from app.base.json_scan import UNREADABLE_JSON
from app.base.ttl_cache import TTLCache
from app.domain.caller import Caller
from app.features.access.guard import Authenticator, key_in
from app.infra.db.engine import Database
from app.infra.http.request_bodies import has_whole_body, repeated
from app.security.access import queries
from app.security.access.custom_auth_handlers import AuthHandlers, UserInfo, UserRules
from app.security.access.structs import (
    DEFAULT_TENANT_NAME,
    MEMBER,
    ActingUser,
    AuditSink,
    NullAuditSink,
    Principal,
    tenant_id_of,
    tenant_itself,
)
from app.security.limits.structs import TenantLimits

CACHE_TTL = 4.0
"""TTL of a tenant's limits, in seconds."""
MAX_CACHED_LIMITS = 10_000

SDK = "langgraph_sdk"
"""The package that handlers import; the extra ``auth`` installs it."""

RETAINED_SCOPE_KEYS = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "root_path", "query_string", "headers",
    "client", "server", "path_params", "path_template", "app", "route_handler",
)  # fmt: skip
"""What is retained of a request's scope while its stream is open."""

MAX_NAME_LENGTH = 100
MAX_IDENTITY_LENGTH = 255


class RawHeaders(dict[bytes, bytes]):
    """Headers of a request as bytes; lookups accept names as text too."""

    def __getitem__(self, name: Any) -> bytes:
        return super().__getitem__(_name(name))

    def __contains__(self, name: object) -> bool:
        return super().__contains__(_name(name))

    def get(self, name: Any, default: Any = None) -> Any:
        """The value, or ``default``."""
        return super().get(_name(name), default)


def _name(name: Any) -> Any:
    return name.lower().encode("latin-1", "replace") if isinstance(name, str) else name


class CustomAuth:
    """Authenticate users by handlers, as members of their tenant; API keys of this service are valid too.

    ``tenant``: the user field that names the tenant (empty: all users belong to the tenant ``default``). ``base``: path
    prefix that handlers do not see. ``keys``: authenticator of API keys, if they are accepted.
    """

    def __init__(
        self,
        handlers: AuthHandlers,
        database: Database,
        *,
        tenant: str = "",
        base: str = "",
        keys: Authenticator | None = None,
        records: AuditSink = NullAuditSink(),
    ) -> None:
        self._handlers = handlers
        self._database = database
        self._tenant = tenant
        self._base = base
        self._keys = keys
        self._records = records
        self._limits: TTLCache[UUID, TenantLimits] = TTLCache(MAX_CACHED_LIMITS, CACHE_TTL)

    async def admit(self, scope: Scope, receive: Receive, needed: str) -> tuple[Principal, Receive]:
        """Return the principal and the ``receive`` to read the rest of the request with.

        Raises ``Unauthenticated``, ``Refused``, ``Forbidden``, ``HandlerFailed``, ``Unavailable``.
        """
        if self._keys is not None and (key := self.own_key(scope)):
            return await self._keys.authenticate(key), receive
        wanted = self._handlers.wanted
        body = b""
        if ("body" in wanted or "request" in wanted) and has_whole_body(scope):
            body = await _whole(receive)
            receive = _replay(body, receive)
        user = await self._handlers.authenticate(_HandlerArguments(scope, body, self._base, needed))
        return await self._principal(user), receive

    def own_key(self, scope: Scope) -> str:
        """Return the API key of this service that a request carries; empty without one, or if keys are not accepted."""
        return _own_key(scope) if self._keys is not None else ""

    def readmission(self, scope: Scope) -> Callable[[], Awaitable[None]] | None:
        """Return a callable that authenticates an admitted request again; None if the handler reads request bodies.

        The callable raises as ``admit`` does, and ``Unauthenticated`` if the handler returns another user.
        """
        wanted = self._handlers.wanted
        if ("body" in wanted or "request" in wanted) and has_whole_body(scope):
            return None
        full_scope: Any = scope
        first: Principal = full_scope["user"]
        needed: str = full_scope["route_handler"].opt["permission"]
        retained: Any = {name: full_scope[name] for name in RETAINED_SCOPE_KEYS if name in full_scope} | {"state": {}}

        async def readmit() -> None:
            user = await self._handlers.authenticate(_HandlerArguments(retained, b"", self._base, needed))
            principal = await self._principal(user)
            if (principal.tenant_id, principal.user_id) != (first.tenant_id, first.user_id):
                raise Unauthenticated("The credential belongs to another user now.")

        return readmit

    async def _principal(self, user: UserInfo) -> Principal:
        identity = user["identity"]
        if not identity.isprintable() or len(identity) > MAX_IDENTITY_LENGTH:
            raise Unauthenticated(f"An identity must be 1 to {MAX_IDENTITY_LENGTH} printable characters.")
        name: Any = DEFAULT_TENANT_NAME
        if self._tenant:
            name = user.get(self._tenant)
            if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
                raise Forbidden(f"This user belongs to no tenant: its {self._tenant!r} names none.")
        tenant_id = tenant_id_of(name)
        return self._with_rules(tenant_id, user, await self._limits_of(tenant_id))

    def acting(self, caller: Caller) -> Principal:
        """Implement ``app.security.access.structs.ActingUser``: a run without a user acts as its tenant."""
        if caller.user is None:
            return tenant_itself(caller)
        return self._with_rules(caller.tenant_id, caller.user, TenantLimits())

    def _with_rules(self, tenant_id: UUID, user: UserInfo, limits: TenantLimits) -> Principal:
        rules = UserRules(self._handlers, user, self._records)
        rules.principal = principal = Principal(
            tenant_id, scopes=MEMBER, user_id=user["identity"], limits=limits, rules=rules
        )
        return principal

    async def _limits_of(self, tenant_id: UUID) -> TenantLimits:
        limits = self._limits.get(tenant_id)
        if limits is None:
            until = time.monotonic() + CACHE_TTL
            async with self._database.reading(tenant_id) as session:
                found = await queries.limits_of(session, tenant_id)
            limits = msgspec.convert(found, TenantLimits) if found else TenantLimits()
            self._limits.put(tenant_id, limits, until=until)
        return limits


def build_custom_auth(
    agents: AgentsFile, database: Database, base: str, *, keys: Authenticator | None, records: AuditSink, mode: str = ""
) -> CustomAuth:
    """Build custom authentication from the ``[auth]`` table of the agents file. Raises as ``handlers_of``."""
    handlers = handlers_of(agents, mode)
    assert agents.auth is not None
    return CustomAuth(handlers, database, tenant=agents.auth.tenant, base=base, keys=keys, records=records)


def handlers_of(agents: AgentsFile, mode: str) -> AuthHandlers:
    """Load the handlers that the ``[auth]`` table of the agents file names; ``mode`` is ``AGENT_AUTH``.

    Raises ``UsageError`` for a mode that cannot be combined with handlers, and ``StartError``, which names the file, if
    they do not load.
    """
    assert agents.auth is not None
    if mode == "jwt":
        raise UsageError(f"AGENT_AUTH=jwt and the [auth] of {agents.source} both authenticate users: remove one")
    try:
        return AuthHandlers(load(agents.auth.path, agents.folder), agents.auth.path)
    except StartError as error:
        missing = getattr(error.__cause__, "name", None)
        if isinstance(error.__cause__, ModuleNotFoundError) and str(missing).partition(".")[0] == SDK:
            raise StartError(
                f"{agents.source}: auth: {agents.auth.path} imports {SDK}, which is not installed: install the extra "
                "auth, as in pip install 'agent-service[auth]' (the image has it)"
            ) from error
        raise StartError(f"{agents.source}: auth: {error}") from error


def acting_user(custom_auth: CustomAuth | None) -> ActingUser:
    """Return the function that maps a run's caller to a principal; without custom auth it is the tenant itself."""
    return tenant_itself if custom_auth is None else custom_auth.acting


class _HandlerArguments(Mapping[str, Any]):
    """The arguments that a handler can declare by name, computed on access."""

    def __init__(self, scope: Scope, body: bytes, base: str, needed: str) -> None:
        headers = scope["headers"]
        path = scope["path"]
        self._makers: dict[str, Callable[[], Any]] = {
            "request": lambda: Request[Any, Any, Any](scope, _replay(body, _disconnected)),
            "body": lambda: _json(body),
            "path": lambda: path.removeprefix(base) or "/",
            "method": lambda: scope["method"],  # type: ignore[typeddict-item]
            "path_params": lambda: {name: str(value) for name, value in (scope.get("path_params") or {}).items()},
            "query_params": lambda: dict(Request[Any, Any, Any](scope).query_params.items()),
            "headers": lambda: RawHeaders(headers),
            "authorization": lambda: next(
                (value.decode("latin-1") for name, value in headers if name == b"authorization"), None
            ),
            "scope": lambda: scope,
            "scopes": lambda: [needed],
        }

    def __getitem__(self, name: str) -> Any:
        return self._makers[name]()

    def __iter__(self) -> Any:
        return iter(self._makers)

    def __len__(self) -> int:
        return len(self._makers)


def _own_key(scope: Scope) -> str:
    try:
        key = key_in(scope["headers"])
    except Unauthenticated:
        return ""
    return key if key.startswith("as_") else ""


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except UNREADABLE_JSON:
        return None


async def _whole(receive: Receive) -> bytes:
    """Read the body of a request; ``RequestBodyMiddleware`` has bounded its size."""
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _disconnected() -> Any:
    return {"type": "http.disconnect"}


def _replay(body: bytes, rest: Receive) -> Receive:
    """Return a ``receive`` that yields ``body`` once more and then continues with ``rest``."""
    return repeated({"type": "http.request", "body": body, "more_body": False}, rest)
