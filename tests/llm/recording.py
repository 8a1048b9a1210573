"""Record the events of a model's answer; adapters and requests for the tests."""

from contextlib import aclosing
from pathlib import Path
from typing import Any, cast

import msgspec

from app.domain.messages import HumanMessage
from app.infra.secrets.secret import Secret
from app.providers.llm.adapters.anthropic import AnthropicModel
from app.providers.llm.adapters.http_client import Endpoint, HttpClient
from app.providers.llm.adapters.openai import OpenAIModel
from app.providers.llm.adapters.streaming_model import HttpModel
from app.providers.llm.port import (
    Finished,
    Model,
    ModelEvent,
    ModelRequest,
    ReasoningDelta,
    TextDelta,
    ToolCallDelta,
    ToolSpec,
)
from app.providers.llm.vendors import VENDORS
from tests.llm.fake_provider import FakeProvider
from tests.llm.wires import ANTHROPIC, OPENAI

RECORDINGS = Path(__file__).parent / "recordings"
KEY = "sk-canary-4711-do-not-show"
PROMPT = "a prompt that no error may repeat"
HTTP_VENDORS = (OPENAI, ANTHROPIC)
CLOCK = ToolSpec("clock", "Tell the time.", {"type": "object", "properties": {}})


class Recording(msgspec.Struct):
    """The events of one answer. ``calls`` are (id, name, arguments as text) in the order of their index."""

    events: list[ModelEvent] = []
    error: BaseException | None = None

    @property
    def text(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, TextDelta))

    @property
    def reasoning(self) -> str:
        return "".join(event.text for event in self.events if isinstance(event, ReasoningDelta))

    @property
    def calls(self) -> list[tuple[str | None, str | None, str]]:
        pieces: dict[int, list[ToolCallDelta]] = {}
        for event in self.events:
            if isinstance(event, ToolCallDelta):
                pieces.setdefault(event.index, []).append(event)
        return [
            (parts[0].id, parts[0].name, "".join(part.args for part in parts)) for _, parts in sorted(pieces.items())
        ]

    @property
    def finished(self) -> Finished:
        assert self.error is None, self.error
        end = self.events[-1]
        assert isinstance(end, Finished)
        return end


def ask(text: str = PROMPT, **rest: Any) -> ModelRequest:
    """A request with one human message."""
    return ModelRequest(messages=[HumanMessage(content=text)], **rest)


async def record_events(model: Model, request: ModelRequest | None = None, limit: int | None = None) -> Recording:
    """Record the answer, or its first ``limit`` events. An error is recorded, not raised."""
    recording = Recording(events=[])
    async with aclosing(cast("Any", model.stream(request or ask()))) as events:
        try:
            async for event in events:
                recording.events.append(event)
                if limit is not None and len(recording.events) == limit:
                    break
        except Exception as error:  # noqa: BLE001  the tests check its type
            recording.error = error
    return recording


def endpoint(provider: FakeProvider, vendor: str, key: str = KEY, spare: str = "") -> Endpoint:
    """The endpoint of ``provider``, acting as ``vendor``."""
    anthropic = vendor == ANTHROPIC
    return Endpoint(
        vendor=vendor,
        base_url=provider.url + ("" if anthropic else "/v1"),
        key=Secret(key) if key else None,
        spare_key=Secret(spare) if spare else None,
        key_header="x-api-key" if anthropic else "Authorization",
        key_prefix="" if anthropic else "Bearer ",
        key_variable=VENDORS[vendor].key_variable,
        address_hint=VENDORS[vendor].address_hint,
    )


def adapter(vendor: str, http: HttpClient, endpoint: Endpoint, name: str = "tiny-chat") -> HttpModel:
    """The adapter of ``vendor``."""
    return (AnthropicModel if vendor == ANTHROPIC else OpenAIModel)(name, http, endpoint)


def recorded_stream(name: str) -> bytes:
    """The bytes of a recorded stream."""
    return (RECORDINGS / f"{name}.sse").read_bytes()
