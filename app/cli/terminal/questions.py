"""Ask a person the open questions of a run (docs/how-to/people.md) and return the answers for ``command.resume``."""

import json
from collections.abc import Callable, Sequence
from typing import Any

from app.cli.terminal.conversation import clipped, printable
from app.cli.terminal.output import BOLD, DIM, RED, styled

Read = Callable[[str, str], str]
"""Read a line: prompt, text to edit. Raises ``EOFError`` at the end of the input."""

APPROVAL = {"a": "approve", "e": "edit", "r": "reject", "s": "respond"}
REVIEW = {"r": "retry", "d": "done", "f": "failed", "a": "abort"}
_EXPLAINED = {
    "approve": "approve",
    "edit": "edit the arguments",
    "reject": "reject",
    "respond": "respond instead of the tool",
    "retry": "retry: it did not happen",
    "done": "done: it happened",
    "failed": "failed: tell the model",
    "abort": "abort the run",
}


def ask_all(questions: Sequence[dict[str, Any]], read: Read) -> dict[str, Any]:
    """Ask one question after the other; return the answers by id. Raises ``EOFError``."""
    return {question["id"]: _ask(question, read) for question in questions}


def _ask(question: dict[str, Any], read: Read) -> Any:
    value = question.get("value")
    if isinstance(value, dict) and value.get("type") == "tool_review":
        return _review(value, read)
    if isinstance(value, dict) and isinstance(value.get("action_requests"), list):
        return {"decisions": [_decide(value, number, read) for number in range(len(value["action_requests"]))]}
    return _free(value, question.get("response_schema"), read)


def _decide(value: dict[str, Any], number: int, read: Read) -> dict[str, Any]:
    request = value["action_requests"][number]
    configs = value.get("review_configs") or []
    name, args = str(request.get("name", "")), request.get("args") or {}
    if value.get("problem"):
        print(styled(printable(str(value["problem"])), RED))
    print(styled(f"{printable(name)} needs approval", BOLD))
    for key, one in args.items():
        print(clipped(f"  {key} = {json.dumps(one, ensure_ascii=False)}"))
    own = [one for one in configs if isinstance(one, dict) and one.get("action_name") == name]
    allowed = own[0].get("allowed_decisions") if own else None
    choice = _choose({key: one for key, one in APPROVAL.items() if allowed is None or one in allowed}, read)
    if choice == "edit":
        edited = _json(read, "arguments: ", json.dumps(args, ensure_ascii=False))
        return {"type": "edit", "edited_action": {"name": name, "args": edited}}
    if choice == "reject":
        reason = read("reason (may be empty): ", "")
        return {"type": "reject", **({"message": reason} if reason else {})}
    if choice == "respond":
        return {"type": "respond", "message": read("result: ", "")}
    return {"type": "approve"}


def _review(value: dict[str, Any], read: Read) -> dict[str, Any]:
    tool = printable(str(value.get("tool", "a tool")))
    print(styled(f"The process died while {tool} ran: did it happen?", BOLD))
    print(clipped(f"  {json.dumps(value.get('args'), ensure_ascii=False)}"))
    choice = _choose(REVIEW, read)
    if choice in {"done", "failed"}:
        return {"action": choice, "result": read("result: ", "")}
    return {"action": choice}


def _free(value: Any, schema: Any, read: Read) -> Any:
    asked = value.get("question") if isinstance(value, dict) else value
    print(styled(printable(asked if isinstance(asked, str) else json.dumps(value, ensure_ascii=False)), BOLD))
    more = {key: one for key, one in value.items() if key != "question"} if isinstance(value, dict) else {}
    for key, one in more.items() if isinstance(asked, str) else ():
        print(clipped(f"  {key} = {json.dumps(one, ensure_ascii=False)}"))
    if not isinstance(schema, dict) or schema.get("type") == "string":
        return read("answer: ", "")
    print(styled(clipped(f"  an answer is JSON of {json.dumps(schema, ensure_ascii=False)}"), DIM))
    return _json(read, "answer: ", "")


def _choose(keys: dict[str, str], read: Read) -> str:
    """Read one of ``keys``, or the whole word."""
    print("  " + "   ".join(f"[{key}] {_EXPLAINED[word]}" for key, word in keys.items()))
    while True:
        given = read("> ", "").strip().lower()
        if given in keys:
            return keys[given]
        if given in keys.values():
            return given
        print(f"  type one of {', '.join(keys)}")


def _json(read: Read, prompt: str, text: str) -> Any:
    while True:
        text = read(prompt, text)
        try:
            return json.loads(text)
        except ValueError as error:
            print(styled(f"  not valid JSON: {error}", RED))
