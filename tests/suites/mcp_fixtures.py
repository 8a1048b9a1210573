"""The tools, resources and prompts that MCP's conformance suite calls by name, as a surface of the real wire.

``python -m tests.suites.mcp_fixtures`` is ``agent-service serve`` with one more route, ``/mcp-fixtures``.
"""

import asyncio
import itertools
import sys
from collections.abc import AsyncGenerator, Callable, Mapping
from typing import Any

from litestar import Controller, post
from litestar.params import JSONBody

from app.features.access.guard import STARTS_RUNS_BY_MESSAGE, CurrentPrincipal
from app.infra.http.event_streams import OpenResponse
from app.infra.http.problems import ERROR_SHAPE
from app.infra.http.query_params import AnyRequest
from app.protocols.mcp.controller import Mcp, serve
from app.protocols.mcp.errors import INVALID_PARAMS, RpcError, error_shape
from app.protocols.mcp.server import missing
from app.protocols.mcp.structs import RpcMessage
from app.protocols.mcp.surface import (
    Ask,
    Asked,
    Caller,
    Capabilities,
    Done,
    Following,
    Item,
    LogMessage,
    Named,
    Progress,
    Reply,
    ToolsOnly,
)

PNG = "iVBORw0KGgoAAAANSUhEUgAAAAEAAAABCAYAAAAfFcSJAAAADUlEQVR42mNk+M9QDwADhgGAWjR9awAAAABJRU5ErkJggg=="
WAV = "UklGRiYAAABXQVZFZm10IBAAAAABAAEAQB8AAAB9AAACABAAZGF0YQIAAAAAAA=="
PAUSE = 0.05
"""Seconds between notifications, as the suite asks for."""

WAIT_SECONDS = 20.0


def text(said: str) -> dict[str, Any]:
    return {"type": "text", "text": said}


def done(*content: dict[str, Any], failed: bool = False) -> Done:
    return Done({"content": list(content), "isError": failed})


def embedded(uri: str, mime: str, said: str) -> dict[str, Any]:
    return {"type": "resource", "resource": {"uri": uri, "mimeType": mime, "text": said}}


def form(message: str, required: list[str] | None = None, **properties: Any) -> Ask:
    wanted = list(properties) if required is None else required
    schema = {"type": "object", "properties": properties, "required": wanted}
    return Ask("elicitation/create", {"message": message, "requestedSchema": schema})


def sample(prompt: str, tokens: int = 100) -> Ask:
    said = [{"role": "user", "content": {"type": "text", "text": prompt}}]
    return Ask("sampling/createMessage", {"messages": said, "maxTokens": tokens})


STRING = {"type": "string"}
ROOTS = Ask("roots/list", {})
NAME = form("What is your name?", name=STRING)

DEFAULTS = form(
    "Please review",
    [],
    name={"type": "string", "default": "John Doe"},
    age={"type": "integer", "default": 30},
    score={"type": "number", "default": 95.5},
    status={"type": "string", "enum": ["active", "inactive", "pending"], "default": "active"},
    verified={"type": "boolean", "default": True},
)
OPTIONS = ["option1", "option2", "option3"]
ENUMS = form(
    "Please choose",
    [],
    untitledSingle={"type": "string", "enum": OPTIONS},
    titledSingle={
        "type": "string",
        "oneOf": [{"const": f"value{n}", "title": f"{name} Option"} for n, name in enumerate(("First", "Second"), 1)],
    },
    legacyEnum={"type": "string", "enum": ["opt1", "opt2"], "enumNames": ["Option One", "Option Two"]},
    untitledMulti={"type": "array", "items": {"type": "string", "enum": OPTIONS}},
    titledMulti={
        "type": "array",
        "items": {"anyOf": [{"const": f"value{n}", "title": f"{n}. Choice"} for n in (1, 2)]},
    },
)

