"""The table [store] of the agents file: validation with one-line errors."""

from pathlib import Path

import pytest

from app.agents.config.agents_file import read
from app.agents.config.store_index import index_for, indexes_of
from app.base.errors import StartError

GOOD = """
[agents.a]
model = "scripted:echo"

[store]
embedder = "openai:text-embedding-3-small"
fields = ["text"]
ttl = 60
refresh_on_read = false

[[store.index]]
prefix = ["docs"]
fields = ["title", "parts[*].text"]
dimensions = 512

[[store.index]]
prefix = ["docs", "plain"]
embedder = "hashing"

[[store.index]]
prefix = ["raw"]
embedder = "none"
"""


def written(folder: Path, text: str) -> str:
    file = folder / "agents.toml"
    file.write_text(text)
    return str(file)


def test_missing_keys_are_inherited_and_the_longest_prefix_wins(tmp_path: Path) -> None:
    store = read(written(tmp_path, GOOD)).store
    assert (store.ttl, store.refresh_on_read) == (60, False)
    indexes = indexes_of(store)
    found = {path: index_for(path, indexes) for path in ("docs.x.", "docs.plain.x.", "docsy.", "raw.", "")}
    assert {path: (one.embedder, one.dimensions) for path, one in found.items()} == {
        "docs.x.": ("openai:text-embedding-3-small", 512),
        "docs.plain.x.": ("hashing", 384),
        "docsy.": ("openai:text-embedding-3-small", 1536),
        "raw.": ("none", 0),
        "": ("openai:text-embedding-3-small", 1536),
    }
    assert found["docs.x."].fields == ["title", "parts[*].text"]
    assert found["docs.plain.x."].fields == ["text"]


def test_without_the_table_the_hashing_embedder_is_used(tmp_path: Path) -> None:
    (index,) = indexes_of(read(written(tmp_path, '[agents.a]\nmodel = "scripted:echo"\n')).store)
    assert (index.path, index.fields, index.embedder, index.dimensions) == ("", ["$"], "hashing", 384)


@pytest.mark.parametrize(
    "text,line,words",
    [
        ('[store]\nembeder = "hashing"\n', 2, "did you mean 'embedder'?"),
        ('[store]\n\nembedder = "magic"\n', 1, "unknown embedder 'magic'"),
        ('[store]\nembedder = "openai:own"\n', 1, "give dimensions"),
        ("[store]\nttl = -1\n", 1, "number of minutes"),
        ("[store]\nttl = 'long'\n", 2, "ttl"),
        ("store = 1\n", 1, "write [store]"),
        ('[store]\nfields = "text"\n', 2, "fields"),
        ("[store]\nindex = 1\n", 1, "write [store] and [[store.index]]"),
        ('[[store.index]]\nprefix = "docs"\n', 1, "prefix"),
        ('[[store.index]]\nprefix = ["a.b"]\n', 1, "has a dot"),
        ("[[store.index]]\nprefix = []\n[[store.index]]\nprefix = []\n", 1, "two indexes"),
        ("[[store.index]]\nfield = []\n", 2, "did you mean 'fields'?"),
    ],
)
def test_an_invalid_store_table_is_reported_in_one_line(tmp_path: Path, text: str, line: int, words: str) -> None:
    with pytest.raises(StartError) as failure:
        read(written(tmp_path, text))
    assert words in str(failure.value)
    assert f"line {line}" in str(failure.value)
    assert "\n" not in str(failure.value)
