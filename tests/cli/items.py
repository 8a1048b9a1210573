"""Run ``agent-service store`` on a database, with sample items."""

import asyncio
import json
import subprocess
from pathlib import Path
from typing import Any

import asyncpg

from app.providers.embeddings.hashing import hash_text
from app.security.access.structs import tenant_id_of
from tests.cli.commands import run_command

ITEMS = "select namespace, key, value::text, index::text, ttl_minutes, expires_at, created_at, updated_at, version"


async def fetch(url: str, sql: str, *values: Any) -> list[Any]:
    connection = await asyncpg.connect(url)
    try:
        return [tuple(row) for row in await connection.fetch(sql, *values)]
    finally:
        await connection.close()


def items(url: str, tenant: str) -> list[Any]:
    """Return a tenant's items with their vectors, without item ids."""
    sql = f"""{ITEMS}, words::text, (select array_agg(row(space, part, embedding::text)::text order by part)
        from store_vectors_384 v where v.item_id = i.item_id and v.tenant_id = i.tenant_id) as vectors
        from store_items i where tenant_id = $1 order by namespace, key"""
    tenant_id = tenant_id_of(tenant)
    found = asyncio.run(fetch(url, sql, tenant_id))
    return [[str(part).replace(str(tenant_id), "TENANT") for part in row] for row in found]


def lines(count: int, **more: Any) -> list[dict[str, Any]]:
    return [
        {"namespace": ["docs", f"n{n % 3}"], "key": f"k{n}", "value": {"text": f"word{n} common"}, **more}
        for n in range(count)
    ]


def with_vector(line: dict[str, Any]) -> dict[str, Any]:
    return {**line, "vector": hash_text(f"text: {line['value']['text']}", 384)}


def write(path: Path, *given: Any) -> Path:
    path.write_text("".join((one if isinstance(one, str) else json.dumps(one)) + "\n" for one in given))
    return path


class Command:
    """``agent-service store`` on one database, in one folder."""

    def __init__(self, url: str, folder: Path) -> None:
        self.url = url
        self.folder = folder

    def __call__(self, *words: str) -> subprocess.CompletedProcess[str]:
        return run_command(self.folder, "store", *words, DATABASE_URL=self.url)

    def run(self, *words: str) -> str:
        done = self(*words)
        assert done.returncode == 0, done.stderr
        return done.stderr

    def items(self, tenant: str = "default") -> list[Any]:
        return items(self.url, tenant)
