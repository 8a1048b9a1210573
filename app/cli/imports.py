"""``agent-service import``: bring what another server has stored into a tenant, also while servers run."""

import argparse
import asyncio
import sys
from typing import Any

from app.base.errors import StartError, UsageError
from app.cli.database_access import database_settings
from app.cli.store import open_store
from app.cli.terminal.parser import sub_command
from app.cli.terminal.progress import ProgressLine, clock_time

IMPORTED = "langgraph.imported"
MAX_REPORTED = 20
"""Threads and items that are refused of which the reason is printed."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the origins."""
    origins = parser.add_subparsers(title="origins", dest="origin", metavar="ORIGIN", required=True)
    tables = sub_command(
        origins,
        "langgraph-postgres",
        "threads, checkpoints and items from the tables of langgraph-checkpoint-postgres and its store",
        "import langgraph-postgres postgresql://reader@db/app --graph support --tenant acme",
    )
    tables.add_argument(
        "url", metavar="URL", help="the database with the tables; its password: PGPASSWORD or a password file"
    )
    tables.add_argument("--tenant", default="default", help="the tenant to import into (default: default)")
    tables.add_argument("--graph", default="", metavar="NAME", help="the graph of threads that name none of the file")
    tables.add_argument("--agents", metavar="FILE", help="the agents file (default: AGENT_CONFIG, or agents.toml)")
    tables.add_argument("--only", choices=("threads", "items"), default="", help="leave out the others")


def run(arguments: argparse.Namespace) -> int:
    """Import, and print what was imported; exit code 1 if something was refused."""
    with database_settings() as settings:
        return asyncio.run(_import(arguments, settings))


async def _import(arguments: argparse.Namespace, settings: Any) -> int:
    from app.agents.config.agents_file import read
    from app.cli.langgraph_import.source import opened
    from app.security.access.structs import tenant_id_of

    file, tenant_id = read(arguments.agents or settings.agents.config), tenant_id_of(arguments.tenant)
    refused = 0
    about = "threads and items of LangGraph"
    async with (
        opened(arguments.url) as source,
        open_store(settings, tenant_id, IMPORTED, about) as (database, versions),
    ):
        threads, items = await source.count()
        if threads and arguments.only != "items":
            refused += await _threads(arguments, file, database, source, threads)
        if items and arguments.only != "threads":
            refused += await _items(tenant_id, database, versions, source, items)
    return 1 if refused else 0


async def _threads(arguments: argparse.Namespace, file: Any, database: Any, source: Any, total: int) -> int:
    """Import the threads; return how many were refused."""
    from app.cli.langgraph_import.threads import ThreadImporter, ThreadRefused
    from app.security.access.structs import tenant_id_of
    from app.server.composition.models import graph_worker

    worker = graph_worker(file)
    if worker is None:
        raise UsageError(f"{file.source} has no graphs, which define how their threads are read: name it with --agents")
    progress, new, there, refused = ProgressLine("threads"), 0, 0, 0
    worker.start()
    try:
        await worker.wait()
        broken = {name: graph.error for name, graph in worker.graphs.items() if graph.error}
        if arguments.graph and (arguments.graph not in worker.graphs or arguments.graph in broken):
            reason = broken.get(arguments.graph) or f"{file.source} has {', '.join(sorted(worker.graphs))}"
            raise StartError(f"the graph {arguments.graph!r} cannot be used: {reason}")
        importer = ThreadImporter(database, worker, source, tenant_id_of(arguments.tenant), arguments.graph)
        async for old_id in source.threads():
            try:
                brought = await importer.bring(old_id)
            except ThreadRefused as error:
                refused += 1
                if refused <= MAX_REPORTED:
                    progress.clear()
                    _say(f"thread {old_id}: {error}")
                continue
            new, there = new + brought, there + (not brought)
            progress.show(new + there + refused, (new + there + refused) / total)
    finally:
        progress.clear()
        await worker.aclose()
    _say(
        f"threads: {new:,} imported with {importer.checkpoints:,} checkpoints, read again and equal; {there:,} were "
        f"there, {refused:,} refused; {clock_time(progress.seconds)}"
    )
    return refused


async def _items(tenant_id: Any, database: Any, versions: Any, source: Any, total: int) -> int:
    """Import the items; return how many could not be stored."""
    from app.cli.langgraph_import.items import ItemComparison
    from app.features.store.bulk.bulk_copy import BulkLoader
    from app.features.store.bulk.importer import ImportOptions, ItemImporter

    progress, refused = ProgressLine("items"), 0

    def on_bad_line(number: int, what: str) -> None:
        nonlocal refused
        refused += 1
        if refused <= MAX_REPORTED:
            progress.clear()
            _say(f"item {number}: {what}")

    await versions.attach()
    async with database.engine_connection() as connection:
        loader = BulkLoader(connection, tenant_id, "keep")
        await loader.open()
        options = ImportOptions(policy="keep", skip_bad=True)
        importer = ItemImporter(loader, versions, options, on_bad_line, lambda _counts: None)
        comparison = ItemComparison(source, importer, connection, tenant_id)
        try:
            await comparison.run(lambda count: progress.show(count, count / total))
        finally:
            progress.clear()
    counts = importer.counts
    _say(
        f"items: {counts.new:,} imported, {counts.skipped:,} were there, {counts.bad:,} refused; {comparison.equal:,} "
        f"read again and equal, {comparison.different:,} have another value here; {clock_time(progress.seconds)}"
    )
    return int(counts.bad)


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