PLAIN: dict[str, Callable[[], Done]] = {
    "test_simple_text": lambda: done(text("This is a simple text response for testing.")),
    "test_image_content": lambda: done({"type": "image", "data": PNG, "mimeType": "image/png"}),
    "test_audio_content": lambda: done({"type": "audio", "data": WAV, "mimeType": "audio/wav"}),
    "test_embedded_resource": lambda: done(
        embedded("test://embedded-resource", "text/plain", "This is an embedded resource content.")
    ),
    "test_multiple_content_types": lambda: done(
        text("Multiple content types test:"),
        {"type": "image", "data": PNG, "mimeType": "image/png"},
        embedded("test://mixed-content-resource", "application/json", '{"test":"data","value":123}'),
    ),
    "test_error_handling": lambda: done(text("This tool intentionally returns an error for testing"), failed=True),
}


def said_in(answer: Any) -> str:
    content = answer.get("content") if isinstance(answer, Mapping) else None
    return content["text"] if isinstance(content, Mapping) and "text" in content else str(content)


CONFIRM = form("Please confirm", ok={"type": "boolean"})
Rounds = list[dict[str, Ask]]
ASKING: dict[str, tuple[Rounds, str]] = {
    "test_input_required_result_elicitation": ([{"user_name": NAME}], "Hello"),
    "test_input_required_result_sampling": ([{"capital": sample("What is the capital of France?")}], "It is"),
    "test_input_required_result_list_roots": ([{"client_roots": ROOTS}], "Roots:"),
    "test_input_required_result_request_state": ([{"confirm": CONFIRM}], "state-ok"),
    "test_input_required_result_tampered_state": ([{"confirm": CONFIRM}], "ok"),
    "test_input_required_result_multiple_inputs": (
        [{"user_name": NAME, "greeting": sample("Generate a greeting", 50), "client_roots": ROOTS}],
        "All:",
    ),
    "test_input_required_result_multi_round": (
        [
            {"step1": form("Step 1: What is your name?", name=STRING)},
            {"step2": form("Step 2: What is your favorite color?", color=STRING)},
        ],
        "Both:",
    ),
    "test_streaming_elicitation": ([{"user_name": NAME}], "Hello"),
}  # fmt: skip
"""Rounds of asks by tool, and what its result begins with."""

ARGUMENTS: dict[str, dict[str, Any]] = {
    "test_sampling": {"prompt": STRING},
    "test_elicitation": {"message": STRING},
}

OTHERS = (
    "test_tool_with_progress",
    "test_tool_with_logging",
    "test_logging_tool",
    "test_sampling",
    "test_elicitation",
    "test_elicitation_sep1034_defaults",
    "test_elicitation_sep1330_enums",
    "test_missing_capability",
    "test_input_required_result_capabilities",
    "json_schema_2020_12_tool",
)

SCHEMA_2020_12 = {
    "$schema": "https://json-schema.org/draft/2020-12/schema",
    "type": "object",
    "$defs": {"address": {"$anchor": "addressDef", "type": "object", "properties": {"street": STRING, "city": STRING}}},
    "properties": {
        "name": STRING,
        "address": {"$ref": "#/$defs/address"},
        "contactMethod": {"type": "string", "enum": ["phone", "email"]},
        "phone": STRING,
        "email": STRING,
    },
    "allOf": [{"anyOf": [{"required": ["phone"]}, {"required": ["email"]}]}],
    "if": {"properties": {"contactMethod": {"const": "phone"}}, "required": ["contactMethod"]},
    "then": {"required": ["phone"]},
    "else": {"required": ["email"]},
    "additionalProperties": False,
}

RESOURCES = {
    "test://static-text": {"mimeType": "text/plain", "text": "This is the content of the static text resource."},
    "test://static-binary": {"mimeType": "image/png", "blob": PNG},
    "test://watched-resource": {"mimeType": "text/plain", "text": "Watched."},
}

