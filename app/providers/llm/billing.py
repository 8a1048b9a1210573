"""What a model call costs, charged to the run that made it, whatever becomes of the answer.

The engine names the payer of a run in a context variable; adapters of paid providers report every call to it: with the
provider's usage where that came, with an estimate (prompt and streamed text) where the call was cancelled, cut off, or
answered without usage.
"""

from contextvars import ContextVar
from typing import Protocol

from app.domain.messages import Usage
from app.providers.llm.port import Finished, ModelEvent, ModelRequest, ToolCallDelta
from app.providers.llm.token_estimate import ENVELOPE, weight_of, weight_of_json, weight_of_text

ESTIMATED = "estimated"
"""The detail of a usage that holds estimated tokens."""


class Payer(Protocol):
    """Who pays for model calls. ``tenant`` is the id of its tenant."""

    tenant: str

    def charge(self, model: str, usage: Usage, *, in_step: bool) -> None:
        """Charge ``usage`` of ``model`` (vendor:model). ``in_step``: the step of this call reports it again."""
        ...


payer: ContextVar[Payer | None] = ContextVar("payer", default=None)
"""The payer of the current run; None outside of runs."""


def prompt_tokens(request: ModelRequest) -> int:
    """Estimate the tokens of a request."""
    tokens = weight_of_text(request.instructions) + sum(map(weight_of, request.messages))
    for tool in request.tools:
        tokens += ENVELOPE + weight_of_text(tool.name + tool.description) + weight_of_json(tool.parameters)
    return tokens


class CallBill:
    """The bill of one model call: counts what is streamed, charges once."""

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
        """Charge a complete answer: as ``reported``, or as estimated where the provider did not report a usage."""
        usage = reported if reported is not None and reported.total_tokens else self._estimate(None)
        self._charge(usage, in_step=True)
        return usage

    def abort(self, partial: Usage | None) -> None:
        """Charge a call that was cancelled or cut off: what it streamed, or what was reported of it if more."""
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
