"""Journeys of LiteLLM. Usage, by the Python of its environment: -m tests.suites.litellm_client ADDRESS"""

import asyncio
import json
import sys
from typing import Any

import litellm  # type: ignore[import-not-found]

from tests.suites import checks

BASE = sys.argv[1]
SUM = "what is 12*(3+4)?"
AT: Any = {"model": "openai/assistant", "api_base": f"{BASE}/v1", "api_key": "none"}
WEATHER: Any = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather in a city.",
        "parameters": {"type": "object", "properties": {"city": {"type": "string"}}, "required": ["city"]},
    },
}


def user(text: str) -> dict[str, str]:
    return {"role": "user", "content": text}


async def completes() -> None:
    answer: Any = await litellm.acompletion(**AT, messages=[user(SUM)])
    assert "84" in answer.choices[0].message.content
    assert answer.usage.total_tokens > 0
    assert answer.choices[0].finish_reason == "stop"


async def streams() -> None:
    options = {"include_usage": True}
    stream: Any = await litellm.acompletion(**AT, messages=[user(SUM)], stream=True, stream_options=options)
    chunks = [chunk async for chunk in stream]
    assert "84" in "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    assert any(getattr(chunk, "usage", None) for chunk in chunks)


async def calls_tools() -> None:
    asked = [user("call weather city=Rome")]
    called: Any = await litellm.acompletion(**AT, messages=asked, tools=[WEATHER])
    (call,) = called.choices[0].message.tool_calls
    assert json.loads(call.function.arguments) == {"city": "Rome"}
    result = {"role": "tool", "tool_call_id": call.id, "content": "sunny"}
    answered: Any = await litellm.acompletion(
        **AT, messages=[*asked, called.choices[0].message.model_dump(), result], tools=[WEATHER]
    )
    assert "sunny" in answered.choices[0].message.content


async def gets_an_answer_of_a_form() -> None:
    schema = {"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}
    form = {"type": "json_schema", "json_schema": {"name": "number", "schema": schema}}
    answer: Any = await litellm.acompletion(**AT, messages=[user("hello")], response_format=form)
    assert isinstance(json.loads(answer.choices[0].message.content)["n"], int)


async def chains_responses() -> None:
    first: Any = await litellm.aresponses(**AT, input=SUM)
    assert "84" in first.output_text
    again: Any = await litellm.aresponses(**AT, input="hello", previous_response_id=first.id)
    assert again.status == "completed"


async def streams_a_response() -> None:
    stream: Any = await litellm.aresponses(**AT, input=SUM, stream=True)
    types = [str(event.type.value if hasattr(event.type, "value") else event.type) async for event in stream]
    assert types[0] == "response.created"
    assert types[-1] == "response.completed"


async def is_refused_an_unknown_model() -> None:
    refused = ""
    try:
        await litellm.acompletion(**{**AT, "model": "openai/nothing"}, messages=[user("x")], num_retries=0)
    except litellm.NotFoundError as error:
        refused = str(error)
    assert "Models:" in refused


async def speaks_langgraphs_api() -> None:
    answer: Any = await litellm.acompletion(
        model="langgraph/assistant", api_base=f"{BASE}/api/v1", api_key="none", messages=[user(SUM)]
    )
    assert "84" in answer.choices[0].message.content


litellm.telemetry = False
asyncio.run(
    checks.run(
        [
            completes,
            streams,
            calls_tools,
            gets_an_answer_of_a_form,
            chains_responses,
            streams_a_response,
            is_refused_an_unknown_model,
            speaks_langgraphs_api,
        ]
    )
)
