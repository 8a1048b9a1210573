"""Tokens of the models that a run calls: reported to the engine while the calls run, so that none is free of charge.

LangChain tells of every call of a model in a run, whatever becomes of its answer: a node may keep a part of it, and a
run may be cancelled, or fail, before the provider has counted. A call that was not counted is estimated: four
characters for a token of ASCII, three bytes of UTF-8 otherwise.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import Callable
from contextvars import ContextVar
from typing import Any
from uuid import UUID

from langchain_core.callbacks import BaseCallbackHandler
from langchain_core.messages import AIMessage, BaseMessage
from langchain_core.outputs import LLMResult
from langchain_core.tracers.context import register_configure_hook

MESSAGE_OVERHEAD = 4
"""Estimated tokens of a message besides its content."""
MEDIA_TOKENS = 1_000
"""Estimated tokens of a block of content that is not text."""
PROGRESS_TOKENS = 200
"""So many tokens stream between two reports of a call that runs."""
NAMES = (("input_tokens", "prompt_tokens"), ("output_tokens", "completion_tokens"))
"""Names of the counts in messages, and in the output of models that answer with text."""

METADATA = "__metadata__"
"""The key that LangGraph adds to outputs of nodes which were stored before."""

model_calls: ContextVar[ModelCalls | None] = ContextVar("model_calls", default=None)
"""The calls of the run whose code is running."""
register_configure_hook(model_calls, inheritable=True)


class _Call:
    __slots__ = ("input", "model", "number", "output", "reported")

    def __init__(self, number: int, model: str, given: int) -> None:
        self.number = number
        self.model = model
        self.input = given
        self.output = 0.0
        self.reported = 0.0


class ModelCalls(BaseCallbackHandler):
    """The calls of models in one run; ``report`` is called with what the engine gets to know of each.

    Methods may be called by any thread.
    """

    run_inline = True

    def __init__(self, report: Callable[[dict[str, Any]], None]) -> None:
        self._report = report
        self._calls: dict[UUID, _Call] = {}
        self._count = 0
        self._answers: set[str] = set()

    @property
    def ignore_chain(self) -> bool:
        """Whether runnables other than models are of no interest."""
        return True

    @property
    def ignore_agent(self) -> bool:
        """Whether tools are of no interest."""
        return True

    @property
    def ignore_retriever(self) -> bool:
        """Whether retrievers are of no interest."""
        return True

    @property
    def ignore_retry(self) -> bool:
        """Whether retries are of no interest."""
        return True

    @property
    def ignore_custom_event(self) -> bool:
        """Whether events of the project are of no interest."""
        return True

    def on_chat_model_start(
        self, serialized: dict[str, Any], messages: list[list[BaseMessage]], *, run_id: UUID, **about: Any
    ) -> None:
        """A chat model is called."""
        given = sum(map(_tokens_of, messages[0] if messages else ()))
        self._begin(run_id, given, about)

    def on_llm_start(self, serialized: dict[str, Any], prompts: list[str], *, run_id: UUID, **about: Any) -> None:
        """A model that completes text is called."""
        self._begin(run_id, sum(map(_tokens, prompts)), about)

    def on_llm_new_token(self, token: str | list[Any], *, chunk: Any = None, run_id: UUID, **about: Any) -> None:
        """A piece of an answer has come."""
        call = self._calls.get(run_id)
        if call is None:
            return
        call.output += _weight(token) if isinstance(token, str) else sum(map(_block_weight, token))
        message = getattr(chunk, "message", None)
        for piece in getattr(message, "tool_call_chunks", ()):
            call.output += _weight(piece["args"] or "")
        if call.output - call.reported >= PROGRESS_TOKENS:
            call.reported = call.output
            self._tell(call, call.input, int(call.output), estimated=True, ended=False)

    def on_llm_end(self, response: LLMResult, *, run_id: UUID, **about: Any) -> None:
        """A model has answered: the provider's counts hold, or the estimate where it has none."""
        call = self._calls.pop(run_id, None)
        if call is None:
            return
        answers = [one.message for found in response.generations for one in found if hasattr(one, "message")]
        self._answers.update(one.id for one in answers if one.id)
        counts = _counted(answers, response.llm_output)
        if counts is not None:
            self._tell(call, *counts, estimated=False, ended=True)
            return
        texts = answers or [AIMessage(one.text) for found in response.generations for one in found]
        self._tell(call, call.input, sum(map(_tokens_of, texts)), estimated=True, ended=True)

    def on_llm_error(self, error: BaseException, *, run_id: UUID, **about: Any) -> None:
        """A call has failed: one that was refused costs nothing, one that was cut off what it has streamed."""
        call = self._calls.pop(run_id, None)
        if call is None:
            return
        cut = bool(call.output) or isinstance(error, asyncio.CancelledError)
        self._tell(call, call.input if cut else 0, int(call.output), estimated=True, ended=True)

    def usage_of(self, updates: list[dict[str, Any]], before: Any) -> dict[str, Any] | None:
        """Return the tokens of messages in ``updates`` whose model was not called through LangChain.

        ``before``: the messages before the superstep, which a node may have returned again.
        """
        found: dict[str, Any] = {"input_tokens": 0, "output_tokens": 0, "total_tokens": 0, "model": ""}
        known: set[str] | None = None
        for message in _counted_messages(updates):
            if known is None:
                earlier = before if isinstance(before, list) else [before]
                known = self._answers | {one.id for one in earlier if isinstance(one, AIMessage) and one.id}
            if message.id in known:
                continue
            if message.id:
                self._answers.add(message.id)
            usage: Any = message.usage_metadata
            for name in ("input_tokens", "output_tokens", "total_tokens"):
                found[name] += usage.get(name) or 0
            found["model"] = _answering(message.response_metadata)
        return found if found["total_tokens"] else None

    def _begin(self, run_id: UUID, given: int, about: dict[str, Any]) -> None:
        self._count += 1
        call = self._calls[run_id] = _Call(self._count, _called(about), given)
        self._tell(call, given, 0, estimated=True, ended=False)

    def _tell(self, call: _Call, given: int, answered: int, *, estimated: bool, ended: bool) -> None:
        self._report(
            {
                "id": call.number,
                "model": call.model,
                "input_tokens": given,
                "output_tokens": answered,
                "estimated": estimated,
                "ended": ended,
            }
        )


