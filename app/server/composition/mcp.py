"""The Model Context Protocol's server side."""

from app.agents.config.agents_file import AgentsFile
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
    """Build it. What clients keep is sealed under the pepper of keys; without one, under the database's address.

    Both are known to every process and survive its restart. Without keys the seal protects from accidents alone: what
    is sealed grants nothing.
    """
    keys = persistence.secrets.rotating("AGENT_KEY_PEPPER", "AGENT_KEY_PEPPER_SECONDARY").good
    if settings.auth.key_pepper is None:
        sealed_under = settings.database.url or Secret("")

        def keys() -> tuple[Secret, ...]:
            return (sealed_under,)

    server = McpServer(gateway.streams, Sealer(keys), "agent-service", version())
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
