"""The deployment under check."""

from app.cli.terminal.server_client import ServerClient


class DeployedServer(ServerClient):
    """A server, and the commands that show what its checks saw."""

    def curl(self, path: str, options: str = "") -> str:
        """Return the equivalent curl command."""
        return f"curl -sS {options}{' ' * bool(options)}'{self.url}{path}'"
