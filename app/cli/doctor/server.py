"""Checks of a running server over HTTP."""

from functools import partial

from app.cli.doctor.checklist import Checklist
from app.cli.doctor.deployment import DeployedServer
from app.cli.doctor.metrics_format import ParsedMetrics
from app.infra.settings.environment import is_loopback

AREA = "server"
API = "/api/v1"
UNKNOWN_ROUTE = f"{API}/no-such-route"
GUARDED = f"{API}/assistants/search"
OPENMETRICS = "application/openmetrics-text"
HEADERS = {"x-content-type-options": "nosniff", "cache-control": "no-store", "referrer-policy": "no-referrer"}
PAGES = ("/metrics", "/openapi.json", f"{API}/health", f"{API}/info", UNKNOWN_ROUTE, "/docs")
"""Pages that need no key and must not contain a secret."""


def add_rows(checklist: Checklist, api: DeployedServer, metrics: DeployedServer, *, open_to_all: bool) -> None:
    """Check ``api``; ``metrics`` serves ``/metrics``. ``open_to_all``: no key is needed, by configuration."""
    if not _health(checklist, api):
        for check in ("metrics text", "openmetrics", "anonymous refused", "error shape", "headers", "api document"):
            checklist.omit(AREA, check, "the server does not answer")
        return
    for check, accept in (("metrics text", "text/plain"), ("openmetrics", OPENMETRICS)):
        command = metrics.curl("/metrics", f"-H 'Accept: {accept}'") + " | promtool check metrics" * (check[0] == "m")
        expected = "every line valid, every family typed, no duplicate series"
        checklist.check(AREA, check, command, expected, lambda accept=accept: _metrics(metrics, accept))  # type: ignore[misc]
    _access(checklist, api, open_to_all=open_to_all)
    _responses(checklist, api)


def _health(checklist: Checklist, api: DeployedServer) -> bool:
    def state(path: str, wanted: str) -> tuple[bool, str]:
        answer = api.request(path, key=True)
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
        key = '-H "X-Api-Key: $(cat KEY_FILE)"' if api.key and check == "health" else ""
        command = api.curl(API + path, key)
        evaluate = partial(state, API + path, wanted)
        found.append(checklist.check(AREA, check, command, f"200, {wanted}", evaluate))
    return any(found)


def _metrics(api: DeployedServer, accept: str) -> tuple[bool, str]:
    answer = api.request("/metrics", accept=accept)
    page = ParsedMetrics(answer.text, openmetrics=accept == OPENMETRICS)
    if answer.status != 200:
        return False, f"status {answer.status}"
    if not answer.headers.get("content-type", "").startswith(accept):
        return False, f"content type {answer.headers.get('content-type')}"
    seen = f"{page.series} series" if not page.faults else f"{len(page.faults)} faults: {page.faults[0]}"
    return not page.faults and page.series > 0, seen


def _access(checklist: Checklist, api: DeployedServer, *, open_to_all: bool) -> None:
    def status(key: bool) -> int:
        return api.request(GUARDED, key=key, body="{}").status

    post = "-o /dev/null -w '%{http_code}' -H 'Content-Type: application/json' -d '{}'"
    if open_to_all:
        checklist.omit(AREA, "anonymous refused", "AGENT_AUTH=none, on a loopback address")
    else:
        command = api.curl(GUARDED, post)
        checklist.check(
            AREA, "anonymous refused", command, "401", lambda: ((found := status(key=False)) == 401, f"{found}")
        )
    if api.key:
        command = api.curl(GUARDED, f'{post} -H "X-Api-Key: $(cat KEY_FILE)"')
        checklist.check(AREA, "key accepted", command, "200", lambda: ((found := status(key=True)) == 200, f"{found}"))
    else:
        checklist.omit(AREA, "key accepted", "no --key-file")
    if is_loopback(api.host):
        checklist.omit(AREA, "encrypted", "a loopback address")
    else:
        checklist.check(
            AREA, "encrypted", api.curl("/livez", "-v"), "https", lambda: (api.secure, api.url.split(":")[0])
        )


def _responses(checklist: Checklist, api: DeployedServer) -> None:
    def problem() -> tuple[bool, str]:
        answer = api.request(UNKNOWN_ROUTE)
        kind = answer.headers.get("content-type", "")
        missing = {"type", "title", "status", "detail", "request_id"} - answer.json().keys()
        seen = f"{answer.status}, {kind}" + (f", without {', '.join(sorted(missing))}" if missing else "")
        return answer.status == 404 and kind.startswith("application/problem+json") and not missing, seen

    def headers() -> tuple[bool, str]:
        found = api.request(f"{API}/info").headers
        wrong = [name for name, value in HEADERS.items() if value not in found.get(name, "")]
        wrong += [name for name in ("content-security-policy", "x-request-id") if name not in found]
        wrong += ["server header with a version"] * any(char.isdigit() for char in found.get("server", ""))
        return not wrong, "all present" if not wrong else f"missing or wrong: {', '.join(wrong)}"

    def document() -> tuple[bool, str]:
        answer = api.request("/openapi.json")
        paths = answer.json().get("paths", {})
        return answer.status == 200 and bool(paths), f"{answer.status}, {len(paths)} paths"

    checklist.check(AREA, "error shape", api.curl(UNKNOWN_ROUTE, "-i"), "404, application/problem+json", problem)
    checklist.check(AREA, "headers", api.curl(f"{API}/info", "-i"), ", ".join((*HEADERS, "CSP, X-Request-Id")), headers)
    checklist.check(AREA, "api document", api.curl("/openapi.json"), "200, paths", document)
