"""What a function returned → what it changes in the thread."""

from typing import Any

from app.agents.functions.conversion import to_builtins
from app.agents.functions.messages import MESSAGE, Conversation, structs
from app.agents.functions.values import check_name
from app.base.errors import AgentError
from app.domain.messages import AIMessage
from app.domain.state import MESSAGES

PLACE = "returned"


def take(value: Any, conversation: Conversation) -> dict[str, Any]:
    """Add the messages in ``value`` to ``conversation``; the values in it are the answer.

    A text is the agent's message, a message and a list of messages are themselves, an object (dictionary, struct,
    dataclass, model) is an update of the values, None is nothing. Raises ``AgentError`` for anything else.
    """
    if value is None:
        return {}
    if isinstance(value, str):
        conversation.say([conversation.answer_with(value) or AIMessage(content=value)], PLACE)
        return {}
    if isinstance(value, MESSAGE):
        conversation.say([value], PLACE)
        return {}
    if isinstance(value, list | tuple) and all(isinstance(one, MESSAGE) for one in value):
        conversation.say(value, PLACE)
        return {}
    try:
        update = to_builtins(value)
    except TypeError as error:
        raise AgentError(f"The function returned what is no JSON: {error}.") from error
    if not isinstance(update, dict):
        raise AgentError(
            f"The function returned a {type(value).__name__}: return a text, a message, a list of messages, an object "
            "of values, or nothing."
        )
    try:
        given = update.pop(MESSAGES, None) or []
        given = given if isinstance(given, list) else [given]
        taken_out = [one for one in given if isinstance(one, dict) and one.get("type") == "remove"]
        conversation.take_out([str(one.get("id")) for one in taken_out])
        added = [one for one in given if one not in taken_out]
        conversation.say(structs(added, conversation.id_at(PLACE, -1)), PLACE)
        for name in update:
            check_name(name)
    except ValueError as error:
        raise AgentError(f"The function returned values that cannot be kept: {error}.") from error
    return update
