"""Long conversations within a budget of tokens: older messages are summed up in what the model is asked.

The thread's messages stay as they are. The summary rests beside them in a hidden channel of the thread's state, so it
belongs to a checkpoint as they do: it is read and not made again by whoever goes on, and a fork, a rollback or a look
back has the one of its own time. It names the messages that it covers by their numbers in the thread's log, which
change with every edit: a summary of what is no longer there counts for nothing.
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
from app.providers.llm.token_estimate import shortened, weight_of, weight_of_json, weight_of_text

CHANNEL = f"{HIDDEN}summary"
MAX_SUMMARY_TOKENS = 2_000
"""Tokens of a summary, however large the budget."""


class MemorySpec(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """The budget: ``tokens`` that the model is asked with, and how many of the newest messages are ``keep``-ed whole.

    ``model`` sums up, with its ``fallback``; empty: the agent's own.
    """

    tokens: Annotated[int, msgspec.Meta(ge=200)]
    keep: Annotated[int, msgspec.Meta(ge=1)] = 20
    model: str = ""
    fallback: list[str] = []

    @property
    def share(self) -> int:
        """Tokens that a summary may have: a quarter of the budget."""
        return min(self.tokens // 4, MAX_SUMMARY_TOKENS)


class SummaryMemory(msgspec.Struct, frozen=True):
    """A budget and the model that sums up."""

    spec: MemorySpec
    model: Model

    def fixed(self, instructions: str, tools: Sequence[ToolSpec]) -> int:
        """Tokens that every question takes before its messages. Raises ``UsageError`` where they take over half."""
        fixed = weight_of_text(instructions) + sum(weight_of_json(tool) for tool in tools)
        if fixed > self.spec.tokens // 2:
            raise UsageError(
                f"its instructions and tools take about {fixed} tokens: memory.tokens must be at least {2 * fixed}"
            )
        return fixed


class Summary(msgspec.Struct, frozen=True):
    """What the first ``count`` messages said; ``items`` are their places in the thread's log (ranges, inclusive)."""

    text: str
    count: int
    items: list[int]


class WindowPlan(msgspec.Struct, frozen=True):
    """The messages from ``start`` on are not in the summary; those from ``cut`` on stay word for word."""

    summary: str
    start: int
    cut: int

    @property
    def fits(self) -> bool:
        """Whether nothing has to be summed up."""
        return self.start == self.cut


class ConversationWindow:
    """What one run's model is asked of its conversation. Each message is weighed once."""

    def __init__(self, memory: SummaryMemory, fixed: int) -> None:
        self._spec = memory.spec
        self._model = memory.model
        self._fixed = fixed
        self._readable = memory.spec.tokens - memory.spec.share
        self._weighed: list[tuple[Message | None, int]] = []
        self._pinned: tuple[int, list[Message]] = (0, [])
        self._failed = False
        self._begun = False

    async def step(self, messages: Sequence[Message], context: RunContext) -> Step | None:
        """One more summary, to be committed; None where there is none to make, or where none could be made."""
        plan = self._plan(messages, context.state)
        if plan.fits or self._failed:
            return None
        end = self._chunk(messages, plan)
        covered = messages[plan.start : end]
        whole = self._weight(messages, plan.start, end) <= self._readable
        max_characters = self._readable if whole else self._readable // len(covered)
        context.check_lease()
        try:
            text, finished = await self._ask(
                summary_prompt.question(plan.summary, covered, max_characters, self._spec.share)
            )
        except ModelError:
            text, finished = "", None
        if not text or finished is None:
            self._failed, self._begun = True, False
            return None
        self._begun = end < plan.cut  # what is begun is done to the end: the next turn shall not have to go on
        summary = Summary(shortened(text, self._spec.share), end, context.state.prefix(end))
        return Step(
            node=MEMORY_NODE,
            update={CHANNEL: summary},
            next=(MODEL_NODE,),
            usage=finished.usage,
            model=f"{finished.vendor}:{finished.model}",
        )

    def told(self, messages: Sequence[Message], context: RunContext) -> list[Message]:
        """What the model is asked instead of ``messages``."""
        plan = self._plan(messages, context.state)
        if not plan.cut:
            return list(messages)
        kept = self._kept(messages, plan.cut)
        return [
            *(one for one in kept if isinstance(one, SystemMessage)),
            summary_prompt.told(plan.summary, plan.cut - plan.start),
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
        said = weight_of_text(summary.text)
        kept = sum(weight_of(message) for message in self._kept(messages, start))
        whole = self._fixed + said + kept + self._weight(messages, start, len(messages))
        if whole <= self._spec.tokens and not self._begun:
            return WindowPlan(summary.text, start, start)
        room = self._spec.tokens - self._fixed - self._spec.share - kept
        cut = max(start, len(messages) - 1)
        stays = self._weight(messages, cut, len(messages))
        while cut > max(start, len(messages) - self._spec.keep):
            stays += self._weight(messages, cut - 1, cut)
            if stays > room // 2:
                break
            cut -= 1
        return WindowPlan(summary.text, start, _whole(messages, start, cut))

    def _chunk(self, messages: Sequence[Message], plan: WindowPlan) -> int:
        """How far one question goes: as far as the budget, calls and their answers together."""
        end, weight = plan.start, 0
        while end < plan.cut and (weight := weight + self._weight(messages, end, end + 1)) <= self._readable:
            end += 1
        whole = _whole(messages, plan.start, end)
        while whole == plan.start:  # one group is longer than the budget
            end += 1
            whole = end if end >= plan.cut else _whole(messages, plan.start, end)
        return whole

    def _kept(self, messages: Sequence[Message], cut: int) -> list[Message]:
        """Of the messages before ``cut``: those of the system, and the question that the newest work answers.

        A question that would take up half of the budget is left to the summary.
        """
        if not cut:
            return []
        if self._pinned[0] != cut:
            self._pinned = (cut, [one for one in messages[:cut] if isinstance(one, SystemMessage)])
        kept = self._pinned[1]
        place = next((n for n in range(len(messages) - 1, -1, -1) if isinstance(messages[n], HumanMessage)), cut)
        if place < cut and weight_of(messages[place]) <= self._spec.tokens // 2:
            return [*kept, messages[place]]
        return kept

    def _weight(self, messages: Sequence[Message], start: int, end: int) -> int:
        if len(self._weighed) < end:
            self._weighed += [(None, 0)] * (end - len(self._weighed))
        total = 0
        for place in range(start, end):
            message, weight = self._weighed[place]
            if message is not messages[place]:
                weight = weight_of(messages[place])
                self._weighed[place] = (messages[place], weight)
            total += weight
        return total


def _summary(messages: Sequence[Message], state: State) -> Summary:
    """The summary of what ``messages`` begin with; an empty one where there is none."""
    stored = state.get(CHANNEL)
    if stored is not None:
        summary = msgspec.convert(stored, Summary)
        if summary.count <= len(messages) and state.prefix(summary.count) == summary.items:
            return summary
    return Summary("", 0, [])


def _whole(messages: Sequence[Message], start: int, cut: int) -> int:
    """``cut``, or the place before it where no call from ``start`` on is torn from its answers."""
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
