"""``python -m app.cli.health``: the image's health check, which asks whether this machine's server is ready.

Exit code 0 if ready, 1 if not, 2 if the settings are invalid; prints one line. Imports little, because it runs every
few seconds.
"""

import http.client
import sys

from app.base.errors import UsageError
from app.infra.settings.environment import load

PATH = "/api/v1/health/ready"
TIMEOUT = 3.0
LOOPBACK_FOR = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared with, not listened on


def probe(host: str, port: int) -> str:
    """Return why the server at ``host`` and ``port`` is not ready; empty if it is."""
    connection = http.client.HTTPConnection(LOOPBACK_FOR.get(host, host), port, timeout=TIMEOUT)
    try:
        connection.request("GET", PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from port {port}: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == http.HTTPStatus.OK else f"not ready: status {status}"


def main() -> int:
    """Probe the configured server and return the exit code."""
    try:
        server = load().server
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    problem = probe(server.host, server.port)
    print(problem or "ready", file=sys.stderr if problem else sys.stdout)
    return 1 if problem else 0


if __name__ == "__main__":
    sys.exit(main())
