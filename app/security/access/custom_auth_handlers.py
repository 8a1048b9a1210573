"""Run the operator's ``Auth`` handlers (langgraph-sdk): authentication and authorization by custom code.

The package itself is not imported: the object brings its types along. Source: the documentation of
``langgraph_sdk.Auth``, which promises the member names that are read here.
"""

import asyncio
import dataclasses
import functools
import inspect
from collections.abc import Callable, Iterator, Mapping
from typing import Any

import msgspec
import structlog

from app.base.containment import contain, kind_of, root_of, tamed
from app.base.errors import AgentServiceError, Forbidden, Refused, StartError, Unauthenticated
from app.security.access.langgraph_sdk_internals import AuthHandler, registered_handlers
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
"""Parameters that ``@auth.authenticate`` may declare."""

WRITES_METADATA = frozenset({"create", "update", "create_run"})
"""Actions that write metadata."""

NOT_AUTHENTICATED = "This request has no valid credential: send one."
NOT_ALLOWED = "You may not do that."

UserInfo = dict[str, Any]


class HandlerFailed(AgentServiceError):
    """A handler raised an unexpected error or returned an invalid value; see the log."""


class User(Mapping[str, Any]):
    """The authenticated user as handlers see it, by attribute (``user.identity``) and by key (``user["identity"]``)."""

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
    """The handlers of one ``Auth`` object, defined in ``source``. Raises ``StartError``."""

    def __init__(self, auth: Any, source: str) -> None:
        try:
            authenticate, self._handlers, self._global = registered_handlers(auth)
            self._context: Callable[..., Any] = auth.types.AuthContext
        except AttributeError as error:
            raise StartError(f"{source} is not a langgraph_sdk.Auth object: write auth = Auth()") from error
        if authenticate is None:
            raise StartError(f"{source} has no @auth.authenticate handler, so every request would be refused: add one")
        self._authenticate = authenticate
        self.wanted = _parameters(authenticate, source)
        """Parameters that ``@auth.authenticate`` declares."""
        self._waits = inspect.iscoroutinefunction(authenticate)
        self._found: dict[tuple[str, str], AuthHandler | None] = {}

    async def authenticate(self, given: Mapping[str, Any]) -> UserInfo:
        """Return the user of a request, of which ``given`` has the parameters. Raises ``Unauthenticated``, ``Refused``,
        ``HandlerFailed``.
        """
        asked = {name: given[name] for name in self.wanted}
        call = self._authenticate if self._waits else functools.partial(asyncio.to_thread, self._authenticate)
        user = await _called(call, "authenticate", Unauthenticated(NOT_AUTHENTICATED), asked)
        if inspect.isawaitable(user):
            user = await _called(_awaiting(user), "authenticate", Unauthenticated(NOT_AUTHENTICATED), {})
        shown = _shown(user)
        if shown is None or not shown["is_authenticated"]:
            raise Unauthenticated(NOT_AUTHENTICATED)
        return shown

    def handler_for(self, resource: str, action: str) -> AuthHandler | None:
        """Return the most specific handler for ``action`` on ``resource``."""
        key = resource, action
        if key not in self._found:
            places = (key, (resource, "*"), ("*", action))
            found = next((self._handlers[place] for place in places if self._handlers.get(place)), self._global)
            self._found[key] = found[-1] if found else None
        return self._found[key]

    async def authorize(self, user: User, resource: str, action: str, value: UserInfo) -> MetadataFilter:
        """Return the metadata filter that applies to ``user``. Raises ``Forbidden``, ``Refused``, ``HandlerFailed``."""
        handler = self.handler_for(resource, action)
        if handler is None:
            return None
        context = self._context(permissions=user["permissions"], user=user, resource=resource, action=action)
        name = f"{resource}.{action}"
        answer = await _called(handler, name, Forbidden(NOT_ALLOWED), {"ctx": context, "value": value})
        if answer is None or answer is True:
            owned: UserInfo = {}
        elif answer is False:
            raise Forbidden(NOT_ALLOWED)
        else:
            owned = _containing(answer, name)
        metadata = value.get("metadata")
        if "metadata" in value and not isinstance(metadata, dict | None):
            raise _failed(name, "it replaced metadata by a value that is not a dict")
        if (
            action in WRITES_METADATA
            and metadata
            and any(k in metadata and not _has(metadata[k], owned[k]) for k in owned)
        ):
            raise Forbidden(
                "This metadata would make the resource inaccessible to you: leave out the fields that name its owner."
            )
        return msgspec.json.encode(owned).decode() if owned else None


