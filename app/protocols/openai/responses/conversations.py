"""HTTP routes of OpenAI's Conversations API: https://platform.openai.com/docs/api-reference/conversations

Every thread is a conversation, whichever API it was made by.
"""

from collections.abc import Callable, Collection, Sequence
from typing import Any, ParamSpec, TypeVar
from uuid import UUID, uuid5

import msgspec
from litestar import Controller, MediaType, Response, delete, get, post
from litestar.params import FromPath, FromQuery, JSONBody

from app.agents.port import END_NODE
from app.base.errors import Invalid, NotFound
from app.base.ids import new_id
from app.base.offload import body_bytes, offload
from app.features.access.guard import READS, WRITES, CurrentPrincipal
from app.features.access.idempotency import key_in, on_thread
from app.features.threads.structs import StateUpdate, Thread, ThreadCreate, ThreadPatch
from app.infra.http.problems import ERROR_SHAPE
from app.infra.http.query_params import AnyRequest
from app.infra.http.request_context import PROTOCOL_LABEL
from app.protocols.gateway import Gateway, ProtocolGateway
from app.protocols.openai.errors import error_shape
from app.protocols.openai.past import messages_in
from app.protocols.openai.responses import items
from app.protocols.openai.responses.inbound import read_input
from app.protocols.openai.responses.response import CONVERSATION, conversation_id, seconds, uuid_in
from app.security.access.structs import Principal
from app.security.idempotency.structs import IdempotencyKey

MAX_ITEMS = 20
"""Items of one request."""
MAX_METADATA = 16

ConversationId = FromPath[str]

P = ParamSpec("P")
Value = TypeVar("Value")

_encode = msgspec.json.Encoder().encode


class ConversationCreate(msgspec.Struct, kw_only=True):
    """A conversation to create, with its first ``items``."""

    items: list[dict[str, Any]] | None = None
    metadata: dict[str, str] | None = None


class ConversationPatch(msgspec.Struct, kw_only=True):
    """The metadata that replaces a conversation's."""

    metadata: dict[str, str] | None


class NewItems(msgspec.Struct, kw_only=True):
    """Items to add."""

    items: list[dict[str, Any]]