def _counted_messages(updates: list[dict[str, Any]]) -> list[AIMessage]:
    """Return the messages with counts in the outputs of nodes that have run now; a cached output costs nothing."""
    outputs = (output for update in updates if METADATA not in update for output in update.values())
    lists = (output.get("messages") for output in outputs if isinstance(output, dict))
    messages = (message for found in lists for message in (found if isinstance(found, list) else [found]))
    return [one for one in messages if isinstance(one, AIMessage) and one.usage_metadata]


def _counted(answers: list[Any], output: dict[str, Any] | None) -> tuple[int, int] | None:
    """Return a provider's counts for an answer: input and output."""
    usages: list[Any] = [usage for one in answers if (usage := getattr(one, "usage_metadata", None))]
    if not usages and isinstance(output, dict) and isinstance(counts := output.get("token_usage"), dict):
        usages = [counts]
    for usage in usages[:1]:  # further candidates of one answer repeat its counts
        given, answered = (next((usage[one] for one in names if usage.get(one)), 0) for names in NAMES)
        if given or answered:
            return given, answered
    return None


def _called(about: dict[str, Any]) -> str:
    """Return vendor and name of a called model, as price lists name them."""
    metadata, params = about.get("metadata") or {}, about.get("invocation_params") or {}
    name = metadata.get("ls_model_name") or params.get("model") or params.get("model_name") or params.get("_type") or ""
    vendor = metadata.get("ls_provider")
    return f"{vendor}:{name}" if vendor and name else str(name)


def _answering(metadata: dict[str, Any]) -> str:
    """Return vendor and name of the model that answered with a message."""
    vendor, name = metadata.get("model_provider"), metadata.get("model_name") or ""
    return f"{vendor}:{name}" if vendor and name else str(name)


def _tokens_of(message: BaseMessage) -> int:
    weight = MESSAGE_OVERHEAD + sum(map(_block_weight, _blocks(message.content)))
    for call in getattr(message, "tool_calls", ()):
        weight += MESSAGE_OVERHEAD + _weight(call["name"]) + _weight(json.dumps(call["args"], default=str))
    return int(weight)


def _blocks(content: Any) -> list[Any]:
    return content if isinstance(content, list) else [content]


def _block_weight(block: Any) -> float:
    if isinstance(block, str):
        return _weight(block)
    text = next((block[name] for name in ("text", "thinking", "reasoning") if block.get(name)), None)
    if isinstance(text, str):
        return _weight(text)
    return 0.0 if block.get("type") in {"text", "tool_call", "tool_use", "input_json_delta"} else MEDIA_TOKENS


def _tokens(text: str) -> int:
    return -int(-_weight(text) // 1)


def _weight(text: str) -> float:
    return len(text) / 4 if text.isascii() else len(text.encode(errors="replace")) / 3
