"""The store with the real local model: synonyms are found without a word in common."""

from pathlib import Path

import pytest

from tests.embed.test_minilm import installed
from tests.store.conftest import store_on

NOTES = {
    "car": "She sold her automobile last winter.",
    "meal": "Dinner will be served at seven.",
    "pet": "The puppy sleeps on the sofa.",
    "law": "The court rejected the appeal.",
}


@installed
@pytest.mark.timeout(120)
async def test_a_query_in_other_words_finds_the_item(fresh_database_url: str, tmp_path: Path) -> None:
    file = tmp_path / "agents.toml"
    file.write_text('[store]\nembedder = "minilm"\n')
    async with store_on(fresh_database_url, AGENT_CONFIG=str(file)) as store, store.tenant("ours") as ours:
        for key, text in NOTES.items():
            await ours.put("notes", key, {"text": text})
        for question, key in (
            ("vehicle", "car"),
            ("when do we eat?", "meal"),
            ("a young dog", "pet"),
            ("judges and lawyers", "law"),
        ):
            assert (await ours.keys("notes", query=question))[0] == key, question
