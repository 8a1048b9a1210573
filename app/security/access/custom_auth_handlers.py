"""The operator's own code that says who asks and what they may do: an ``Auth`` object of langgraph-sdk.

Nothing of that package is imported here: the object brings its types along. Source: the documentation of
``langgraph_sdk.Auth``, which also promises the names of its members that are read here.
"""

import asyncio
import dataclasses
import functools
import inspect
from collections.abc import Awaitable, Callable, Iterator, Mapping
from typing import Any

import msgspec
import structlog

from app.base.containment import containing, root_of
from app.base.errors import AgentServiceError, Forbidden, Refused, StartError, Unauthenticated
from app.security.access.structs import AuditEvent, AuditSink, MetadataFilter, NullAuditSink, Principal

log = structlog.get_logger(__name__)

PARAMETERS = (
    "request",
    "body",
    "path",
    "method",
    "path_params",
    "query_params",
    "headers",
    "authorization",
    "scope",
    "scopes",
)
"""What ``@auth.authenticate`` may ask for by name."""

MAKES = frozenset({"create", "update", "create_run"})
"""Actions that give a thing metadata."""

NOT_YOU = "Who you are cannot be told from this request: send a valid credential."
NOT_THIS = "You may not do that."

UserInfo = dict[str, Any]
AuthHandler = Callable[..., Awaitable[Any]]


class HandlerFailed(AgentServiceError):
    """A handler raised what it must not, or gave back what nobody understands: see the log."""


class User(Mapping[str, Any]):
    """Who asks, for handlers: its members are there by name (``user.identity``) and by key (``user["identity"]``)."""

    def __init__(self, shown: UserInfo) -> None:
        self._shown = shown

    def __getitem__(self, key: str) -> Any:
        return self._shown[key]

    def __iter__(self) -> Iterator[str]:
        return iter(self._shown)

    def __len__(self) -> int:
        return len(self._shown)

    def __getattr__(self, name: str) -> Any:
        if name.startswith("_") or name not in self._shown:
            raise AttributeError(name)
        return self._shown[name]


class AuthHandlers:
    """The handlers of one ``Auth`` object; ``source`` is where it is written. Raises ``StartError``."""

    def __init__(self, auth: Any, source: str) -> None:
        try:
            authenticate: Callable[..., Any] | None = auth._authenticate_handler  # noqa: SLF001  promised for servers
            self._handlers: dict[tuple[str, str], list[AuthHandler]] = auth._handlers  # noqa: SLF001
            self._global: list[AuthHandler] = auth._global_handlers  # noqa: SLF001
            self._context: Callable[..., Any] = auth.types.AuthContext
        except AttributeError as error:
            raise StartError(f"{source} is no langgraph_sdk.Auth object: write auth = Auth()") from error
        if authenticate is None:
            raise StartError(f"{source} has no handler @auth.authenticate, so nobody could get in")
        self._authenticate = authenticate
        self.wanted = _parameters(authenticate, source)
        """The names that ``@auth.authenticate`` asks for."""
        self._waits = inspect.iscoroutinefunction(authenticate)
        self._found: dict[tuple[str, str], AuthHandler | None] = {}

    async def authenticate(self, given: Mapping[str, Any]) -> UserInfo:
        """Who asks, by what is ``given`` of the request. Raises ``Unauthenticated``, ``Refused``, ``HandlerFailed``."""
        asked = {name: given[name] for name in self.wanted}
        call = self._authenticate if self._waits else functools.partial(asyncio.to_thread, self._authenticate)
        user = await _called(call, "authenticate", Unauthenticated(NOT_YOU), asked)
        if inspect.isawaitable(user):
            user = await _called(_awaiting(user), "authenticate", Unauthenticated(NOT_YOU), {})
        shown = _shown(user)
        if shown is None or not shown["is_authenticated"]:
            raise Unauthenticated(NOT_YOU)
        return shown

    def of(self, resource: str, action: str) -> AuthHandler | None:
        """The handler for ``action`` on ``resource``: the most specific one."""
        key = resource, action
        if key not in self._found:
            places = (key, (resource, "*"), ("*", action))
            found = next((self._handlers[place] for place in places if self._handlers.get(place)), self._global)
            self._found[key] = found[-1] if found else None
        return self._found[key]

    async def ask(self, user: User, resource: str, action: str, value: UserInfo) -> MetadataFilter:
        """How far ``user`` reaches. Raises ``Forbidden``, ``Refused``, ``HandlerFailed``."""
        handler = self.of(resource, action)
        if handler is None:
            return None
        context = self._context(permissions=user["permissions"], user=user, resource=resource, action=action)
        name = f"{resource}.{action}"
        answer = await _called(handler, name, Forbidden(NOT_THIS), {"ctx": context, "value": value})
        if answer is None or answer is True:
            owned: UserInfo = {}
        elif answer is False:
            raise Forbidden(NOT_THIS)
        else:
            owned = _containing(answer, name)
        metadata = value.get("metadata")
        if "metadata" in value and not isinstance(metadata, dict | None):
            raise _failed(name, "metadata is no dict any more")
        if action in MAKES and metadata and any(k in metadata and not _has(metadata[k], owned[k]) for k in owned):
            raise Forbidden("That metadata would put it out of your own reach: leave out what says whose it is.")
        return msgspec.json.encode(owned).decode() if owned else None


