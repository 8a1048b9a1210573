"""Rows about a running server, by its answers alone."""

from app.cli.doctor.checklist import Checklist
from app.cli.doctor.deployment import DeployedServer
from app.cli.doctor.metrics_format import ParsedMetrics
from app.infra.settings.environment import is_loopback

AREA = "server"
API = "/api/v1"
NOWHERE = f"{API}/no-such-route"
GUARDED = f"{API}/assistants/search"
OPENMETRICS = "application/openmetrics-text"
HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store", "referrer-policy": "no-referrer"}
PAGES = ("/metrics", "/openapi.json", f"{API}/health", f"{API}/info", NOWHERE, "/docs")
"""What anybody may read, and where a secret must not be."""


def add_rows(sheet: Checklist, site: DeployedServer, metrics: DeployedServer, *, open_to_all: bool) -> None:
    """Every row about ``site``; ``metrics`` answers ``/metrics``. ``open_to_all``: it needs no key, and may."""
    if not _health(sheet, site):
        for check in ("metrics text", "openmetrics", "anonymous refused", "error shape", "headers", "api document"):
            sheet.leave(AREA, check, "the server does not answer")
        return
    for check, accept in (("metrics text", "text/plain"), ("openmetrics", OPENMETRICS)):
        command = metrics.curl("/metrics", f"-H 'Accept: {accept}'") + " | promtool check metrics" * (check[0] == "m")
        expected = "every line read, every family typed, no series twice"
        sheet.ask(AREA, check, command, expected, lambda accept=accept: _metrics(metrics, accept))  # type: ignore[misc]
    _access(sheet, site, open_to_all=open_to_all)
    _shape(sheet, site)


def _health(sheet: Checklist, site: DeployedServer) -> bool:
    def state(path: str, wanted: str) -> tuple[bool, str]:
        answer = site.ask(path, key=True)
        body = answer.json()
        checks = [
            f"{name} {check['status']}" + (f" ({check['reason']})" if "reason" in check else "")
            for name, check in body.get("checks", {}).items()
            if check.get("status") not in {"healthy", "not_configured"}
        ]
        words = [str(answer.status), str(body.get("status", "")), str(body.get("reason", "")), *checks]
        return answer.status == 200 and body.get("status") == wanted, ", ".join(filter(None, words))

    rows = (("alive", "/health/live", "alive"), ("ready", "/health/ready", "ready"), ("health", "/health", "healthy"))
    found = []
    for check, path, wanted in rows:
        key = '-H "X-Api-Key: $(cat KEY_FILE)"' if site.key and check == "health" else ""
        command = site.curl(API + path, key)
        found.append(sheet.ask(AREA, check, command, f"200, {wanted}", lambda p=path, w=wanted: state(API + p, w)))  # type: ignore[misc]
    return any(found)


def _metrics(site: DeployedServer, accept: str) -> tuple[bool, str]:
    answer = site.ask("/metrics", accept=accept)
    page = ParsedMetrics(answer.text, openmetrics=accept == OPENMETRICS)
    if answer.status != 200:
        return False, f"status {answer.status}"
    if not answer.headers.get("content-type", "").startswith(accept):
        return False, f"content type {answer.headers.get('content-type')}"
    seen = f"{page.series} series" if not page.faults else f"{len(page.faults)} faults: {page.faults[0]}"
    return not page.faults and page.series > 0, seen


def _access(sheet: Checklist, site: DeployedServer, *, open_to_all: bool) -> None:
    def status(key: bool) -> int:
        return site.ask(GUARDED, key=key, body="{}").status

    post = "-o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' -d '{}'"
    if open_to_all:
        sheet.leave(AREA, "anonymous refused", "AGENT_AUTH=none, on a loopback address")
    else:
        command = site.curl(GUARDED, post)
        sheet.ask(AREA, "anonymous refused", command, "401", lambda: ((found := status(key=False)) == 401, f"{found}"))
    if site.key:
        command = site.curl(GUARDED, f'{post} -H "X-Api-Key: $(cat KEY_FILE)"')
        sheet.ask(AREA, "key accepted", command, "200", lambda: ((found := status(key=True)) == 200, f"{found}"))
    else:
        sheet.leave(AREA, "key accepted", "no --key-file")
    if is_loopback(site.host):
        sheet.leave(AREA, "encrypted", "a loopback address")
    else:
        sheet.ask(AREA, "encrypted", site.curl("/livez", "-v"), "https", lambda: (site.secure, site.url.split(":")[0]))


def _shape(sheet: Checklist, site: DeployedServer) -> None:
    def problem() -> tuple[bool, str]:
        answer = site.ask(NOWHERE)
        kind = answer.headers.get("content-type", "")
        lacking = {"type", "title", "status", "detail", "request_id"} - answer.json().keys()
        seen = f"{answer.status}, {kind}" + (f", without {', '.join(sorted(lacking))}" if lacking else "")
        return answer.status == 404 and kind.startswith("application/problem+json") and not lacking, seen

    def headers() -> tuple[bool, str]:
        found = site.ask(f"{API}/info").headers
        wrong = [name for name, value in HEADERS.items() if value not in found.get(name, "")]
        wrong += [name for name in ("content-security-policy", "x-request-id") if name not in found]
        wrong += ["server tells a version"] * any(char.isdigit() for char in found.get("server", ""))
        return not wrong, "all there" if not wrong else f"missing or wrong: {', '.join(wrong)}"

    def document() -> tuple[bool, str]:
        answer = site.ask("/openapi.json")
        paths = answer.json().get("paths", {})
        return answer.status == 200 and bool(paths), f"{answer.status}, {len(paths)} paths"

    sheet.ask(AREA, "error shape", site.curl(NOWHERE, "-i"), "404, application/problem+json", problem)
    sheet.ask(AREA, "headers", site.curl(f"{API}/info", "-i"), ", ".join((*HEADERS, "CSP, X-Request-Id")), headers)
    sheet.ask(AREA, "api document", site.curl("/openapi.json"), "200, paths", document)
