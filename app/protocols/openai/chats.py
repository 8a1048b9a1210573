"""Chats of UIs, which send all messages of a chat each time: where its thread goes on, and with which of them.

Open WebUI and LibreChat send the branch that is on the screen. A message that was edited, or whose answer is asked for
again, is not what the thread has: then the run starts on a branch before it. Compared are the texts of people alone,
since a UI shows answers in its own way, and only messages that came by this API, since it knows no others.
"""

from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NamedTuple
from uuid import UUID

from app.base.errors import NotFound
from app.base.ids import new_id
from app.base.offload import offload
from app.protocols.forks import input_checkpoint, run_that_brought
from app.protocols.gateway import ProtocolGateway
from app.protocols.openai.past import messages_in
from app.protocols.threads import chat_in, thread_id_of
from app.security.access.structs import Principal

WHOLE_CHAT = "x-openwebui-chat-id"
"""The header of a client that sends its whole chat each time; with the other ones a request may have the news alone."""

MARK = "chat_"
"""Prefix of the ids of messages that came by this API to the thread of a chat."""


class Chat(NamedTuple):
    """A chat of a request. ``whole``: the request has all of its messages, even if it has no answer."""

    thread_id: UUID
    whole: bool


class Said(NamedTuple):
    """What a person said: ``at`` is its position in the request, or its id in the thread."""

    at: Any
    text: str


class Turn(NamedTuple):
    """The request's messages from ``start`` on are the input, on a branch at ``checkpoint_id`` (None: the newest)."""

    start: int
    checkpoint_id: UUID | None = None


def chat_of(headers: Mapping[str, str], principal: Principal) -> Chat | None:
    """Return the chat that a UI names in a header of its request; None if it names none."""
    chat_id = chat_in(headers)
    return None if chat_id is None else Chat(thread_id_of(principal, chat_id), bool(headers.get(WHOLE_CHAT)))


def marked(messages: Iterable[dict[str, Any]]) -> list[dict[str, Any]]:
    """Return messages with an id for each that a person said."""
    return [{"id": f"{MARK}{new_id().hex}", **one} if one.get("type") == "human" else one for one in messages]


def text_of(content: Any) -> str:
    """Return the text of a message's content: of a string, or of content parts."""
    parts = content if isinstance(content, list) else [content]
    texts = (part.get("text") if isinstance(part, dict) else part for part in parts)
    return "\n".join(text for text in texts if isinstance(text, str)).strip()


async def turn_of(
    gateway: ProtocolGateway, principal: Principal, chat: Chat, people: Sequence[Said], first_new: int
) -> Turn:
    """Return where the thread of ``chat`` goes on. ``people``: what the request has of them; ``first_new``: the
    position after its last answer.

    Raises ``NotFound`` if the thread's history no longer has the place of a branch.
    """
    try:
        state = await gateway.threads.state(principal, chat.thread_id)
    except NotFound:
        return Turn(0)
    messages = await offload(len(state.values), messages_in, state.values)
    if not messages:
        return Turn(0)
    known = [Said(str(one.get("id")), text_of(one.get("content"))) for one in messages if _is_of_chat(one)]
    earlier = [one for one in people if one.at < first_new]
    start, before = _compared(earlier, known, first_new, whole=chat.whole)
    if before is None:
        return Turn(start)
    run = await run_that_brought(gateway, principal, chat.thread_id, before)
    if run is None:
        raise NotFound("The run of an earlier message is no longer kept: start a new chat.")
    return Turn(start, await input_checkpoint(gateway, principal, chat.thread_id, run.run_id, before=True))


def _is_of_chat(message: Mapping[str, Any]) -> bool:
    return message.get("type") == "human" and str(message.get("id")).startswith(MARK)


def _compared(earlier: Sequence[Said], known: Sequence[Said], first_new: int, *, whole: bool) -> tuple[int, str | None]:
    """Return the first message of the input, and the message of the thread before which the branch begins."""
    given, stored = [one.text for one in earlier], [one.text for one in known]
    same = next(
        (at for at, (a, b) in enumerate(zip(given, stored, strict=False)) if a != b), min(len(given), len(stored))
    )
    if same == len(given) < len(stored) and (given or whole):  # edited, or asked for another answer
        return first_new, known[same].at
    if not given or not stored or _ends_with(given, stored) or _ends_with(stored, given):  # also if one was shortened
        return first_new, None
    start = earlier[same].at if same < len(given) else first_new
    return (start if same else 0), (known[same].at if same < len(stored) else None)


def _ends_with(texts: Sequence[str], last: Sequence[str]) -> bool:
    return len(texts) >= len(last) and list(texts[len(texts) - len(last) :]) == list(last)