PROMPTS: dict[str, list[str]] = {
    "test_simple_prompt": [],
    "test_prompt_with_arguments": ["arg1", "arg2"],
    "test_prompt_with_embedded_resource": ["resourceUri"],
    "test_prompt_with_image": [],
    "test_input_required_result_prompt": [],
}


def user(content: dict[str, Any]) -> dict[str, Any]:
    return {"role": "user", "content": content}


class Fixtures(ToolsOnly):
    """What the suite calls."""

    capabilities = Capabilities(resources=True, prompts=True, completions=True, logs=True, subscribes=True)

    def __init__(self) -> None:
        self._numbers = itertools.count()
        self._waiting: dict[int, asyncio.Future[Any]] = {}

    async def tools(self, caller: Caller) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "description": f"Fixture {name}.",
                "inputSchema": SCHEMA_2020_12
                if name.startswith("json_schema")
                else {
                    "type": "object",
                    "properties": ARGUMENTS.get(name, {}),
                    "required": list(ARGUMENTS.get(name, {})),
                },
            }
            for name in (*PLAIN, *ASKING, *OTHERS)
        ]

    async def call_tool(self, caller: Caller, call: Named) -> Reply:
        if call.name in PLAIN:
            return PLAIN[call.name]()
        if call.name in ASKING:
            rounds, begin = ASKING[call.name]
            return self._round(rounds, begin, call)
        if call.name == "test_missing_capability":
            if not caller.envelope.may("sampling"):
                raise missing({"sampling": {}})
            return done(text("It has sampling."))
        if call.name == "test_input_required_result_capabilities":
            asks = {"name": NAME, "greeting": sample("Greet"), "roots": ROOTS}
            return Asked({key: ask for key, ask in asks.items() if caller.envelope.may(ask.capability)}, [])
        if call.name in OTHERS:
            return Following(self._items(caller, call))
        raise RpcError(INVALID_PARAMS, f"Unknown tool: {call.name}")

    def _round(self, rounds: Rounds, begin: str, call: Named) -> Asked | Done:
        """Ask what the present round asks, until all is answered; the state has the answers of earlier rounds."""
        earlier: list[Any] = call.state or []
        asks = rounds[len(earlier)]
        if not all(isinstance(call.answers.get(key), dict) for key in asks):
            return Asked(asks, earlier)
        answered = [*earlier, {key: call.answers[key] for key in asks}]
        return (
            Asked(rounds[len(answered)], answered) if len(answered) < len(rounds) else done(text(f"{begin} {answered}"))
        )

    async def _items(self, caller: Caller, call: Named) -> AsyncGenerator[Item, None]:
        match call.name:
            case "test_tool_with_progress":
                for progress in (0, 50, 100):
                    yield Progress(progress, 100, f"{progress} %")
                    await asyncio.sleep(PAUSE)
                yield done(text("Progress done."))
            case "test_tool_with_logging" | "test_logging_tool":
                for said in ("Tool execution started", "Tool processing data", "Tool execution completed"):
                    yield LogMessage("info", said)
                    await asyncio.sleep(PAUSE)
                yield done(text("Logging done."))
            case "test_sampling":
                async for item in self._ask(caller, sample(call.arguments["prompt"]), "LLM response: "):
                    yield item
            case "test_elicitation":
                ask = form(call.arguments["message"], username=STRING, email=STRING)
                async for item in self._ask(caller, ask, "User response: "):
                    yield item
            case _:
                ask = DEFAULTS if call.name.endswith("defaults") else ENUMS
                async for item in self._ask(caller, ask, "Elicitation completed: "):
                    yield item

    async def _ask(self, caller: Caller, ask: Ask, begin: str) -> AsyncGenerator[Item, None]:
        if not caller.envelope.may(ask.capability):
            yield done(text(f"This client has no {ask.capability}."), failed=True)
            return
        number = next(self._numbers)
        answer = self._waiting[number] = asyncio.get_running_loop().create_future()
        yield Asked({"ask": ask}, number)
        async with asyncio.timeout(WAIT_SECONDS):
            response = await answer
        shown = (
            said_in(response)
            if ask.method.startswith("sampling")
            else f"action={response.get('action')}, content={response.get('content')}"
        )
        yield done(text(begin + shown))

    async def respond(self, caller: Caller, state: Any, key: str, response: Any) -> None:
        self._waiting.pop(state).set_result(response)

    async def resources(self, caller: Caller) -> list[dict[str, Any]]:
        return [
            {"uri": uri, "name": uri.removeprefix("test://"), "mimeType": one["mimeType"], "description": "A fixture."}
            for uri, one in RESOURCES.items()
        ]

    async def resource_templates(self, caller: Caller) -> list[dict[str, Any]]:
        return [{"uriTemplate": "test://template/{id}/data", "name": "template", "mimeType": "application/json"}]

    async def read_resource(self, caller: Caller, uri: str) -> list[dict[str, Any]]:
        if uri in RESOURCES:
            return [{"uri": uri, **RESOURCES[uri]}]
        if uri.startswith("test://template/") and uri.endswith("/data"):
            found = uri.split("/")[3]
            said = f'{{"id":"{found}","templateTest":true,"data":"Data for ID: {found}"}}'
            return [{"uri": uri, "mimeType": "application/json", "text": said}]
        return await super().read_resource(caller, uri)

    async def prompts(self, caller: Caller) -> list[dict[str, Any]]:
        return [
            {
                "name": name,
                "description": "A fixture.",
                "arguments": [{"name": one, "description": "A fixture.", "required": True} for one in arguments],
            }
            for name, arguments in PROMPTS.items()
        ]

    async def get_prompt(self, caller: Caller, call: Named) -> Done | Asked:
        if call.name not in PROMPTS:
            return await super().get_prompt(caller, call)
        given = call.arguments
        messages = {
            "test_simple_prompt": lambda: [user(text("This is a simple prompt for testing."))],
            "test_prompt_with_arguments": lambda: [
                user(text(f"Prompt with arguments: arg1='{given['arg1']}', arg2='{given['arg2']}'"))
            ],
            "test_prompt_with_embedded_resource": lambda: [
                user(embedded(given["resourceUri"], "text/plain", "Embedded resource content for testing.")),
                user(text("Please process the embedded resource above.")),
            ],
            "test_prompt_with_image": lambda: [
                user({"type": "image", "data": PNG, "mimeType": "image/png"}),
                user(text("Please analyze the image above.")),
            ],
            "test_input_required_result_prompt": lambda: [user(text(f"With {call.answers}"))],
        }
        if call.name == "test_input_required_result_prompt" and not call.answers:
            return Asked({"user_context": form("What context should the prompt use?", context=STRING)}, [])
        return Done({"messages": messages[call.name]()})

    async def complete(self, caller: Caller, reference: str, argument: str, typed: str) -> list[str]:
        return [word for word in ("paris", "park", "party") if word.startswith(typed)]


FIXTURES = Fixtures()


class FixturesController(Controller):
    """The fixtures behind the service's own layers."""

    path = "/mcp-fixtures"
    opt = {**STARTS_RUNS_BY_MESSAGE, ERROR_SHAPE: error_shape}  # noqa: RUF012

    @post("/", status_code=200)
    async def fixtures(
        self, data: JSONBody[RpcMessage], principal: CurrentPrincipal, mcp: Mcp, request: AnyRequest
    ) -> OpenResponse:
        return await serve(mcp, FIXTURES, data, principal, request)


def main() -> None:
    """Serve, with the fixtures."""
    import app.cli.main
    import app.server.routes

    app.server.routes.PROTOCOLS += (FixturesController,)
    sys.exit(app.cli.main.main(sys.argv[1:] or ["serve"]))


if __name__ == "__main__":
    main()
