"""Follow the field ``priority`` of a run through the program that starts this: bodies, database, claim, wire, crons,
webhooks, export, OpenAPI document.

``python -m tests.runs.new_field DATABASE_URL``
"""

import asyncio
import sys
from typing import Any

import msgspec

from app.base.ids import new_id
from app.domain.lifecycle import Reason
from app.features.data_rights.export import export
from app.features.data_rights.structs import DataSubject
from app.infra.db.migrations import upgrade
from app.security.access.structs import tenant_id_of
from app.security.limits import queries
from tests.runs.engine import fetch
from tests.system.services import API, Service, serving
from tests.webhooks.receiver import receiving

HERE: dict[str, Any] = {"AGENT_AUTH": "none", "AGENT_EGRESS_ALLOW": "127.0.0.0/8"}
MAKE_DUE = "update crons set next_run_date = date_trunc('minute', now())"


async def send(service: Service, verb: str, path: str, status: int = 200, **body: Any) -> Any:
    """Send a request; return the response's JSON."""
    answer = await service.client.request(verb, API + path, json=body or None)
    assert answer.status_code == status, answer.text
    return answer.json()


async def queued(service: Service, url: str) -> str:
    """A run is accepted with the field, refused with an invalid one, claimed, and released; return its thread."""
    thread = f"/threads/{new_id()}"
    body: dict[str, Any] = {
        "assistant_id": "echo",
        "input": {"messages": "hi"},
        "webhook": url,
        "if_not_exists": "create",
    }
    run = await send(service, "POST", f"{thread}/runs", priority="high", **body)
    assert (run["priority"], run["status"]) == ("high", "pending")
    refused = await send(service, "POST", f"{thread}/runs", 422, priority="urgent", **body)
    assert refused["errors"][0]["pointer"] == "/priority", refused
    (row,) = await fetch(service.services.persistence.database, "select priority from runs")
    assert row == {"priority": "high"}
    claims = service.services.engine.parts.claims
    (claimed,) = await claims.claim(1)
    assert msgspec.structs.asdict(claimed)["priority"] == "high"
    await claims.hand_over(claimed, Reason.HANDOVER)
    return thread


async def scheduled(service: Service, url: str) -> None:
    """Crons keep the field, and it can be changed."""
    body: dict[str, Any] = {
        "assistant_id": "echo",
        "schedule": "0 0 1 1 *",
        "input": {"messages": "hi"},
        "webhook": url,
    }
    cron = await send(service, "POST", "/runs/crons", priority="high", on_run_completed="keep", **body)
    assert cron["payload"]["priority"] == "high"
    changed = await send(service, "PATCH", f"/runs/crons/{cron['cron_id']}", priority="low")
    assert changed["payload"]["priority"] == "low"
    assert changed["payload"]["webhook"] == url
    await fetch(service.services.persistence.database, MAKE_DUE)


async def documented(service: Service) -> None:
    """The OpenAPI document describes it, and storage limits count it."""
    schemas = (await service.client.get("/openapi.json")).json()["components"]["schemas"]
    for name in ("RunCreate", "Run", "CronCreate", "CronPatch"):
        assert "high" in str(schemas[name]["properties"]["priority"]), name
    assert "priority" in queries.sizes_of("runs")[1]


async def exported(service: Service) -> list[str]:
    """Return the field of every exported run."""
    lines: list[bytes] = []
    subject = DataSubject(tenant_id=tenant_id_of("default"))
    await export(service.services.persistence.database, subject, "default", lines.append)
    rows = [msgspec.json.decode(line) for line in lines]
    return sorted(one["row"]["priority"] for one in rows if one["kind"] == "runs")


async def main(url: str) -> None:
    """Follow the field from the body to the export."""
    async with receiving() as receiver:
        async with serving(url, AGENT_ROLE="api", **HERE) as service:
            thread = await queued(service, receiver.url)
            await scheduled(service, receiver.url)
            await documented(service)
        async with serving(url, **HERE) as service:
            calls = await receiver.until(2)
            assert sorted(call.read()["priority"] for call in calls) == ["high", "low"]
            (listed,) = await send(service, "GET", f"{thread}/runs")
            assert (listed["priority"], listed["status"]) == ("high", "success")
            assert await exported(service) == ["high", "low"]


if __name__ == "__main__":
    upgrade(sys.argv[1])
    asyncio.run(main(sys.argv[1]))