class ConversationsController(Controller):
    """Conversations and their items."""

    path = "/v1/conversations"
    tags = ("OpenAI",)
    opt = {**WRITES, ERROR_SHAPE: error_shape, PROTOCOL_LABEL: "openai.conversations"}  # noqa: RUF012  as the framework declares it

    @post("/", status_code=200, summary="Create a conversation")
    async def create(
        self,
        data: JSONBody[ConversationCreate],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> dict[str, Any]:
        """A thread, with ``items`` as its first messages."""
        key = await key_in(request)
        openai = {"metadata": _checked(data.metadata)}
        metadata: dict[str, Any] = {"protocol": "openai.conversations", "openai": openai}
        messages = [] if not data.items else await _messages(data.items)
        if messages:
            metadata["graph_id"] = _reader(gateway)
        made = await gateway.threads.create(principal, ThreadCreate(metadata=metadata), key)
        thread = made if isinstance(made, Thread) else msgspec.json.decode(made, type=Thread)
        if messages:
            await _write(gateway, principal, thread.thread_id, messages, on_thread(key, thread.thread_id))
        return _conversation(thread)

    @get("/{conversation_id:str}", opt=READS, summary="Retrieve a conversation")
    async def retrieve(
        self, conversation_id: ConversationId, principal: CurrentPrincipal, gateway: Gateway
    ) -> dict[str, Any]:
        """Its id, creation time and metadata."""
        return _conversation(await _found(gateway, principal, conversation_id))

    @post("/{conversation_id:str}", status_code=200, summary="Replace the metadata of a conversation")
    async def update(
        self,
        conversation_id: ConversationId,
        data: JSONBody[ConversationPatch],
        principal: CurrentPrincipal,
        gateway: Gateway,
    ) -> dict[str, Any]:
        """Metadata that other clients of the thread have set stay."""
        patch = ThreadPatch(metadata={"openai": {"metadata": _checked(data.metadata)}})
        thread_id = _thread_id(conversation_id)
        try:
            return _conversation(await gateway.threads.patch(principal, thread_id, patch))
        except NotFound:
            raise _unknown(conversation_id) from None

    @delete("/{conversation_id:str}", status_code=200, summary="Delete a conversation")
    async def remove(
        self, conversation_id: ConversationId, principal: CurrentPrincipal, gateway: Gateway
    ) -> dict[str, Any]:
        """With its items and responses, which OpenAI would keep: they are one thread."""
        thread_id = _thread_id(conversation_id)
        try:
            await gateway.threads.delete(principal, thread_id)
        except NotFound:
            raise _unknown(conversation_id) from None
        return {"id": _id(thread_id), "object": "conversation.deleted", "deleted": True}

    @get("/{conversation_id:str}/items", opt=READS, summary="List the items of a conversation")
    async def list_items(
        self,
        conversation_id: ConversationId,
        principal: CurrentPrincipal,
        gateway: Gateway,
        after: FromQuery[str | None] = None,
        limit: FromQuery[int] = 20,
        order: FromQuery[str] = "desc",
    ) -> Response[Any]:
        """Newest first, unless ``order`` is ``asc``."""
        thread = await _found(gateway, principal, conversation_id)
        return _json(await _offload(thread, _page, thread, after=after, limit=limit, order=order))

    @post("/{conversation_id:str}/items", status_code=200, summary="Add items to a conversation")
    async def add_items(
        self,
        conversation_id: ConversationId,
        data: JSONBody[NewItems],
        principal: CurrentPrincipal,
        gateway: Gateway,
        request: AnyRequest,
    ) -> Response[Any]:
        """They follow the newest state; no agent runs."""
        key = await key_in(request)
        thread = await _found(gateway, principal, conversation_id)
        seed = str(new_id()) if key is None else f"{key.route} {key.key}"
        read = await _messages(data.items)
        messages = [{"id": str(uuid5(thread.thread_id, f"{seed} {at}")), **one} for at, one in enumerate(read)]
        ids = {message["id"] for message in messages}
        known = await _offload(thread, _ids, thread, ids)
        await _add(gateway, principal, thread, messages, key)
        thread = await _found(gateway, principal, conversation_id)
        return _json(await _offload(thread, _page, thread, known, after=None, limit=items.MAX_PAGE, order="asc"))

    @get("/{conversation_id:str}/items/{item_id:str}", opt=READS, summary="Retrieve an item of a conversation")
    async def get_item(
        self, conversation_id: ConversationId, item_id: FromPath[str], principal: CurrentPrincipal, gateway: Gateway
    ) -> Response[Any]:
        """The item."""
        thread = await _found(gateway, principal, conversation_id)
        return _json(await _offload(thread, _item, thread, item_id))

    @delete("/{conversation_id:str}/items/{item_id:str}", status_code=200, summary="Delete an item of a conversation")
    async def delete_item(
        self, conversation_id: ConversationId, item_id: FromPath[str], principal: CurrentPrincipal, gateway: Gateway
    ) -> dict[str, Any]:
        """Later runs do not see it; earlier states of the thread keep it."""
        thread = await _found(gateway, principal, conversation_id)
        changes = await _offload(thread, lambda: items.without(messages_in(thread.values), item_id))
        if not changes:
            raise _no_item(item_id)
        await _write(gateway, principal, thread.thread_id, changes)
        return _conversation(thread)


def _id(thread_id: UUID) -> str:
    return conversation_id(thread_id)


def _conversation(thread: Thread) -> dict[str, Any]:
    stored = thread.metadata.get("openai") if isinstance(thread.metadata, dict) else None
    metadata = stored.get("metadata") if isinstance(stored, dict) else None
    return {
        "id": _id(thread.thread_id),
        "object": "conversation",
        "created_at": seconds(thread.created_at),
        "metadata": metadata or {},
    }


def _checked(metadata: dict[str, str] | None) -> dict[str, str]:
    if len(metadata or {}) > MAX_METADATA:
        raise Invalid(f"metadata has more than {MAX_METADATA} members.", (("/metadata", "too many"),))
    return metadata or {}


async def _messages(given: Sequence[dict[str, Any]]) -> list[dict[str, Any]]:
    if not 1 <= len(given) <= MAX_ITEMS:
        raise Invalid(f"items must be 1 to {MAX_ITEMS} items.", (("/items", "out of range"),))
    return (await offload(body_bytes.get(), read_input, given)).messages


def _thread_id(given: str) -> UUID:
    thread_id = uuid_in(given, CONVERSATION)
    if thread_id is None:
        raise _unknown(given)
    return thread_id


async def _found(gateway: ProtocolGateway, principal: Principal, given: str) -> Thread:
    try:
        return await gateway.threads.get(principal, _thread_id(given))
    except NotFound:
        raise _unknown(given) from None


async def _offload(thread: Thread, work: Callable[P, Value], *args: P.args, **named: P.kwargs) -> Value:
    """Call ``work``, which reads all messages of ``thread``."""
    return await offload(len(thread.values), work, *args, **named)


def _json(body: bytes) -> Response[Any]:
    return Response(body, media_type=MediaType.JSON)


def _page(thread: Thread, known: Collection[str] = (), **page: Any) -> bytes:
    """Return a page of the items that are not ``known``, as JSON."""
    return _encode(items.page_of([item for item in _items(thread) if item["id"] not in known], **page))


def _item(thread: Thread, item_id: str) -> bytes:
    for item in _items(thread):
        if item["id"] == item_id:
            return _encode(item)
    raise _no_item(item_id)


def _ids(thread: Thread, without: Collection[str]) -> set[str]:
    return {item["id"] for item in _items(thread, without)}


def _items(thread: Thread, without: Collection[str] = ()) -> list[items.Item]:
    metadata = thread.metadata if isinstance(thread.metadata, dict) else {}
    messages = [message for message in messages_in(thread.values) if message.get("id") not in without]
    return items.items_of(messages, str(metadata.get("graph_id") or "agent"))


async def _add(
    gateway: ProtocolGateway,
    principal: Principal,
    thread: Thread,
    messages: list[dict[str, Any]],
    key: IdempotencyKey | None,
) -> None:
    """Write messages to a thread, as one of an agent with a model if none has run on it yet."""
    if not (isinstance(thread.metadata, dict) and thread.metadata.get("graph_id")):
        patch = ThreadPatch(metadata={"graph_id": _reader(gateway)})
        await gateway.threads.patch(principal, thread.thread_id, patch)
    await _write(gateway, principal, thread.thread_id, messages, key)


def _reader(gateway: ProtocolGateway) -> str:
    """Return an agent that reads the items of a conversation in which none has run yet. Raises ``Invalid``."""
    name = next((name for name in gateway.assistants.names() if gateway.runs.accepts_options(name)), None)
    if name is None:
        raise Invalid("No agent here reads items before its first response: send them as its input.")
    return name


async def _write(
    gateway: ProtocolGateway,
    principal: Principal,
    thread_id: UUID,
    messages: list[dict[str, Any]],
    key: IdempotencyKey | None = None,
) -> None:
    update = StateUpdate(values={"messages": messages}, as_node=END_NODE)
    await gateway.threads.update_state(principal, thread_id, update, key)


def _unknown(given: str) -> NotFound:
    return NotFound(f"Conversation with id {given[:100]!r} not found.")


def _no_item(given: str) -> NotFound:
    return NotFound(f"Item with id {given[:100]!r} not found in the conversation.")
