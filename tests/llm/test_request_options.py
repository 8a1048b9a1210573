"""What a request asks of the model reaches each provider in its own words."""

from typing import Any

import msgspec

from app.domain.messages import HumanMessage
from app.providers.llm.adapters import anthropic_request, openai_request
from app.providers.llm.cached_answer import cache_key_parts
from app.providers.llm.port import ModelRequest, OutputSchema, ToolChoice, ToolSpec
from app.providers.llm.profiles import AnthropicProfile, OpenAIProfile, without_rejected

TOOL = ToolSpec("look", "Look.", {"type": "object"})
SCHEMA = OutputSchema(schema={"type": "object"}, name="facts")
ASKED = ModelRequest(messages=[HumanMessage(content="hi")], instructions="Be brief.", tools=[TOOL])


def openai(request: ModelRequest, profile: OpenAIProfile = OpenAIProfile()) -> dict[str, Any]:
    return openai_request.body_of("m", request, profile)


def anthropic(request: ModelRequest) -> dict[str, Any]:
    return anthropic_request.body_of("m", request, AnthropicProfile(max_tokens=9))


def changed(**changes: Any) -> ModelRequest:
    return msgspec.structs.replace(ASKED, **changes)


def test_a_choice_among_tools_is_sent_and_the_default_is_not() -> None:
    assert "tool_choice" not in openai(ASKED)
    assert "tool_choice" not in anthropic(ASKED)
    required = changed(tool_choice=ToolChoice(mode="required"), parallel_tool_calls=False)
    assert (openai(required)["tool_choice"], openai(required)["parallel_tool_calls"]) == ("required", False)
    assert anthropic(required)["tool_choice"] == {"type": "any", "disable_parallel_tool_use": True}
    none = changed(tool_choice=ToolChoice(mode="none"))
    assert (openai(none)["tool_choice"], anthropic(none)["tool_choice"]) == ("none", {"type": "none"})
    assert anthropic(changed(parallel_tool_calls=False))["tool_choice"]["type"] == "auto"


def test_a_schema_goes_to_servers_that_take_it_and_is_asked_for_in_words_elsewhere() -> None:
    request = changed(output_schema=SCHEMA)
    form = openai(request)["response_format"]
    assert form == {"type": "json_schema", "json_schema": {"name": "facts", "schema": SCHEMA.schema, "strict": True}}
    assert openai(request)["messages"][0]["content"] == "Be brief."
    reduced = without_rejected(OpenAIProfile(), "Unknown parameter: response_format is not supported")
    assert reduced is not None
    assert "response_format" not in openai(request, reduced)
    assert openai(request, reduced)["messages"][0]["content"].endswith('{"type":"object"}')
    assert anthropic(request)["system"].endswith('{"type":"object"}')


def test_answers_in_another_form_are_cached_apart() -> None:
    keys = [ASKED, changed(output_schema=SCHEMA), changed(tool_choice=ToolChoice(mode="none"))]
    assert len({msgspec.msgpack.encode(cache_key_parts(one)) for one in keys}) == 3


def test_files_are_documents_for_anthropic() -> None:
    pdf = {"type": "file", "file": {"filename": "a.pdf", "file_data": "data:application/pdf;base64,AA=="}}
    source = {"type": "base64", "media_type": "application/pdf", "data": "AA=="}
    assert anthropic_request.block_of(pdf) == {"type": "document", "source": source}
    url = {"type": "file", "file": {"file_url": "https://example.com/a.pdf"}}
    assert anthropic_request.block_of(url)["source"] == {"type": "url", "url": "https://example.com/a.pdf"}
