"""The description of an agent is the description of its system assistant."""

from pathlib import Path

from tests.system.services import API, serving


async def test_the_description_of_an_agent_describes_its_assistant(database_url: str, tmp_path: Path) -> None:
    table = "[agents.guide]\nmodel = 'scripted:echo'\ndescription = '{}'\n[agents.plain]\nmodel = 'scripted:echo'\n"
    where = ""
    for text in (
        "Shows the way.",
        "Shows every way.",
    ):  # a change of the file takes effect without a change of the rows
        (tmp_path / "agents.toml").write_text(table.format(text))
        async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(tmp_path / "agents.toml")) as service:
            listed = (await service.client.post(f"{API}/assistants/search", json={"limit": 1000})).json()
            described = {one["name"]: one["description"] for one in listed}
            assert (described["guide"], described["plain"]) == (text, None)
            guide = next(one for one in listed if one["name"] == "guide")
            where = f"{API}/assistants/{guide['assistant_id']}"
            assert (await service.client.get(where)).json()["description"] == text
            versions = (await service.client.post(f"{where}/versions", json={})).json()
            assert {one["description"] for one in versions} == {text}
    async with serving(database_url, AGENT_AUTH="none", AGENT_CONFIG=str(tmp_path / "agents.toml")) as service:
        changed = await service.client.patch(where, json={"description": "Ours."})
        assert changed.json()["description"] == "Ours."
        assert (await service.client.get(where)).json()["description"] == "Ours.", "a description set by a client wins"
