"""Keep long conversations within a token budget: the model gets a summary of the older messages.

The thread's messages stay unchanged. The summary is stored next to them in a hidden channel of the thread's state and
is part of each checkpoint: later runs reuse it, and a fork, a rollback or time travel sees the summary of that
checkpoint. It refers to the messages it covers by their numbers in the thread's log, which change with every edit, so a
summary of edited messages is ignored.
"""

import contextlib
from collections.abc import Sequence
from typing import Annotated

import msgspec

from app.agents.port import RunContext, Step
from app.agents.tool_loop import summary_prompt
from app.agents.tool_loop.conversation import calls_of
from app.agents.tool_loop.graph import MEMORY_NODE, MODEL_NODE
from app.base.errors import ModelError, UsageError
from app.domain.messages import AIMessage, HumanMessage, Message, SystemMessage, ToolMessage
from app.domain.state import HIDDEN, State
from app.providers.llm.port import Finished, Model, ModelRequest, TextDelta, ToolSpec
from app.providers.llm.token_estimate import estimate_json_tokens, estimate_text_tokens, estimate_tokens, shorten

CHANNEL = f"{HIDDEN}summary"
MAX_SUMMARY_TOKENS = 2_000
"""Upper bound of a summary's tokens, however large the budget."""


class MemorySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The budget: ``tokens`` of a model request, and the number of newest messages to ``keep`` verbatim.

    ``model`` writes the summaries, with its ``fallback``; empty: the agent's own.
    """

    tokens: Annotated[int, msgspec.Meta(ge=200)]
    keep: Annotated[int, msgspec.Meta(ge=1)] = 20
    model: str = ""
    fallback: list[str] = []

    @property
    def summary_tokens(self) -> int:
        """Token limit of a summary: a quarter of the budget, at most ``MAX_SUMMARY_TOKENS``."""
        return min(self.tokens // 4, MAX_SUMMARY_TOKENS)


class SummaryMemory(msgspec.Struct, frozen=True):
    """A token budget and the model that writes summaries."""

    spec: MemorySpec
    model: Model

    def fixed_tokens(self, instructions: str, tools: Sequence[ToolSpec]) -> int:
        """Return the tokens of instructions and tools. Raises ``UsageError`` if they exceed half the budget."""
        fixed = estimate_text_tokens(instructions) + sum(estimate_json_tokens(tool) for tool in tools)
        if fixed > self.spec.tokens // 2:
            raise UsageError(
                f"its instructions and tools take about {fixed} tokens: memory.tokens must be at least {2 * fixed}"
            )
        return fixed


class Summary(msgspec.Struct, frozen=True):
    """Summary of the first ``count`` messages; ``items`` are their numbers in the thread's log (inclusive ranges)."""

    text: str
    count: int
    items: list[int]


class WindowPlan(msgspec.Struct, frozen=True):
    """The messages from ``start`` on are not in the summary; those from ``cut`` on stay verbatim."""

    summary: str
    start: int
    cut: int

    @property
    def fits(self) -> bool:
        """Whether nothing has to be summarized."""
        return self.start == self.cut


