"""``agent-service store``: import or export the items of a tenant, also while servers run."""

import argparse
import asyncio
import contextlib
import logging
import sys
from collections.abc import AsyncIterator, Sequence
from typing import Any

from app.base.errors import AgentServiceError, StartError, UsageError
from app.cli.database_access import database_settings, open_database
from app.cli.terminal.data_files import compressed, new_file, source
from app.cli.terminal.parser import sub_command
from app.cli.terminal.progress import ProgressLine, clock_time

IMPORTED, EXPORTED = "store.imported", "store.exported"
MAX_REPORTED_LINES = 20
"""Bad lines that are printed one by one, without --report."""


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the actions import and export."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    load = sub_command(
        actions, "import", "store the items of a file, one JSON object a line", "store import items.jsonl --tenant acme"
    )
    load.add_argument("file", metavar="FILE", help="the file, also as .gz or .zst, or - for the standard input")
    load.add_argument(
        "--on-conflict",
        choices=("replace", "keep", "fail"),
        default="replace",
        help="what to do with an item that exists already (default: replace)",
    )
    load.add_argument("--skip-bad", action="store_true", help="skip lines that cannot be stored, and continue")
    load.add_argument("--report", metavar="FILE", help="with --skip-bad: a new file for the errors")
    load.add_argument("--from-line", type=int, default=1, metavar="N", help="skip the lines before this one, to resume")
    load.add_argument("--check", action="store_true", help="only validate every line; store nothing")
    load.add_argument(
        "--rebuild-index",
        action="store_true",
        help="drop the vector indexes and rebuild them at the end: much faster for large files; searches are slower "
        "meanwhile",
    )
    save = sub_command(
        actions, "export", "write the items into a new file", "store export items.jsonl.zst --tenant acme"
    )
    save.add_argument(
        "file", metavar="FILE", help="a new file, compressed if it ends in .gz or .zst, or - for the output"
    )
    for action in (load, save):
        action.add_argument("--tenant", default="default", help="the tenant whose items they are (default: default)")
        action.add_argument("--prefix", default="", metavar="LABELS", help="only at and below this, like users.ada")
        action.add_argument("--without-vectors", action="store_true", help="leave vectors out: they are recomputed")


def run(arguments: argparse.Namespace) -> int:
    """Run the action and print its result."""
    if arguments.action == "export":
        with database_settings() as settings:
            return _export(arguments, settings)
    if arguments.report and not arguments.skip_bad:
        raise UsageError("--report needs --skip-bad: without it the import stops at the first bad line")
    if arguments.from_line < 1:
        raise UsageError("--from-line must be at least 1")
    if arguments.check and arguments.rebuild_index:
        raise UsageError("--check stores nothing: leave out --rebuild-index")
    with database_settings() as settings:
        return _import(arguments, settings)


def _import(arguments: argparse.Namespace, settings: Any) -> int:
    from app.features.store.bulk.json_lines import MAX_LINE_BYTES

    progress = ProgressLine("items")
    bad = BadLineReport(progress)
    with contextlib.ExitStack() as stack:
        given = stack.enter_context(source(arguments.file))
        if arguments.report:
            bad.report = stack.enter_context(new_file(arguments.report, "--report"))

        def on_progress(counts: Any) -> None:
            progress.show(counts.done + counts.skipped, given.position / given.size if given.size else None)

        holder: list[Any] = []
        try:
            importing = _load(arguments, settings, given.lines(MAX_LINE_BYTES), holder, bad.report_line, on_progress)
            asyncio.run(importing)
        except AgentServiceError as error:
            progress.clear()
            kind = type(error) if isinstance(error, StartError) else StartError
            raise kind(f"{str(error).rstrip('.')}{_resume_hint(holder)}") from error
        except BaseException:
            progress.clear()
            if hint := _resume_hint(holder):
                _say(hint.removeprefix("; "))
            raise
    progress.clear()
    bad.finish()
    _say(_summary(holder[0].counts, arguments, progress.seconds))
    return 0


async def _load(
    arguments: argparse.Namespace, settings: Any, lines: Any, holder: list[Any], bad: Any, on_progress: Any
) -> None:
    from app.agents.config.agents_file import read
    from app.features.store.bulk.bulk_copy import BulkLoader, without_hnsw_indexes
    from app.features.store.bulk.importer import ImportOptions, ItemImporter
    from app.security.access.structs import tenant_id_of

    spec = read(settings.agents.config).store
    rules = ImportOptions(
        policy=arguments.on_conflict,
        first=arguments.from_line,
        path=_path(arguments.prefix),
        skip_bad=arguments.skip_bad,
        dry=arguments.check,
        ttl=spec.ttl,
        vectors=not arguments.without_vectors,
    )
    tenant_id = tenant_id_of(arguments.tenant)
    async with open_store(settings, tenant_id, IMPORTED) as (database, versions):
        await versions.attach()
        async with contextlib.AsyncExitStack() as stack:
            connection = await stack.enter_async_context(database.engine_connection())
            loader = BulkLoader(connection, tenant_id, arguments.on_conflict)
            await loader.open()
            holder.append(ItemImporter(loader, versions, rules, bad, on_progress))
            if arguments.rebuild_index:
                owner = settings.database.owner_url
                assert owner is not None
                tables = [f"store_vectors_{width}" for width in versions.widths]
                await stack.enter_async_context(without_hnsw_indexes(owner.reveal(), tables, _say))
            await holder[0].run(lines)


