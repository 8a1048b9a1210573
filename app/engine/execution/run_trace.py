"""Spans of a run: one for the run, one for each of its steps."""

from functools import lru_cache

from app.agents.port import Step
from app.domain.messages import Usage
from app.engine.entries import ClaimedRun
from app.infra.telemetry.trace_context import current_span, parse_span_context
from app.infra.telemetry.tracing import INTERNAL, Span, SpanTemplate, Tracer

STEP = SpanTemplate("step")
"""Template of a step whose node is not known yet."""


@lru_cache(1024)
def _run_template(agent: str) -> SpanTemplate:
    return SpanTemplate(
        f"invoke_agent {agent}", INTERNAL, ("gen_ai.operation.name", "invoke_agent"), ("gen_ai.agent.name", agent)
    )


@lru_cache(1024)
def _step_template(node: str) -> SpanTemplate:
    return SpanTemplate(f"step {node}", INTERNAL, ("agent.node", node))


class NullTrace:
    """Null object: a run that is not traced."""

    def step_begins(self) -> None:
        """Start the span of the next step."""

    def step_ends(self, step: Step | None, number: int) -> None:
        """End the span of ``step`` number ``number``, now durable; a no-op if None (a commit between steps)."""

    def end(self, status: str, usage: Usage | None) -> None:
        """End the run's span: the run has ended or was handed over."""


class RunTrace(NullTrace):
    """Trace of the run ``claimed``; does nothing unless its trace is sampled."""

    def __init__(self, tracer: Tracer, claimed: ClaimedRun) -> None:
        """Start the run's span. Call it in the run's task, whose later spans become its children."""
        caller = parse_span_context(claimed.traceparent) if claimed.traceparent else None
        self._tracer = tracer
        self._step: Span | None = None
        self._span = tracer.receive(_run_template(claimed.agent), caller)
        self._context = caller if self._span is None else self._span.context
        current_span.set(self._context)
        tracer.attach_api()  # until the run's task ends
        if self._span is not None:
            self._span.attributes = {
                "gen_ai.conversation.id": str(claimed.thread_id),
                "agent.run.id": str(claimed.run_id),
                "agent.run.attempt": claimed.attempt,
            }

    def step_begins(self) -> None:
        """Start the span of the next step."""
        if self._span is not None and (step := self._tracer.start(STEP, self._context)) is not None:
            self._step = step
            current_span.set(step.context)

    def step_ends(self, step: Step | None, number: int) -> None:
        """End the span of ``step`` number ``number``, now durable; a no-op if None (a commit between steps)."""
        if self._step is not None and step is not None:
            self._step.template = _step_template(step.node)
            self._step.attributes["agent.step"] = number
            self._close("")

    def _close(self, error: str) -> None:
        step, self._step = self._step, None
        if step is not None:
            current_span.set(self._context)
            step.end(error)

    def end(self, status: str, usage: Usage | None) -> None:
        """End the run's span: the run has ended or was handed over."""
        self._close("" if status in {"success", "interrupted", "handover"} else status)
        if self._span is not None:
            self._span.attributes["agent.run.status"] = status
            if usage is not None and usage.total_tokens:
                self._span.attributes["gen_ai.usage.input_tokens"] = usage.input_tokens
                self._span.attributes["gen_ai.usage.output_tokens"] = usage.output_tokens
            self._span.end(status if status in {"error", "timeout", "lost"} else "")
