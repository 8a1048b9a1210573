"""The bill of a run of a graph: the tokens of the models that it calls."""

from app.agents.langgraph.wire import ModelReport, StepUsage
from app.domain.messages import Usage
from app.providers.llm.billing import ESTIMATED, count, payer


class ModelBill:
    """Charges each call of a model when it ends, and what it has used by then if its run ends first.

    ``step`` takes what the calls since the last one have used.
    """

    def __init__(self) -> None:
        self._payer = payer.get()
        self._open: dict[int, ModelReport] = {}
        self._used: Usage | None = None
        self._model = ""

    def take(self, report: ModelReport) -> None:
        """Take the report of a call."""
        if not report.ended:
            self._open[report.id] = report
            return
        self._open.pop(report.id, None)
        usage = _usage(report)
        if usage.total_tokens:
            self._charge(report.model, usage, in_step=True)
            self._add(report.model, usage)

    def step(self, further: StepUsage | None = None) -> tuple[str, Usage | None]:
        """Return the last model and the tokens for a step; ``further`` are those of messages without a call."""
        if further is not None:
            given, answered = count(further.input_tokens), count(further.output_tokens)
            self._add(further.model, Usage(given, answered, given + answered))
        used, model = self._used, self._model
        self._used, self._model = None, ""
        return model, used

    def close(self) -> None:
        """Charge the calls whose ends will not be reported."""
        while self._open:
            _, report = self._open.popitem()
            self._charge(report.model, _usage(report), in_step=False)

    def _add(self, model: str, usage: Usage) -> None:
        self._used = usage if self._used is None else self._used.plus(usage)
        self._model = model

    def _charge(self, model: str, usage: Usage, *, in_step: bool) -> None:
        if self._payer is not None:
            self._payer.charge(model, usage, in_step=in_step)


def _usage(report: ModelReport) -> Usage:
    given, answered = count(report.input_tokens), count(report.output_tokens)
    if not report.estimated:
        return Usage(given, answered, given + answered)
    return Usage(given, answered, given + answered, {ESTIMATED: given}, {ESTIMATED: answered})
