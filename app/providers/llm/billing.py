"""Charge model calls to the run that made them, even if they are cancelled or fail.

The engine sets the payer of a run in a context variable; adapters of paid providers report every call to it: with the
provider's usage if available, else with an estimate (prompt and streamed text) if the call was cancelled, cut off, or
answered without usage.
"""

from contextvars import ContextVar
from typing import Protocol

from app.domain.messages import Usage
from app.providers.llm.port import Finished, ModelEvent, ModelRequest, ToolCallDelta
from app.providers.llm.token_estimate import (
    MESSAGE_OVERHEAD,
    estimate_json_tokens,
    estimate_text_tokens,
    estimate_tokens,
)

ESTIMATED = "estimated"
"""The usage detail that holds estimated tokens."""

MAX_TOKENS = 1_000_000_000
"""Cap on reported tokens: above any model's limit, and far below the range of the database column."""


class Payer(Protocol):
    """The payer of model calls. ``tenant`` is the id of its tenant."""

    tenant: str

    def charge(self, model: str, usage: Usage, *, in_step: bool) -> None:
        """Charge ``usage`` of ``model`` (vendor:model). ``in_step``: the call's step reports the same usage."""
        ...


payer: ContextVar[Payer | None] = ContextVar("payer", default=None)
"""The payer of the current run; None outside of runs."""


def count(value: int | None) -> int:
    """Clamp a reported token count to 0 … ``MAX_TOKENS``."""
    return min(max(0, value or 0), MAX_TOKENS)


def prompt_tokens(request: ModelRequest) -> int:
    """Estimate the tokens of a request."""
    tokens = estimate_text_tokens(request.instructions) + sum(map(estimate_tokens, request.messages))
    for tool in request.tools:
        tokens += (
            MESSAGE_OVERHEAD
            + estimate_text_tokens(tool.name + tool.description)
            + estimate_json_tokens(tool.parameters)
        )
    return tokens


class CallBill:
    """The bill of one model call: counts streamed text and charges exactly once."""

    __slots__ = ("_ascii", "_model", "_other", "_payer", "_request", "_settled", "streamed")

    def __init__(self, model: str, request: ModelRequest) -> None:
        self._model = model
        self._request = request
        self._payer = payer.get()
        self._ascii = 0
        self._other = 0
        self._settled = False
        self.streamed = False

    def add(self, event: ModelEvent) -> None:
        """Count the streamed text of ``event``."""
        if isinstance(event, Finished):
            return
        text = event.args if isinstance(event, ToolCallDelta) else event.text
        if text.isascii():
            self._ascii += len(text)
        else:
            self._other += len(text.encode(errors="replace"))
        self.streamed = True

    def finish(self, reported: Usage | None) -> Usage:
        """Charge a complete answer: as ``reported``, or estimated if the provider reported no usage."""
        usage = reported if reported is not None and reported.total_tokens else self._estimate(None)
        self._charge(usage, in_step=True)
        return usage

    def abort(self, partial: Usage | None) -> None:
        """Charge a call that was cancelled or cut off: its streamed text, or the reported usage if that is more."""
        if not self._settled:
            self._charge(self._estimate(partial), in_step=False)

    def void(self) -> None:
        """Charge nothing."""
        self._settled = True

    def _charge(self, usage: Usage, *, in_step: bool) -> None:
        self._settled = True
        if self._payer is not None:
            self._payer.charge(self._model, usage, in_step=in_step)

    def _estimate(self, partial: Usage | None) -> Usage:
        streamed = -(-self._ascii // 4) + -(-self._other // 3)
        prompt = partial.input_tokens if partial is not None and partial.input_tokens else 0
        output = max(streamed, 0 if partial is None else partial.output_tokens)
        details = {ESTIMATED: output} if output else {}
        if prompt:
            return Usage(prompt, output, prompt + output, {}, details)
        prompt = prompt_tokens(self._request)
        return Usage(prompt, output, prompt + output, {ESTIMATED: prompt}, details)
