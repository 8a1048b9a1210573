"""Registry: from settings and ``vendor:model`` to a working model."""

import subprocess
import sys
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest

from app.base.errors import Invalid, ModelError, ModelUnavailable, UsageError
from app.infra.secrets.secret import Secret
from app.infra.settings import LlmSettings
from app.infra.telemetry.meters import Meters
from app.providers.llm.failover import RetryRules
from app.providers.llm.registry import ModelRegistry
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault
from tests.llm.recording import KEY, record_events

Make = Callable[..., ModelRegistry]


@pytest.fixture
async def make() -> AsyncIterator[Make]:
    made: list[ModelRegistry] = []

    def build(meters: Meters | None = None, **settings: Any) -> ModelRegistry:
        given: dict[str, Any] = {name: Secret(value) if "_key" in name else value for name, value in settings.items()}
        made.append(ModelRegistry(LlmSettings(**given), meters or Meters(), RetryRules(base=0.0)))
        return made[-1]

    yield build
    for registry in made:
        await registry.aclose()


@pytest.mark.parametrize(
    "settings, name, reason",
    [
        ({}, "scripted:demo", "no provider key found"),
        ({"openai_api_key": KEY}, "openai:gpt-5-mini", "OPENAI_API_KEY"),
        ({"openai_base_url": "http://h/v1"}, "openai:auto", "OPENAI_BASE_URL"),
        ({"openai_base_url": "http://h/v1", "openai_api_key": KEY}, "openai:auto", "OPENAI_BASE_URL"),
        ({"openai_base_url": "https://api.openai.com/v1/", "openai_api_key": KEY}, "openai:gpt-5-mini", "KEY"),
        ({"anthropic_api_key": KEY}, "anthropic:claude-sonnet-4-5", "ANTHROPIC_API_KEY"),
        ({"anthropic_api_key": KEY, "openai_api_key": KEY}, "openai:gpt-5-mini", "OPENAI_API_KEY"),
        ({"default_model": "scripted:echo", "openai_api_key": KEY}, "scripted:echo", "AGENT_DEFAULT_MODEL"),
    ],
)
def test_the_default_model_follows_from_the_settings(
    make: Make, settings: dict[str, str], name: str, reason: str
) -> None:
    found, why = make(**settings).default()
    assert found == name
    assert reason in why


def test_without_any_key_the_reason_names_the_settings(make: Make) -> None:
    for name in ("OPENAI_API_KEY", "ANTHROPIC_API_KEY", "OPENAI_BASE_URL"):
        assert name in make().default()[1]


@pytest.mark.parametrize(
    "name, words",
    [
        ("gpt-5-mini", "write vendor:model with one of the vendors openai, anthropic, scripted"),
        ("mistral:large", "openai, anthropic, scripted"),
        ("openai:", "write vendor:model"),
        ("scripted:dance", "demo, echo, stream100"),
        ("openai:gpt-5-mini", "set OPENAI_API_KEY, or OPENAI_BASE_URL"),
        ("anthropic:claude-sonnet-4-5", "set ANTHROPIC_API_KEY"),
    ],
)
def test_an_invalid_model_is_rejected_with_the_fix(make: Make, name: str, words: str) -> None:
    with pytest.raises(Invalid, match=r"^[^\n]+$") as caught:
        make().model(name)
    assert words in str(caught.value)
    with pytest.raises(Invalid):
        make().model("scripted:echo", [name])


def test_an_invalid_default_model_names_its_variable(make: Make) -> None:
    with pytest.raises(UsageError, match=r"^AGENT_DEFAULT_MODEL: anthropic:x needs a key"):
        make(default_model="anthropic:x").model("")


@pytest.mark.parametrize("variable", ["OPENAI_BASE_URL", "ANTHROPIC_BASE_URL"])
@pytest.mark.parametrize(
    "url, words",
    [
        ("localhost:11434", "not a plain URL"),
        ("http://", "not a plain URL"),
        ("http://host:port/v1", "not a plain URL"),
        ("http://[::1/v1", "not a plain URL"),
        ("https://host/v1?key=abc", "not a plain URL"),
        ("ftp://host/v1", "not a plain URL"),
        ("https://me:canary@host/v1", "a user name or password"),
    ],
)
def test_an_invalid_base_url_is_rejected_at_start_and_not_repeated(
    make: Make, variable: str, url: str, words: str
) -> None:
    with pytest.raises(UsageError, match=variable) as caught:
        make(**{variable.lower(): url})
    assert words in str(caught.value)
    assert "canary" not in str(caught.value)


@pytest.mark.parametrize("name", ["openai_api_key", "openai_api_key_secondary", "anthropic_api_key_secondary"])
def test_a_key_invalid_in_a_header_is_rejected_at_start_and_not_shown(make: Make, name: str) -> None:
    with pytest.raises(UsageError, match=name.upper()) as caught:
        make(**{name: "canary\nX-Evil: 1"})
    assert "canary" not in str(caught.value)


