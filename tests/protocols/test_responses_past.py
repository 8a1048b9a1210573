"""A response outlives its event log: its checkpoints tell it, and its stream says that it is gone."""

from uuid import UUID

from tests.database import age, execute
from tests.system.services import serving

SUM = "what is 12*(3+4)?"


async def test_a_response_is_built_from_its_checkpoints_once_its_log_is_gone(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="none") as service:

        async def post(path: str, **body: object) -> dict[str, object]:
            answer = await service.client.post(path, json=body)
            assert answer.status_code == 200, answer.text
            return dict(answer.json())

        first = await post("/v1/responses", model="assistant", input=SUM)
        weather = {"type": "function", "name": "weather", "parameters": {"type": "object", "properties": {}}}
        asked = await post("/v1/responses", model="assistant", input="call weather", tools=[weather],
                           previous_response_id=first["id"])  # fmt: skip
        output = asked["output"]
        assert isinstance(output, list)
        result = {"type": "function_call_output", "call_id": output[-1]["call_id"], "output": "sunny"}
        last = await post("/v1/responses", model="assistant", input=[result], previous_response_id=asked["id"])
        for response in (first, asked, last):
            await age(database_url, str(UUID(str(response["id"]).removeprefix("resp_"))))
        await execute(database_url, "delete from events")
        for response in (first, asked, last):
            answer = await service.client.get(f"/v1/responses/{response['id']}")
            found = answer.json()
            assert found == response
            stream = await service.client.get(f"/v1/responses/{response['id']}", params={"stream": "true"})
            assert stream.status_code == 410
            assert "error" in stream.json()