@contextlib.asynccontextmanager
async def open_store(
    settings: Any, tenant_id: Any, action: str, what: str = "items of the store"
) -> AsyncIterator[tuple[Any, Any]]:
    """Open the database and its index versions; record ``action`` on ``what`` in the audit log at the end."""
    import structlog

    from app.agents.config.agents_file import read
    from app.agents.config.store_index import indexes_of
    from app.features.store.index.versions import IndexVersions
    from app.security.access.structs import AuditEvent

    # standard output may be the exported file, so logs go to standard error
    structlog.configure(
        wrapper_class=structlog.make_filtering_bound_logger(logging.WARNING),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
    )
    async with open_database(settings.database.url, requests=2, engine=3) as (database, audit):
        indexes = indexes_of(read(settings.agents.config).store)
        yield database, IndexVersions(database, indexes, lambda *_: None)
        audit.record(AuditEvent(tenant_id, action, "operator", what))


def _export(arguments: argparse.Namespace, settings: Any) -> int:
    progress = ProgressLine("items")
    with new_file(arguments.file, "the file") as out, compressed(out, arguments.file) as packed:
        try:
            count = asyncio.run(
                _save(
                    arguments, settings, packed.write, lambda done, of: progress.show(done, done / of if of else None)
                )
            )
        finally:
            progress.clear()
    _say(f"{_items(count)} of {arguments.tenant} written in {clock_time(progress.seconds)}")
    return 0


async def _save(arguments: argparse.Namespace, settings: Any, write: Any, on_progress: Any) -> int:
    from app.features.store.bulk.exporter import ItemExporter
    from app.security.access.structs import tenant_id_of

    tenant_id, path = tenant_id_of(arguments.tenant), _path(arguments.prefix)
    async with open_store(settings, tenant_id, EXPORTED) as (database, versions):
        await versions.attach()
        version = None if arguments.without_vectors else versions.serving
        return await ItemExporter(database, tenant_id, path, version).run(write, on_progress)


def _path(prefix: str) -> str:
    from app.features.store.validation import path_of

    try:
        return path_of(prefix.split(".") if prefix else [], "--prefix")
    except AgentServiceError as error:
        raise UsageError(str(error)) from error


class BadLineReport:
    """Reports skipped lines: to ``report``, or the first ``MAX_REPORTED_LINES`` to the terminal."""

    def __init__(self, progress: ProgressLine) -> None:
        self.report: Any = None
        self._progress = progress
        self._count = 0

    def report_line(self, number: int, what: str) -> None:
        """Report that line ``number`` was skipped because of ``what``."""
        self._count += 1
        if self.report is not None:
            import msgspec

            self.report.write(msgspec.json.encode({"line": number, "error": what}) + b"\n")
        elif self._count <= MAX_REPORTED_LINES:
            self._progress.clear()
            _say(f"line {number}: {what}")

    def finish(self) -> None:
        """Print how many further lines were skipped."""
        if self.report is None and self._count > MAX_REPORTED_LINES:
            _say(f"and {self._count - MAX_REPORTED_LINES:,} more bad lines; --report FILE has them all")


def _summary(counts: Any, arguments: argparse.Namespace, seconds: float) -> str:
    if arguments.check:
        parts = [f"{_items(counts.done)} can be stored"]
    else:
        parts = [
            f"{_items(counts.done)} stored for {arguments.tenant} ({counts.new:,} new, {counts.replaced:,} replaced)"
        ]
    parts += [
        f"{number:,} {words}"
        for number, words in (
            (counts.skipped, "kept unchanged"),
            (counts.filtered, "skipped"),
            (counts.bad, "bad lines left out"),
            (counts.unembedded, "without vectors yet, which a running server computes"),
        )
        if number
    ]
    rate = f", {(counts.done + counts.skipped) / seconds:,.0f} items/s" if seconds >= 1 else ""
    return f"{', '.join(parts)}; {clock_time(seconds)}{rate}"


def _resume_hint(holder: Sequence[Any]) -> str:
    """Return how to resume an import that stopped early; empty if it had not started."""
    if not holder or holder[0].options.dry:
        return ""
    counts = holder[0].counts
    if not counts.line:
        return "; nothing was stored"
    return (
        f"; {_items(counts.done)} stored, of the lines up to {counts.line:,} and none after it: continue with "
        f"--from-line {counts.line + 1}"
    )


def _items(count: int) -> str:
    return f"{count:,} item{'' if count == 1 else 's'}"


def _say(sentence: str) -> None:
    print(sentence, file=sys.stderr)
