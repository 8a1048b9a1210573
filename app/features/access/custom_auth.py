"""Requests → people, by handlers of the operator's (``app.security.access.custom_auth_handlers``)."""

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
"""How long the limits of a tenant count without being asked for again."""

SDK = "langgraph_sdk"
"""What handlers are written with; the extra ``auth`` installs it."""

KEPT = (
    "type", "asgi", "http_version", "method", "scheme", "path", "raw_path", "root_path", "query_string", "headers",
    "client", "server", "path_params", "path_template", "app", "route_handler",
)  # fmt: skip
"""What is kept of the scope of a request while its stream is open."""

MAX_NAME_LENGTH = 100
MAX_IDENTITY_LENGTH = 255


class RawHeaders(dict[bytes, bytes]):
    """The headers of a request: names and values are bytes, and names may be asked for as text too."""

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
    """Lets in whom the handlers know, as members of their tenant; API keys of this service count beside them.

    ``tenant``: the member of a user that names its tenant (empty: all are the tenant ``default``). ``base`` is what
    paths begin with that handlers are not told. ``keys``: who knows API keys, where they count.
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
        self._limits: dict[Any, tuple[float, TenantLimits]] = {}

    async def admit(self, scope: Scope, receive: Receive, needed: str) -> tuple[Principal, Receive]:
        """Who asks, and how the rest of the request is received now.

        Raises ``Unauthenticated``, ``Refused``, ``Forbidden``, ``HandlerFailed``, ``Unavailable``.
        """
        if self._keys is not None and (key := self.own_key(scope)):
            return await self._keys.authenticate(key), receive
        wanted = self._handlers.wanted
        body = b""
        if ("body" in wanted or "request" in wanted) and has_whole_body(scope):
            body = await _whole(receive)
            receive = _again(body, receive)
        shown = await self._handlers.authenticate(_HandlerArguments(scope, body, self._base, needed))
        return await self._principal(shown), receive

    def own_key(self, scope: Scope) -> str:
        """The API key of this service that came with a request, where such keys count; empty without one."""
        return _own_key(scope) if self._keys is not None else ""

    def readmission(self, scope: Scope) -> Callable[[], Awaitable[None]] | None:
        """How to ask the handler again about a request that it has let in; None where it reads bodies, which are gone.

        What it gives raises as ``admit`` does, and ``Unauthenticated`` for another person than the first time.
        """
        wanted = self._handlers.wanted
        if ("body" in wanted or "request" in wanted) and has_whole_body(scope):
            return None
        given: Any = scope
        first: Principal = given["user"]
        needed: str = given["route_handler"].opt["permission"]
        kept: Any = {name: given[name] for name in KEPT if name in given} | {"state": {}}

        async def again() -> None:
            shown = await self._handlers.authenticate(_HandlerArguments(kept, b"", self._base, needed))
            person = await self._principal(shown)
            if (person.tenant_id, person.user_id) != (first.tenant_id, first.user_id):
                raise Unauthenticated("The credential stands for another person now.")

        return again

    async def _principal(self, shown: UserInfo) -> Principal:
        identity = shown["identity"]
        if not identity.isprintable() or len(identity) > MAX_IDENTITY_LENGTH:
            raise Unauthenticated(f"An identity must be 1 to {MAX_IDENTITY_LENGTH} printable characters.")
        name: Any = DEFAULT_TENANT_NAME
        if self._tenant:
            name = shown.get(self._tenant)
            if not isinstance(name, str) or not name.strip() or not name.isprintable() or len(name) > MAX_NAME_LENGTH:
                raise Forbidden(f"This user belongs to no tenant: its {self._tenant!r} names none.")
        tenant_id = tenant_id_of(name)
        return self._bounded(tenant_id, shown, await self._limits_of(tenant_id))

    def acting(self, caller: Caller) -> Principal:
        """As ``app.security.access.structs.ActingUser``: a run that no person has begun reaches what its tenant has."""
        if caller.user is None:
            return tenant_itself(caller)
        return self._bounded(caller.tenant_id, caller.user, TenantLimits())

    def _bounded(self, tenant_id: UUID, shown: UserInfo, limits: TenantLimits) -> Principal:
        person = UserRules(self._handlers, shown, self._records)
        person.principal = principal = Principal(
            tenant_id, scopes=MEMBER, user_id=shown["identity"], limits=limits, rules=person
        )
        return principal

    async def _limits_of(self, tenant_id: Any) -> TenantLimits:
        known = self._limits.get(tenant_id)
        if known is not None and known[0] > time.monotonic():
            return known[1]
        until = time.monotonic() + CACHE_TTL
        async with self._database.reading(tenant_id) as session:
            found = await queries.limits_of(session, tenant_id)
        limits = msgspec.convert(found, TenantLimits) if found else TenantLimits()
        if len(self._limits) > 10_000:
            self._limits.clear()
        self._limits[tenant_id] = until, limits
        return limits


def build_custom_auth(
    agents: AgentsFile, database: Database, base: str, *, keys: Authenticator | None, records: AuditSink, mode: str = ""
) -> CustomAuth:
    """Those whom the handlers of the agents file know. Raises as ``handlers_of``."""
    handlers = handlers_of(agents, mode)
    assert agents.auth is not None
    return CustomAuth(handlers, database, tenant=agents.auth.tenant, base=base, keys=keys, records=records)


def handlers_of(agents: AgentsFile, mode: str) -> AuthHandlers:
    """The handlers that the ``[auth]`` of the agents file names, next to the ``AGENT_AUTH`` that ``mode`` is.

    Raises ``UsageError`` for a mode that cannot be combined with handlers, ``StartError``, which names the file, for
    handlers that do not load.
    """
    assert agents.auth is not None
    if mode == "jwt":
        raise UsageError(f"AGENT_AUTH=jwt and the [auth] of {agents.source} both tell who asks: keep one of them")
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


def acting_user(people: CustomAuth | None) -> ActingUser:
    """How far those reach for whom agents work; ``people`` None: nobody tells them apart."""
    return tenant_itself if people is None else people.acting


class _HandlerArguments(Mapping[str, Any]):
    """What a handler may ask for by name; made when it is asked for."""

    def __init__(self, scope: Scope, body: bytes, base: str, needed: str) -> None:
        headers = scope["headers"]
        path = scope["path"]
        self._makers: dict[str, Callable[[], Any]] = {
            "request": lambda: Request[Any, Any, Any](scope, _again(body, _nothing)),
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
    """The API key of this service that came with a request; empty without one."""
    try:
        key = key_in(scope["headers"])
    except Unauthenticated:
        return ""
    return key if key.startswith("as_") else ""


def _json(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body)
    except msgspec.DecodeError:
        return None


async def _whole(receive: Receive) -> bytes:
    """The body of a request, which a layer further out has bounded."""
    parts = []
    more = True
    while more:
        message = await receive()
        if message["type"] != "http.request":
            break
        parts.append(message.get("body", b""))
        more = message.get("more_body", False)
    return b"".join(parts)


async def _nothing() -> Any:
    return {"type": "http.disconnect"}


def _again(body: bytes, rest: Receive) -> Receive:
    """Receive ``body`` once more, and then from ``rest``."""
    return repeated({"type": "http.request", "body": body, "more_body": False}, rest)
