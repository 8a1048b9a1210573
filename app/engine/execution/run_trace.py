"""A run in its trace: one span for it, one for each of its steps."""

from functools import lru_cache

from app.agents.port import Step
from app.domain.messages import Usage
from app.engine.entries import ClaimedRun
from app.infra.telemetry.trace_context import current_span, parse_span_context
from app.infra.telemetry.tracing import INTERNAL, Span, SpanTemplate, Tracer

STEP = SpanTemplate("step")
"""Of a step whose name is not known yet."""


@lru_cache(1024)
def _form(agent: str) -> SpanTemplate:
    return SpanTemplate(
        f"invoke_agent {agent}", INTERNAL, ("gen_ai.operation.name", "invoke_agent"), ("gen_ai.agent.name", agent)
    )


@lru_cache(1024)
def _step(node: str) -> SpanTemplate:
    return SpanTemplate(f"step {node}", INTERNAL, ("agent.node", node))


class NullTrace:
    """Tells nobody."""

    def step_begins(self) -> None:
        """What comes now belongs to the next step."""

    def step_ends(self, step: Step | None, number: int, error: str = "") -> None:
        """``step``, which has the ``number``, is durable; None: only something between two steps."""

    def end(self, status: str, usage: Usage | None) -> None:
        """The run has ended, or goes on elsewhere."""


class RunTrace(NullTrace):
    """Where ``claimed`` is told of; without a sampled trace it does nothing."""

    def __init__(self, tracer: Tracer, claimed: ClaimedRun) -> None:
        """Call it in the task of the run: what that begins is part of the run from now on."""
        caller = parse_span_context(claimed.traceparent) if claimed.traceparent else None
        self._tracer = tracer
        self._step: Span | None = None
        self._span = tracer.receive(_form(claimed.agent), caller)
        self._place = caller if self._span is None else self._span.context
        current_span.set(self._place)
        if self._span is not None:
            self._span.attributes = {
                "gen_ai.conversation.id": str(claimed.thread_id),
                "agent.run.id": str(claimed.run_id),
                "agent.run.attempt": claimed.attempt,
            }

    def step_begins(self) -> None:
        """What comes now belongs to the next step."""
        if self._span is not None and (step := self._tracer.start(STEP, self._place)) is not None:
            self._step = step
            current_span.set(step.context)

    def step_ends(self, step: Step | None, number: int, error: str = "") -> None:
        """``step``, which has the ``number``, is durable; None: only something between two steps."""
        if self._step is not None and step is not None:
            self._step.template = _step(step.node)
            self._step.attributes["agent.step"] = number
            self._close(error)

    def _close(self, error: str) -> None:
        step, self._step = self._step, None
        if step is not None:
            current_span.set(self._place)
            step.end(error)

    def end(self, status: str, usage: Usage | None) -> None:
        """The run has ended, or goes on elsewhere."""
        self._close("" if status in {"success", "interrupted", "handover"} else status)
        if self._span is not None:
            self._span.attributes["agent.run.status"] = status
            if usage is not None and usage.total_tokens:
                self._span.attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
                self._span.attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
            self._span.end(status if status in {"error", "timeout", "lost"} else "")