class UserRules:
    """Access rules of one authenticated user, enforced by the operator's handlers."""

    def __init__(self, handlers: AuthHandlers, shown: UserInfo, records: AuditSink = NullAuditSink()) -> None:
        self.user = shown
        self._user = User(shown)
        self._handlers = handlers
        self._records = records
        self.principal: Principal | None = None
        """The principal for the audit log."""

    async def authorize(self, resource: str, action: str, value: UserInfo) -> MetadataFilter:
        """Authorize as ``AccessRules.authorize`` does, and audit refusals."""
        try:
            return await self._handlers.authorize(self._user, resource, action, value)
        except (Forbidden, Refused):
            if (principal := self.principal) is not None:
                self._records.record(
                    AuditEvent(principal.tenant_id, "request.forbidden", principal.actor, f"{resource}.{action}")
                )
            raise


def _parameters(function: Callable[..., Any], source: str) -> tuple[str, ...]:
    """Return the parameters that ``function`` declares. Raises ``StartError`` for an unknown one."""
    wanted = []
    for name, parameter in inspect.signature(function).parameters.items():
        if parameter.kind is inspect.Parameter.VAR_KEYWORD:
            return PARAMETERS
        if parameter.kind is inspect.Parameter.POSITIONAL_ONLY or name not in PARAMETERS:
            if parameter.default is inspect.Parameter.empty and parameter.kind is not inspect.Parameter.VAR_POSITIONAL:
                known = ", ".join(PARAMETERS)
                raise StartError(f"{source}: @auth.authenticate declares {name!r}, which is not one of {known}")
            continue
        wanted.append(name)
    return tuple(wanted)


async def _called(
    handler: Callable[..., Any], name: str, refusal: AgentServiceError, arguments: Mapping[str, Any]
) -> Any:
    """Call ``handler``. A failed assertion raises ``refusal``, an HTTP exception its own status."""
    try:
        return await contain(handler(**arguments))
    except AssertionError:
        raise refusal from None
    except Exception as error:  # noqa: BLE001  an edge: code of the operator may raise anything
        raised = tamed(error)
        status, detail = getattr(raised, "status_code", None), getattr(raised, "detail", None)
        if not isinstance(status, int) or not 400 <= status <= 599:
            raise _failed(name, kind_of(root_of(raised)), _place(raised)) from None
        raise _refused(status)(str(detail or ""), _headers(raised)) from None


def _awaiting(found: Any) -> Callable[[], Any]:
    async def wait() -> Any:
        return await found

    return wait


def _failed(name: str, what: str, place: str = "") -> HandlerFailed:
    """Log the failure with its type and source line only: a handler's message may repeat a credential."""
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


def _headers(error: BaseException) -> dict[str, str]:
    given = getattr(error, "headers", None) or {}
    return {str(k): str(v) for k, v in given.items() if f"{k}{v}".isprintable()} if isinstance(given, Mapping) else {}


def _shown(user: Any) -> UserInfo | None:
    """Return the result of ``@auth.authenticate`` as plain JSON; None if there is no user. Raises ``HandlerFailed``."""
    if user is None:
        return None
    members = {"identity": user} if isinstance(user, str) else _members(user)
    shown: UserInfo = {"display_name": members.get("identity"), "is_authenticated": True, "permissions": []}
    for name, member in members.items():
        try:
            shown[str(name)] = msgspec.json.decode(msgspec.json.encode(member))
        except (TypeError, ValueError, RecursionError):
            continue  # not JSON: a client or a lock that the handler keeps on its user
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
    """Return the JSON that metadata must contain to match the filter ``wanted``. Raises ``HandlerFailed``."""
    if not isinstance(wanted, Mapping):
        raise _failed(name, f"returned a {type(wanted).__name__}: return None, a bool or a filter")
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
        raise _failed(name, "a filter may compare with a string, a number, a bool or null")
    return plain


def _has(value: Any, wanted: Any) -> bool:
    if isinstance(wanted, list):
        return isinstance(value, list) and all(one in value for one in wanted)
    return bool(value == wanted) and isinstance(value, bool) == isinstance(wanted, bool)