class ConversationWindow:
    """The part of a conversation that fits the token budget. Estimates each message once per run."""

    def __init__(self, memory: SummaryMemory, fixed_tokens: int) -> None:
        self._spec = memory.spec
        self._model = memory.model
        self._fixed_tokens = fixed_tokens
        self._max_input_tokens = memory.spec.tokens - memory.spec.summary_tokens
        self._token_counts: list[tuple[Message | None, int]] = []
        self._pinned_system: tuple[int, list[Message]] = (0, [])
        self._failed = False
        self._summarizing = False

    async def step(self, messages: Sequence[Message], context: RunContext) -> Step | None:
        """Return a step that commits one more summary; None if none is needed or the summarizing model failed."""
        plan = self._plan(messages, context.state)
        if plan.fits or self._failed:
            return None
        end = self._chunk(messages, plan)
        covered = messages[plan.start : end]
        whole = self._count_tokens(messages, plan.start, end) <= self._max_input_tokens
        max_characters = self._max_input_tokens if whole else self._max_input_tokens // len(covered)
        context.check_lease()
        try:
            text, finished = await self._ask(
                summary_prompt.summary_request(plan.summary, covered, max_characters, self._spec.summary_tokens)
            )
        except ModelError:
            text, finished = "", None
        if not text or finished is None:
            self._failed, self._summarizing = True, False
            return None
        self._summarizing = end < plan.cut  # finish all chunks in this run
        summary = Summary(shorten(text, self._spec.summary_tokens), end, context.state.prefix(end))
        return Step(
            node=MEMORY_NODE,
            update={CHANNEL: summary},
            next=(MODEL_NODE,),
            usage=finished.usage,
            model=f"{finished.vendor}:{finished.model}",
        )

    def select(self, messages: Sequence[Message], context: RunContext) -> list[Message]:
        """Return the messages to send instead of ``messages``."""
        plan = self._plan(messages, context.state)
        if not plan.cut:
            return list(messages)
        kept = self._pinned_messages(messages, plan.cut)
        return [
            *(one for one in kept if isinstance(one, SystemMessage)),
            summary_prompt.summary_message(plan.summary, plan.cut - plan.start),
            *(one for one in kept if isinstance(one, HumanMessage)),
            *messages[plan.cut :],
        ]

    async def _ask(self, request: ModelRequest) -> tuple[str, Finished | None]:
        text: list[str] = []
        finished: Finished | None = None
        stream = self._model.stream(request)
        async with contextlib.aclosing(stream) as events:  # type: ignore[type-var]
            async for event in events:
                if isinstance(event, TextDelta):
                    text.append(event.text)
                elif isinstance(event, Finished):
                    finished = event
        return "".join(text).strip(), finished

    def _plan(self, messages: Sequence[Message], state: State) -> WindowPlan:
        summary = _summary(messages, state)
        start = summary.count
        summary_tokens = estimate_text_tokens(summary.text)
        kept = sum(estimate_tokens(message) for message in self._pinned_messages(messages, start))
        whole = self._fixed_tokens + summary_tokens + kept + self._count_tokens(messages, start, len(messages))
        if whole <= self._spec.tokens and not self._summarizing:
            return WindowPlan(summary.text, start, start)
        available = self._spec.tokens - self._fixed_tokens - self._spec.summary_tokens - kept
        cut = max(start, len(messages) - 1)
        kept_tokens = self._count_tokens(messages, cut, len(messages))
        while cut > max(start, len(messages) - self._spec.keep):
            kept_tokens += self._count_tokens(messages, cut - 1, cut)
            if kept_tokens > available // 2:
                break
            cut -= 1
        return WindowPlan(summary.text, start, _group_start(messages, start, cut))

    def _chunk(self, messages: Sequence[Message], plan: WindowPlan) -> int:
        """Return the end of the next chunk to summarize: within the budget, calls and answers kept together."""
        end, weight = plan.start, 0
        while (
            end < plan.cut and (weight := weight + self._count_tokens(messages, end, end + 1)) <= self._max_input_tokens
        ):
            end += 1
        whole = _group_start(messages, plan.start, end)
        while whole == plan.start:  # one group is longer than the budget
            end += 1
            whole = end if end >= plan.cut else _group_start(messages, plan.start, end)
        return whole

    def _pinned_messages(self, messages: Sequence[Message], cut: int) -> list[Message]:
        """Return the system messages before ``cut`` and the latest human message, if it lies before ``cut``.

        A human message that takes more than half the budget is left to the summary.
        """
        if not cut:
            return []
        if self._pinned_system[0] != cut:
            self._pinned_system = (cut, [one for one in messages[:cut] if isinstance(one, SystemMessage)])
        kept = self._pinned_system[1]
        place = next((n for n in range(len(messages) - 1, -1, -1) if isinstance(messages[n], HumanMessage)), cut)
        if place < cut and estimate_tokens(messages[place]) <= self._spec.tokens // 2:
            return [*kept, messages[place]]
        return kept

    def _count_tokens(self, messages: Sequence[Message], start: int, end: int) -> int:
        if len(self._token_counts) < end:
            self._token_counts += [(None, 0)] * (end - len(self._token_counts))
        total = 0
        for place in range(start, end):
            message, weight = self._token_counts[place]
            if message is not messages[place]:
                weight = estimate_tokens(messages[place])
                self._token_counts[place] = (messages[place], weight)
            total += weight
        return total


def _summary(messages: Sequence[Message], state: State) -> Summary:
    """Return the stored summary if it still matches ``messages``, else an empty one."""
    stored = state.get(CHANNEL)
    if stored is not None:
        summary = msgspec.convert(stored, Summary)
        if summary.count <= len(messages) and state.prefix(summary.count) == summary.items:
            return summary
    return Summary("", 0, [])


def _group_start(messages: Sequence[Message], start: int, cut: int) -> int:
    """Move ``cut`` back so that no call from ``start`` on is separated from its answers."""
    answered = {one.tool_call_id for one in messages[cut:] if isinstance(one, ToolMessage)}
    passed: set[str] = set()
    for place in range(cut - 1, start - 1, -1):
        message = messages[place]
        if isinstance(message, ToolMessage):
            passed.add(message.tool_call_id)
        elif isinstance(message, AIMessage) and answered.intersection(call.id for call in calls_of(message)):
            answered |= passed
            cut = place
    return cut
