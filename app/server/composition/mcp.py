"""The Model Context Protocol's server side."""

from collections.abc import Callable, Sequence

from app.agents.config.agents_file import AgentsFile
from app.base.errors import StartError
from app.features.system.service import version
from app.infra.http.host_and_cors import OriginRule
from app.infra.secrets.secret import Secret
from app.infra.settings.environment import Settings
from app.protocols.gateway import ProtocolGateway
from app.protocols.mcp.admin import AdminSurface
from app.protocols.mcp.agents import AgentTools
from app.protocols.mcp.controller import McpParts
from app.protocols.mcp.documentation import Documentation
from app.protocols.mcp.resources import StoredResources
from app.protocols.mcp.sealing import Sealer
from app.protocols.mcp.server import McpServer
from app.server.composition.features import Features
from app.server.composition.persistence import Persistence


def build_mcp(
    settings: Settings, file: AgentsFile, persistence: Persistence, features: Features, gateway: ProtocolGateway
) -> McpParts:
    """Build it."""
    server = McpServer(gateway.streams, Sealer(sealing_keys(settings, persistence)), "agent-service", version())
    tools = AgentTools(gateway)
    return McpParts(
        server=server,
        gateway=gateway,
        tools=tools,
        resources=StoredResources(features.threads, features.documents, features.store),
        prompts={name: spec.instructions for name, spec in file.agents.items() if spec.instructions},
        admin=AdminSurface(gateway, tools, Documentation()) if settings.server.mcp_admin == "on" else None,
        records=persistence.audit,
        origins=OriginRule(settings.server.cors_origins),
    )


def sealing_keys(settings: Settings, persistence: Persistence) -> Callable[[], Sequence[Secret]]:
    """Return the secrets that seal what clients keep, and accounts: the pepper of keys, else the database's address.

    Both are known to every process and survive its restart. Without a pepper the seal of what clients keep protects
    from accidents alone, which suffices, as it grants nothing.
    """
    if settings.auth.key_pepper is not None:
        return persistence.secrets.rotating("AGENT_KEY_PEPPER", "AGENT_KEY_PEPPER_SECONDARY").good
    secrets = sealing_secrets(settings)
    return lambda: secrets


def sealing_secrets(settings: Settings) -> Sequence[Secret]:
    """Return what ``sealing_keys`` returns, as it is in the settings now."""
    peppers = [one for one in (settings.auth.key_pepper, settings.auth.key_pepper_secondary) if one is not None]
    return peppers or [settings.database.url or Secret("")]


def check_accounts(settings: Settings, file: AgentsFile) -> None:
    """Raise ``StartError`` if tokens of people would be encrypted under an address alone, in production."""
    names = [name for name, spec in file.mcp.items() if spec.oauth is not None]
    if names and settings.auth.key_pepper is None and settings.server.environment == "production":
        raise StartError(f"AGENT_KEY_PEPPER encrypts the accounts of people at the MCP server {names[0]!r}: set it")


def own_address(settings: Settings) -> str:
    """Return the URL at which browsers reach this server."""
    server = settings.server
    return server.public_url or f"http://127.0.0.1:{server.port}{server.root_path}"