async def test_models_of_both_vendors_answer(make: Make, provider: FakeProvider) -> None:
    registry = make(
        openai_base_url=provider.url + "/v1/",
        anthropic_base_url=provider.url + "/v1",
        anthropic_api_key=KEY,
    )
    for name in ("openai:tiny-chat", "anthropic:large-chat", "openai:llama3.2:3b"):
        recording = await record_events(registry.model(name))
        assert recording.text == "Hello there"
        assert f"{recording.finished.vendor}:{recording.finished.model}" == name
    assert provider.requests[1].headers["anthropic-version"] == "2023-06-01"
    assert provider.requests[1].headers["x-api-key"] == KEY


async def test_the_default_model_of_a_compatible_server_is_its_first(make: Make, provider: FakeProvider) -> None:
    recording = await record_events(make(openai_base_url=provider.url + "/v1").model(""))
    assert recording.finished.model == "tiny-chat"


async def test_a_fallback_takes_over(make: Make, provider: FakeProvider) -> None:
    provider.plan(Fault.UNAUTHORIZED)
    registry = make(openai_base_url=provider.url + "/v1", openai_api_key=KEY)
    recording = await record_events(registry.model("openai:tiny-chat", ["scripted:echo"]))
    assert (recording.finished.vendor, recording.finished.model) == ("scripted", "echo")


async def test_agents_that_name_one_vendor_share_its_breaker(make: Make, provider: FakeProvider) -> None:
    registry = make(openai_base_url=provider.url + "/v1")
    provider.plan(*[Fault.SERVER_ERROR] * 6)
    for _ in range(2):
        await record_events(registry.model("openai:tiny-chat"))
    asked = len(provider.requests)
    recording = await record_events(registry.model("openai:large-chat"))
    assert "is not asked" in str(recording.error)
    assert len(provider.requests) == asked


async def test_health_reflects_traffic(make: Make, provider: FakeProvider) -> None:
    registry = make(openai_base_url=provider.url + "/v1")
    assert registry.health() == {}
    model = registry.model("openai:tiny-chat")
    assert registry.health()["openai"]["status"] == "unknown"
    await record_events(model)
    seen = registry.health()["openai"]
    assert (seen["status"], seen["error"]) == ("healthy", None)
    assert seen["latency_ms"] > 0
    provider.plan(*[Fault.SERVER_ERROR] * 3)
    await record_events(model)
    seen = registry.health()["openai"]
    assert (seen["status"], seen["error"]) == ("degraded", "ModelUnavailable")


async def test_a_probe_lists_models_at_most_once_a_minute(make: Make, provider: FakeProvider) -> None:
    registry = make(openai_base_url=provider.url + "/v1", anthropic_base_url=provider.url, anthropic_api_key=KEY)
    for name in ("openai:tiny-chat", "openai:large-chat", "anthropic:large-chat", "scripted:demo"):
        registry.model(name)
    await registry.probe()
    await registry.probe()
    assert [asked.path for asked in provider.requests] == ["/v1/models", "/v1/models"]
    assert {name: seen["status"] for name, seen in registry.health().items()} == {
        "openai": "healthy",
        "anthropic": "healthy",
    }


async def test_a_probe_skips_vendors_with_a_recent_observation(make: Make, provider: FakeProvider) -> None:
    registry = make(openai_base_url=provider.url + "/v1")
    await record_events(registry.model("openai:tiny-chat"))
    await registry.probe()
    assert [asked.path for asked in provider.requests] == ["/v1/chat/completions"]


async def test_a_failing_probe_is_an_observation_not_an_error(make: Make, provider: FakeProvider) -> None:
    provider.refused_keys = {KEY}
    registry = make(openai_base_url=provider.url + "/v1", openai_api_key=KEY)
    registry.model("openai:tiny-chat")
    await registry.probe()
    seen = registry.health()["openai"]
    assert (seen["status"], seen["error"]) == ("degraded", "ModelCredentials")


async def test_calls_and_tokens_are_counted(make: Make, provider: FakeProvider) -> None:
    meters = Meters()
    registry = make(meters, openai_base_url=provider.url + "/v1")
    model = registry.model("openai:tiny-chat")
    await record_events(model)
    provider.plan(*[Fault.SERVER_ERROR] * 3)
    await record_events(model)
    assert {labels[3]: sum(seen.counts) for labels, seen in meters.model_duration.series.items()} == {
        "": 1,
        "ModelUnavailable": 1,
    }
    assert [(labels, sum(seen.counts)) for labels, seen in meters.first_token.series.items()] == [
        (("chat", "openai", "tiny-chat"), 1)
    ]
    assert {labels[3]: seen.total for labels, seen in meters.model_tokens.series.items()} == {"input": 7, "output": 2}


async def test_a_closed_registry_fails_with_a_typed_error(make: Make, provider: FakeProvider) -> None:
    registry = make(openai_base_url=provider.url + "/v1")
    model = registry.model("openai:tiny-chat")
    await record_events(model)
    await registry.aclose()
    recording = await record_events(model)
    assert isinstance(recording.error, ModelError)
    assert type(recording.error) is ModelUnavailable


def test_the_http_library_is_loaded_only_when_a_vendor_is_named() -> None:
    script = (
        "import sys; from app.providers.llm.registry import ModelRegistry; from app.infra.settings import LlmSettings; "
        "from app.infra.telemetry.meters import Meters; ModelRegistry(LlmSettings(), Meters()).model(''); "
        "print('aiohttp' in sys.modules)"
    )
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "False"
