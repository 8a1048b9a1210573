"""``python -m app.cli.health``: is the server of this machine ready? What the image's health check runs.

Exit code 0 when it is, 1 when it is not, 2 when the settings are wrong; one line tells. Imports next to nothing, for it
runs every few seconds.
"""

import http.client
import sys

from app.base.errors import UsageError
from app.infra.settings.environment import load

PATH = "/api/v1/health/ready"
SECONDS = 3.0
EVERY_ADDRESS = {"0.0.0.0": "127.0.0.1", "::": "::1"}  # noqa: S104  compared with, not listened on


def ask(host: str, port: int) -> str:
    """What is wrong with the server at ``host`` and ``port``; an empty text when it is ready."""
    connection = http.client.HTTPConnection(EVERY_ADDRESS.get(host, host), port, timeout=SECONDS)
    try:
        connection.request("GET", PATH)
        status = connection.getresponse().status
    except (OSError, http.client.HTTPException) as error:
        return f"no answer from port {port}: {str(error) or type(error).__name__}"
    finally:
        connection.close()
    return "" if status == http.HTTPStatus.OK else f"not ready: status {status}"


def main() -> int:
    """Ask the server that these settings describe."""
    try:
        server = load().server
    except UsageError as error:
        print(error, file=sys.stderr)
        return 2
    trouble = ask(server.host, server.port)
    print(trouble or "ready", file=sys.stderr if trouble else sys.stdout)
    return 1 if trouble else 0


if __name__ == "__main__":
    sys.exit(main())
