"""``agent-service doctor``: the deployment checklist for a running server and a source tree.

- ``alert_rules``: checks of Prometheus rules
- ``checklist``: the checklist
- ``dependencies``: checks of the server's dependencies
- ``deployment``: the deployment under check
- ``environment``: checks of the settings of a deployment, its agents and its disk
- ``external_programs``: checks that run other programs
- ``label_values``: find label values in rules and dashboards that are never counted
- ``metrics_format``: validate a metrics page
- ``queries``: SQL of the checklist
- ``secret_leaks``: checks that no secret of this environment leaks into responses or logs
- ``server``: checks of a running server over HTTP
"""

import argparse
import json
from pathlib import Path
from typing import TYPE_CHECKING

from app.base.errors import UsageError

if TYPE_CHECKING:
    from app.cli.doctor.checklist import Checklist
    from app.infra.settings.environment import Settings

LISTEN_ANYWHERE = {"0.0.0.0": "127.0.0.1", "::": "[::1]"}  # noqa: S104  compared with, not listened on


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the options; without any, the targets come from the environment and the current folder."""
    parser.add_argument("--url", help="the running server (default: HOST and PORT, where DATABASE_URL is set)")
    parser.add_argument("--metrics-url", help="where /metrics is (default: METRICS_PORT, or the same)")
    parser.add_argument("--key-file", metavar="FILE", help="an API key; with the role operator, health has details")
    parser.add_argument("--source", metavar="FOLDER", help="a source tree (default: this folder, if it is one)")
    parser.add_argument("--container", default="", metavar="NAME", help="a container of podman or docker")
    parser.add_argument("--log", action="append", default=[], metavar="FILE", help="a log to search for secrets")
    parser.add_argument(
        "--rules", action="append", default=[], metavar="FILE", help="alerts (default: deploy/prometheus)"
    )
    parser.add_argument("--quick", action="store_true", help="leave out the tests and the image")
    parser.add_argument("--skip", action="append", default=[], metavar="CHECK", help="leave out a check, or an area")
    parser.add_argument("--json", action="store_true", help="print the rows as JSON")


def run(arguments: argparse.Namespace) -> int:
    """Run the checks and print the checklist; exit code 1 if one does not hold."""
    from app.cli.doctor.checklist import Checklist, printed
    from app.infra.settings.environment import load

    settings = load()
    key = _key(arguments.key_file)
    configured = settings.database.url is not None
    host = LISTEN_ANYWHERE.get(settings.server.host, settings.server.host)
    url = arguments.url or (f"http://{host}:{settings.server.port}" if configured else "")
    folder = _source(arguments.source)
    if not any((url, folder, arguments.container, arguments.log, arguments.rules)):
        raise UsageError("there is nothing to check: pass --url, --source or --container, or set DATABASE_URL")
    if arguments.json:
        checklist = Checklist(arguments.skip)
        _check(checklist, arguments, settings, key, url, folder)
        print(json.dumps(checklist.document(), indent=2))
    else:
        with printed(arguments.skip) as checklist:
            _check(checklist, arguments, settings, key, url, folder)
    return 0 if checklist.holds else 1


def _check(
    checklist: "Checklist", arguments: argparse.Namespace, settings: "Settings", key: str, url: str, folder: Path | None
) -> None:
    """Add the rows of all areas. Raises ``UsageError`` if ``--skip`` names an unknown check."""
    from app.cli.doctor import alert_rules, dependencies, environment, external_programs, secret_leaks, server
    from app.cli.doctor.deployment import DeployedServer
    from app.infra.settings.environment import is_loopback

    configured = settings.database.url is not None
    secrets, ordinary = secret_leaks.known(settings, key)
    api = DeployedServer(url, key) if url else None
    metrics = DeployedServer(arguments.metrics_url or _metrics_url(api, settings.server.metrics_port)) if api else None
    if api is not None and metrics is not None:
        open_to_all = configured and settings.auth.mode == "none" and is_loopback(api.host)
        server.add_rows(checklist, api, metrics, open_to_all=open_to_all)
        secret_leaks.in_answers(checklist, api, metrics, secrets, ordinary)
    else:
        checklist.omit(server.AREA, "health", "no --url, and DATABASE_URL is not set")
    secret_leaks.in_logs(checklist, arguments.log, secrets)
    if configured:
        environment.add_rows(checklist, settings)
    else:
        checklist.omit(
            environment.AREA, "production", "DATABASE_URL is not set: this is not the environment of a server"
        )
    dependencies.add_rows(checklist, settings)
    external_programs.container(checklist, arguments.container)
    rules = [Path(one) for one in arguments.rules] or _rules(folder)
    alert_rules.load(checklist, rules)
    if rules:
        alert_rules.values(checklist, rules + (list((folder / "deploy" / "grafana").rglob("*.json")) if folder else []))
    if rules and metrics is not None:
        alert_rules.known(checklist, rules, metrics)
    external_programs.source(checklist, folder, quick=arguments.quick)
    if checklist.unused:
        raise UsageError(f"--skip {min(checklist.unused)}: there is no such check")


def _key(path: str | None) -> str:
    from app.infra.secrets.secret import secret_file

    return secret_file("--key-file", path) if path else ""


def _metrics_url(api: "DeployedServer", port: int) -> str:  # type: ignore[name-defined]  # noqa: F821
    return f"http://{api.host}:{port}" if port else api.url


def _source(given: str | None) -> Path | None:
    from app.cli.doctor.external_programs import is_source

    folder = Path(given or ".")
    if is_source(folder):
        return folder
    if given:
        raise UsageError(f"--source {given} has no source tree of agent-service")
    return None


def _rules(folder: Path | None) -> list[Path]:
    """Return the rules files of the source tree: those with ``groups``."""
    rules_folder = (folder or Path()) / "deploy" / "prometheus"
    return sorted(
        path
        for path in rules_folder.rglob("*.y*ml")
        if "\ngroups:" in f"\n{path.read_text('utf-8')}" and "tests" not in str(path)
    )
