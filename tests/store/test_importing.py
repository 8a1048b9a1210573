"""Import of items while a server runs: found by words at once, by meaning once their vectors exist."""

import asyncio
import json
from pathlib import Path
from typing import Any

import pytest

from tests.cli.commands import run_command
from tests.store.conftest import Store, Tenant


def load(store: Store, folder: Path, *lines: dict[str, Any], words: tuple[str, ...] = ()) -> str:
    (folder / "in.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    command = ("store", "import", "in.jsonl", "--tenant", "ours", *words)
    done = run_command(folder, *command, DATABASE_URL=store.url)
    assert done.returncode == 0, done.stderr
    return done.stderr


LINES = [
    {"namespace": ["docs"], "key": "a", "value": {"text": "a climber on a mountain"}},
    {"namespace": ["docs"], "key": "b", "value": {"text": "bread and butter"}},
]


async def test_items_without_vectors_are_found_by_words_at_once_and_get_vectors_in_the_background(
    store: Store, ours: Tenant, theirs: Tenant, tmp_path: Path
) -> None:
    output = load(store, tmp_path, *LINES)
    assert "2 without vectors yet, which a running server computes" in output
    assert (await ours.keys("docs", query="butter"))[0] == "b"
    async with asyncio.timeout(40):
        while await store.count("store_vectors_384") < 2:  # the server backfills them as well
            await store.service.services.agents.memory.maintenance._backfill.run_once()
    assert (await ours.keys("docs", query="climbing"))[0] == "a"
    assert await theirs.keys("docs") == []


async def test_a_put_and_an_import_replace_each_other(store: Store, ours: Tenant, tmp_path: Path) -> None:
    await ours.put("docs", "a", {"text": "older"})
    load(store, tmp_path, *LINES)
    assert (await ours.get("docs", "a"))["value"] == LINES[0]["value"]
    async with asyncio.timeout(20):  # those of the replaced item are deleted; the service's own backfill may be at it
        while await store.count("store_vectors_384") != 2:
            await store.service.services.agents.memory.maintenance._backfill.run_once()
    await ours.put("docs", "a", {"text": "newer"})
    assert (await ours.get("docs", "a"))["value"] == {"text": "newer"}


async def test_an_expired_item_is_not_a_conflict(store: Store, ours: Tenant, tmp_path: Path) -> None:
    await ours.put("docs", "a", {"text": "short"}, ttl=60)
    await store.do("update store_items set expires_at = now() - interval '1 second'")
    load(store, tmp_path, *LINES, words=("--on-conflict", "fail"))
    assert (await ours.get("docs", "a"))["value"] == LINES[0]["value"]


@pytest.mark.parametrize("policy,stored", [("replace", "last"), ("keep", "first")])
async def test_an_item_that_is_repeated_in_a_file_is_stored_once(
    store: Store, ours: Tenant, tmp_path: Path, policy: str, stored: str
) -> None:
    twice = [{"namespace": ["docs"], "key": "a", "value": {"text": text}} for text in ("first", "middle", "last")]
    load(store, tmp_path, *twice, words=("--on-conflict", policy))
    assert (await ours.get("docs", "a"))["value"] == {"text": stored}


async def test_imports_and_exports_are_in_the_audit_log(store: Store, ours: Tenant, tmp_path: Path) -> None:
    load(store, tmp_path, *LINES)
    assert await store.count("audit_log", "action = 'store.imported'") == 1
