"""A model call is always charged: if cancelled, cut off, or without or with an absurd usage."""

from collections.abc import Callable
from pathlib import Path
from typing import Any
from uuid import UUID

import httpx
import pytest
import sqlalchemy as sa

from app.security.access.structs import tenant_id_of
from app.security.limits.structs import BudgetReservation
from tests.llm.fake_provider import FakeProvider
from tests.llm.faults import Fault, Replay
from tests.llm.wires import ANTHROPIC, OPENAI, closing, opening, text_event
from tests.system.services import API, Service, serving
from tests.waiting import eventually

VENDORS = [OPENAI, ANTHROPIC]
PROMPT = "Tell me a very long story about the sea. " * 20
PROMPT_TOKENS = len(PROMPT) // 4
TEXT = "Once upon a time there was a ship that sailed the seven seas. " * 10
TEXT_TOKENS = len(TEXT) // 4


@pytest.fixture
def settings(provider: FakeProvider, tmp_path: Path) -> dict[str, Any]:
    agents = '[agents.openai]\nmodel = "openai:tiny-chat"\n[agents.anthropic]\nmodel = "anthropic:tiny-chat"\n'
    (tmp_path / "agents.toml").write_text(agents)
    return {
        "AGENT_AUTH": "api_key",
        "AGENT_RATE_PER_MINUTE": "0",
        "AGENT_CONFIG": str(tmp_path / "agents.toml"),
        "OPENAI_BASE_URL": f"{provider.url}/v1",
        "OPENAI_API_KEY": "sk-test",
        "ANTHROPIC_BASE_URL": provider.url,
        "ANTHROPIC_API_KEY": "sk-test",
    }


def without_usage(vendor: str) -> Replay:
    """A whole answer whose provider reports no usage of it."""
    head = opening(vendor).replace(b'"usage":{"input_tokens":7,"output_tokens":1}', b'"usage":null')
    if vendor == OPENAI:
        end = closing(vendor).split(b"\n\n")[0] + b"\n\ndata: [DONE]\n\n"
    else:
        end = closing(vendor).replace(b'"usage":{"output_tokens":2}', b'"usage":null')
    return Replay(data=head + text_event(vendor, TEXT) + end)


def with_usage(vendor: str, number: int) -> Replay:
    """A whole answer that reports ``number`` tokens."""
    end = closing(vendor).replace(b'tokens":2', b'tokens":%d' % number)
    return Replay(data=opening(vendor) + text_event(vendor, TEXT) + end)


async def post(service: Service, key: str, path: str, body: Any) -> httpx.Response:
    return await service.client.post(API + path, json=body, headers={"x-api-key": key})


def body_of(agent: str) -> dict[str, Any]:
    return {"assistant_id": agent, "input": {"messages": [{"role": "user", "content": PROMPT}]}}


async def begin(service: Service, key: str, agent: str) -> tuple[str, str]:
    """The ids of a new thread and of its run, whose tokens are streamed."""
    thread = (await post(service, key, "/threads", {})).json()["thread_id"]
    body = {**body_of(agent), "stream_mode": ["messages-tuple"]}
    return thread, (await post(service, key, f"/threads/{thread}/runs", body)).json()["run_id"]


async def cancel(service: Service, key: str, thread: str, run: str) -> None:
    await post(service, key, f"/threads/{thread}/runs/{run}/cancel?wait=true", {})
    await eventually(lambda: service.services.engine.supervisor.live(UUID(run)) is None)


