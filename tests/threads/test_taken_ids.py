"""An id of another tenant is free, for threads and assistants."""

import uuid

import pytest

from tests.system.services import API, serving


@pytest.mark.parametrize("kind", ["thread", "assistant"])
async def test_an_id_of_another_tenant_behaves_as_a_new_one(database_url: str, kind: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key") as service:
        taken, fresh = str(uuid.uuid4()), str(uuid.uuid4())
        theirs, ours = {"X-Api-Key": await service.key("theirs")}, {"X-Api-Key": await service.key("ours")}

        async def make(id_: str, headers: dict[str, str], **more: str) -> tuple[int, set[str]]:
            body = {f"{kind}_id": id_, "graph_id": "echo", **more}
            answer = await service.client.post(f"{API}/{kind}s", json=body, headers=headers)
            return answer.status_code, set(answer.json())

        assert (await make(taken, theirs))[0] == 200
        assert await make(taken, ours) == await make(fresh, ours)
        assert (await make(taken, ours))[0] == 409, "the id is taken in their own tenant now"
        assert (await make(taken, ours, if_exists="do_nothing"))[0] == 200
        run = {"assistant_id": "echo", "input": {"messages": []}, "if_not_exists": "create"}
        if kind == "thread":
            other = str(uuid.uuid4())
            assert (await make(other, theirs))[0] == 200
            answers = [
                await service.client.post(f"{API}/threads/{id_}/runs/wait", json=run, headers=ours)
                for id_ in (other, str(uuid.uuid4()))
            ]
            assert [answer.status_code for answer in answers] == [200, 200]