class UserRules:
    """One who asks, and the handlers that bound it (``app.security.access.structs.AccessRules``)."""

    def __init__(self, handlers: AuthHandlers, shown: UserInfo, records: AuditSink = NullAuditSink()) -> None:
        self.user = shown
        self._user = User(shown)
        self._handlers = handlers
        self._records = records
        self.principal: Principal | None = None
        """Whom the audit log names."""

    async def ask(self, resource: str, action: str, value: UserInfo) -> MetadataFilter:
        """As ``Rules.ask``; what is refused is noted."""
        try:
            return await self._handlers.ask(self._user, resource, action, value)
        except (Forbidden, Refused):
            if (principal := self.principal) is not None:
                self._records.record(
                    AuditEvent(principal.tenant_id, "request.forbidden", principal.actor, f"{resource}.{action}")
                )
            raise


def _parameters(function: Callable[..., Any], source: str) -> tuple[str, ...]:
    """The names that ``function`` asks for. Raises ``StartError`` for one that there is not."""
    wanted = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return PARAMETERS
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY or name not in PARAMETERS:
            if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                known = ", ".join(PARAMETERS)
                raise StartError(f"{source}: @auth.authenticate asks for {name!r}, which is none of {known}")
            continue
        wanted.append(name)
    return tuple(wanted)


async def _called(
    handler: Callable[..., Any], name: str, refusal: AgentServiceError, arguments: Mapping[str, Any]
) -> Any:
    """What ``handler`` gives. An assertion that does not hold is a ``refusal``; an HTTP exception, what it says."""
    try:
        return await containing(handler(**arguments))
    except AssertionError:
        raise refusal from None
    except Exception as error:  # noqa: BLE001  whatever code of the operator raises is no crash of the server
        status, detail = getattr(error, "status_code", None), getattr(error, "detail", None)
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise _failed(name, type(root_of(error)).__name__, _place(error)) from None
        raise _refused(status)(str(detail or ""), _headers(error)) from None


def _awaiting(found: Any) -> Callable[[], Any]:
    async def wait() -> Any:
        return await found

    return wait


def _failed(name: str, what: str, place: str = "") -> HandlerFailed:
    """What a handler raised may repeat a credential: its kind and its place are enough for its author."""
    log.error("auth_handler_failed", handler=name, error=what, place=place)
    return HandlerFailed(f"the handler {name} failed ({what}); see auth_handler_failed in the log")


def _place(error: BaseException) -> str:
    trace = error.__traceback__
    while trace is not None and trace.tb_next is not None:
        trace = trace.tb_next
    return "" if trace is None else f"{trace.tb_frame.f_code.co_filename}:{trace.tb_lineno}"


@functools.cache
def _refused(status: int) -> type[Refused]:
    return type("Refused", (Refused,), {"status": status})


def _headers(error: Exception) -> dict[str, str]:
    given = getattr(error, "headers", None) or {}
    return {str(k): str(v) for k, v in given.items() if f"{k}{v}".isprintable()} if isinstance(given, Mapping) else {}


def _shown(user: Any) -> UserInfo | None:
    """What ``@auth.authenticate`` gave back, as plain JSON; None for nobody. Raises ``HandlerFailed``."""
    if user is None:
        return None
    members = {"identity": user} if isinstance(user, str) else _members(user)
    shown: UserInfo = {"display_name": members.get("identity"), "is_authenticated": True, "permissions": []}
    for name, member in members.items():
        try:
            shown[str(name)] = msgspec.json.decode(msgspec.json.encode(member))
        except (TypeError, ValueError, RecursionError):
            continue  # a client or a lock that the handler keeps on its user
    identity = shown.get("identity")
    if not isinstance(identity, str) or not identity.strip():
        raise _failed("authenticate", "the user has no identity")
    shown["permissions"] = [str(one) for one in shown["permissions"] or []]
    return shown


def _members(user: Any) -> Mapping[Any, Any]:
    if isinstance(user, Mapping):
        return user
    if callable(dump := getattr(user, "model_dump", None)):
        found: Mapping[Any, Any] = dump()
        return found
    if dataclasses.is_dataclass(user) and not isinstance(user, type):
        return dataclasses.asdict(user)
    named = ("identity", "display_name", "is_authenticated", "permissions")
    found = {name: value for name, value in getattr(user, "__dict__", {}).items() if not name.startswith("_")}
    return {**found, **{name: getattr(user, name) for name in named if hasattr(user, name)}}


def _containing(wanted: Any, name: str) -> UserInfo:
    """The JSON that metadata must contain to pass the filter ``wanted``. Raises ``HandlerFailed``."""
    if not isinstance(wanted, Mapping):
        raise _failed(name, f"gave back a {type(wanted).__name__}: give None, a bool or a filter")
    found: UserInfo = {}
    for field, asked in wanted.items():
        if isinstance(asked, Mapping):
            if len(asked) != 1 or next(iter(asked)) not in {"$eq", "$contains"}:
                raise _failed(name, f"the filter of {field!r} has an operator that is not one of $eq and $contains")
            ((operator, operand),) = asked.items()
            if operator == "$contains":
                members = list(operand) if isinstance(operand, list | tuple | set | frozenset) else [operand]
                found[str(field)] = [_scalar(one, name) for one in members]
                continue
            asked = operand  # noqa: PLW2901
        found[str(field)] = _scalar(asked, name)
    return found


def _scalar(value: Any, name: str) -> Any:
    if value is None or isinstance(value, str | int | float):
        return value
    try:
        plain = msgspec.to_builtins(value)
    except TypeError:
        plain = None
    if not isinstance(plain, str):
        raise _failed(name, "a filter compares with a text, a number, a bool or null")
    return plain


def _has(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(value, list) and all(one in value for one in wanted)
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)