async def spent(service: Service, tenant: str) -> tuple[float, int]:
    """Dollars and tokens, once everything is written."""
    await service.services.limits.budgets.flush()
    async with service.services.persistence.database.reading(tenant_id_of(tenant)) as session:
        row = await session.first(sa.text("select spent, tokens from spending"))
    return (0.0, 0) if row is None else (float(row.spent), row.tokens)


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_answer_without_usage_is_charged_as_estimated(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider, vendor: str
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("silent")
        provider.plan(without_usage(vendor))
        answer = await post(service, key, "/runs/wait", body_of(vendor))
        usage = answer.json()["messages"][-1]["usage_metadata"]
        dollars, tokens = await spent(service, "silent")
        assert tokens == usage["total_tokens"], "charged once, by the call and not again by its step"
        assert PROMPT_TOKENS + TEXT_TOKENS <= tokens <= PROMPT_TOKENS + TEXT_TOKENS + 20
        assert dollars > 0
        assert usage["output_token_details"]["estimated"] == usage["output_tokens"], "clients see that it is estimated"


def cut(vendor: str) -> Replay:
    """An answer that ends in the middle of a chunk."""
    return Replay(data=opening(vendor) + text_event(vendor, TEXT) + text_event(vendor, TEXT)[:-9])


@pytest.mark.parametrize("vendor", VENDORS)
@pytest.mark.parametrize("fault", [cut, Fault.CUT_IN_ARGUMENTS])
async def test_an_answer_that_is_cut_is_charged_with_what_it_streamed(
    fresh_database_url: str,
    settings: dict[str, Any],
    provider: FakeProvider,
    vendor: str,
    fault: Callable[[str], Replay] | Fault,
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("cut")
        provider.plan(fault if isinstance(fault, Fault) else fault(vendor))
        answer = await post(service, key, "/runs/wait", body_of(vendor))
        assert answer.json()["__error__"]["error"] in {"ModelUnavailable", "ModelProtocol"}
        dollars, tokens = await spent(service, "cut")
        prompt = 7 if vendor == ANTHROPIC else PROMPT_TOKENS  # Anthropic reports the prompt before its answer
        assert tokens >= prompt + (TEXT_TOKENS if fault is cut else 1)
        assert dollars > 0


@pytest.mark.parametrize("vendor", VENDORS)
async def test_a_run_that_is_cancelled_in_the_middle_of_its_answer_is_charged_with_what_it_streamed(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider, vendor: str
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("leaver")
        provider.plan(Fault.HANG_IN_THE_MIDDLE)
        thread, run = await begin(service, key, vendor)
        live = service.services.engine.supervisor.live(UUID(run))
        assert live is not None
        await eventually(lambda: b"Hello" in b"".join(frame.data for frame in live.feed.after(0)[1]))
        await cancel(service, key, thread, run)
        dollars, tokens = await spent(service, "leaver")
        assert tokens > (7 if vendor == ANTHROPIC else PROMPT_TOKENS)
        assert dollars > 0


@pytest.mark.parametrize("vendor", VENDORS)
async def test_cancelling_every_run_dodges_no_budget(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider, vendor: str
) -> None:
    """At 15 dollars a million tokens of the prompt each cancelled call costs a third of a cent."""
    settings |= {"AGENT_COST_PER_DAY": "0.01", "AGENT_RESERVE_TOKENS": "1"}
    async with serving(fresh_database_url, **settings) as service:
        key = await service.key("dodger")
        provider.plan(*[Fault.HANG_BEFORE_HEADERS] * 8)
        for count in range(1, 9):
            thread = (await post(service, key, "/threads", {})).json()["thread_id"]
            answer = await post(service, key, f"/threads/{thread}/runs", body_of(vendor))
            if answer.status_code == 429:
                break
            await eventually(lambda: sum(asked.body is not None for asked in provider.requests) == count)  # noqa: B023
            await cancel(service, key, thread, answer.json()["run_id"])
            assert (await spent(service, "dodger"))[1] >= PROMPT_TOKENS * count
        else:
            pytest.fail("eight cancelled calls are within a budget of three")
        assert "has spent its 0.01 dollars" in answer.json()["detail"]


@pytest.mark.parametrize("vendor", VENDORS)
async def test_an_absurd_usage_does_not_stop_recording(
    fresh_database_url: str, settings: dict[str, Any], provider: FakeProvider, vendor: str
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        absurd, innocent = await service.key("absurd"), await service.key("innocent")
        provider.plan(with_usage(vendor, 10**18 * 9))
        assert "messages" in (await post(service, absurd, "/runs/wait", body_of(vendor))).json()
        assert "messages" in (await post(service, innocent, "/runs/wait", body_of(vendor))).json()
        assert (await spent(service, "innocent"))[1] == 9
        assert (await spent(service, "absurd"))[1] >= 10**9


async def test_figures_that_the_database_refuses_stop_no_other_tenant_s(
    fresh_database_url: str, settings: dict[str, Any]
) -> None:
    async with serving(fresh_database_url, **settings) as service:
        await service.key("absurd")
        await service.key("innocent")
        budgets = service.services.limits.budgets
        for tenant, tokens in (("absurd", 2**63 - 1), ("innocent", 5)):
            budgets.spend(
                tenant_id_of(tenant),
                BudgetReservation(budgets.today(), tokens, 0.0),
                reserved=BudgetReservation(budgets.today(), 0, 0.0),
            )
        await budgets.flush()
        assert (await spent(service, "innocent"))[1] == 5
        for tenant, tokens in (("absurd", 1), ("innocent", 5)):
            budgets.spend(
                tenant_id_of(tenant),
                BudgetReservation(budgets.today(), tokens, 0.0),
                reserved=BudgetReservation(budgets.today(), 0, 0.0),
            )
        assert (await spent(service, "innocent"))[1] == 10, "although the sum of the other is beyond the column"
        budgets._changes.clear()
