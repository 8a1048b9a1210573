"""A response outlives its event log: its checkpoints tell it, and its stream says that it is gone."""

from uuid import UUID

from tests.database import age, execute
from tests.system.services import serving

SUM = "what is 12*(3+4)?"


async def test_a_response_is_built_from_its_checkpoints_once_its_log_is_gone(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="none") as service:

        async def post(path: str, key: str = "", **body: object) -> dict[str, object]:
            headers = {"Idempotency-Key": key} if key else {}
            answer = await service.client.post(path, json=body, headers=headers)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        first = await post("/v1/responses", "whole", model="assistant", input=SUM)
        streamed = {"model": "assistant", "input": SUM, "stream": True}
        live = await service.client.post("/v1/responses", json=streamed, headers={"Idempotency-Key": "stream"})
        assert live.text.endswith("data: [DONE]\n\n")
        weather = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
        asked = await post("/v1/responses", model="assistant", input="call weather", tools=[weather],
                           previous_response_id=first["id"])  # fmt: skip
        output = asked["output"]
        assert isinstance(output, list)
        result = {"type": "function_call_output", "call_id": output[-1]["call_id"], "output": "sunny"}
        last = await post("/v1/responses", model="assistant", input=[result], previous_response_id=asked["id"])
        for run_id in (live.headers["x-run-id"], *(str(UUID(str(one["id"])[5:])) for one in (first, asked, last))):
            await age(database_url, run_id)
        await execute(database_url, "delete from events")
        for response in (first, asked, last):
            answer = await service.client.get(f"/v1/responses/{response['id']}")
            found = answer.json()
            assert found == response
            stream = await service.client.get(f"/v1/responses/{response['id']}", params={"stream": "true"})
            assert stream.status_code == 410
            assert "error" in stream.json()
        assert await post("/v1/responses", "whole", model="assistant", input=SUM) == first
        again = await service.client.post("/v1/responses", json=streamed, headers={"Idempotency-Key": "stream"})
        assert (again.status_code, "error" in again.json()) == (410, True)
