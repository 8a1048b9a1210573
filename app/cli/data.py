"""``agent-service data``: export or delete the data of a tenant or of one person in it."""

import argparse
import asyncio
import json
import sys
from collections.abc import Awaitable, Callable, Mapping
from typing import Any, BinaryIO

from app.base.errors import StartError, UsageError
from app.cli.database_access import database_settings, open_database
from app.cli.terminal.data_files import new_file
from app.cli.terminal.output import print_table
from app.cli.terminal.parser import sub_command

DELETED, EXPORTED = "data.deleted", "data.exported"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the actions export and delete."""
    actions = parser.add_subparsers(title="actions", dest="action", metavar="ACTION", required=True)
    export = sub_command(
        actions,
        "export",
        "write the data as JSON Lines, one row a line",
        "data export --tenant acme --metadata user_id=ada --out ada.jsonl",
    )
    export.add_argument("--out", required=True, metavar="FILE", help="a new file, or - for the standard output")
    delete = sub_command(
        actions,
        "delete",
        "delete the data permanently, also while servers run; live runs are cancelled",
        "data delete --tenant acme --metadata user_id=ada --yes",
    )
    delete.add_argument("--yes", action="store_true", help="confirm; without it, only count the rows")
    delete.add_argument(
        "--wait", type=float, default=60.0, metavar="SECONDS", help="for live runs to end (default: 60)"
    )
    for action in (export, delete):
        action.add_argument("--tenant", required=True, help="the tenant, as keys list has it")
        action.add_argument(
            "--metadata",
            action="append",
            default=[],
            metavar="NAME=VALUE",
            help="only the data of the person that this metadata field names (may be repeated; all must match), or a "
            "JSON object",
        )
        action.add_argument(
            "--namespace",
            action="append",
            default=[],
            metavar="LABELS",
            help="with --metadata: a store namespace of the person, like users.ada",
        )


def run(arguments: argparse.Namespace) -> int:
    """Export or delete, and print the number of rows per table."""
    from app.features.data_rights.structs import DataSubject

    metadata = _metadata(arguments.metadata)
    if arguments.namespace and not metadata:
        raise UsageError("--namespace needs --metadata: without it the whole tenant is selected")
    data_subject = DataSubject(
        tenant_id=_tenant(arguments.tenant),
        metadata=metadata,
        namespaces=tuple(tuple(labels.strip(".").split(".")) for labels in arguments.namespace),
    )
    if arguments.action == "export":
        with new_file(arguments.out, "--out") as out:
            counts = _export(data_subject, arguments.tenant, out)
        _print_counts(counts, "exported", sys.stderr)
        return 0
    if not arguments.yes:
        _print_counts(_count(data_subject), "would be deleted", sys.stdout)
        raise UsageError("nothing was deleted: add --yes to delete permanently")
    _print_counts(_delete(data_subject, arguments.wait), "deleted", sys.stdout)
    return 0


def _tenant(name: str) -> Any:
    from app.security.access.structs import tenant_id_of

    return tenant_id_of(name)


def _metadata(given: list[str]) -> dict[str, Any]:
    """Parse ``--metadata``. Raises ``UsageError``."""
    fields: dict[str, Any] = {}
    for one in given:
        if one.startswith("{"):
            try:
                read = json.loads(one)
            except ValueError as error:
                raise UsageError(f"--metadata {one} is not a valid JSON object: {error}") from error
            fields |= read
            continue
        name, equals, value = one.partition("=")
        if not name or not equals:
            raise UsageError(f"--metadata must be NAME=VALUE, like user_id=ada, not {one!r}")
        fields[name] = value
    if given and not fields:
        raise UsageError("--metadata has no fields: leave it out to select the whole tenant")
    return fields


def _export(data_subject: Any, tenant: str, out: BinaryIO) -> Mapping[str, int]:
    from app.features.data_rights.export import export

    return _with_database(data_subject, EXPORTED, lambda database: export(database, data_subject, tenant, out.write))


def _count(data_subject: Any) -> Mapping[str, int]:
    from app.features.data_rights.erasure import Erasure

    return _with_database(data_subject, "", lambda database: Erasure(database, data_subject).found())


def _delete(data_subject: Any, seconds: float) -> Mapping[str, int]:
    from app.features.data_rights.erasure import Erasure

    async def delete(database: Any) -> Mapping[str, int]:
        erasure = Erasure(database, data_subject)
        try:
            await erasure.run(seconds)
        except StartError:
            _print_counts(erasure.counts, "deleted", sys.stdout)
            raise
        if data_subject.whole:
            from app.infra.cache.caches import forget
            from app.infra.settings.environment import load

            erasure.counts["(cache)"] = await forget(load().redis, data_subject.tenant_id)
        return erasure.counts

    return _with_database(data_subject, DELETED, delete)


def _with_database(
    data_subject: Any, action: str, use: Callable[[Any], Awaitable[Mapping[str, int]]]
) -> Mapping[str, int]:
    """Call ``use`` with a ``Database`` connected as the owner; record ``action`` in the audit log."""
    from app.security.access.structs import SERVICE, AuditEvent

    async def use_database(owner: Any) -> Mapping[str, int]:
        async with open_database(owner, requests=2, engine=2) as (database, audit):
            counts = await use(database)
            if action:
                # a deleted tenant keeps no log, so the service's own records it; the person is not named
                tenant, subject = (
                    (SERVICE, str(data_subject.tenant_id))
                    if data_subject.whole
                    else (data_subject.tenant_id, "one person")
                )
                audit.record(AuditEvent(tenant, action, "operator", subject))
            return counts

    with database_settings() as settings:
        assert settings.database.owner_url is not None
        return asyncio.run(use_database(settings.database.owner_url))


def _print_counts(counts: Mapping[str, int], what: str, out: Any) -> None:
    rows = [(name, str(count)) for name, count in sorted(counts.items()) if count]
    if rows:
        print_table(("TABLE", "ROWS"), rows, numbers=("ROWS",), out=out)
    total = sum(counts.values())
    print(f"{total} row{'' if total == 1 else 's'} {what}", file=out)
