"""Models, the agents that call them, and the long-term memory that agents search."""

import sys

import msgspec

from app.agents.a2a.peers import A2APeers
from app.agents.catalog import AgentCatalog, ToolServices, graph_toolbox
from app.agents.config.agents_file import AgentsFile
from app.agents.langgraph.agent import GraphAgent
from app.agents.langgraph.store import GraphStore
from app.agents.langgraph.worker import GraphProject, GraphWorker
from app.agents.mcp.servers import McpServers
from app.base.errors import StartError
from app.features.store.index.maintenance import StoreMaintenance, VectorBackfill
from app.features.store.index.versions import build_versions
from app.features.store.operations import StoreOperations
from app.features.store.service import StoreService
from app.features.threads.graph_threads import ThreadOperations
from app.infra.settings.environment import Settings
from app.infra.telemetry.tool_calls import ToolCallRecorder
from app.providers.embeddings.registry import build_embedder
from app.providers.llm.registry import ModelRegistry
from app.security.access.structs import ActingUser
from app.server.composition.documents import DocumentServices
from app.server.composition.persistence import Persistence
from app.server.composition.telemetry import Telemetry


class LongTermMemory(msgspec.Struct, frozen=True):
    """The store, what maintains it in the background, and the documents whose chunks it holds."""

    store: StoreService
    maintenance: StoreMaintenance
    documents: DocumentServices


class RemoteTools(msgspec.Struct, frozen=True):
    """Where tools are that other programs run: MCP servers, and other agents."""

    servers: McpServers
    peers: A2APeers


class AgentRuntime(msgspec.Struct, frozen=True):
    """What agents run with."""

    models: ModelRegistry
    catalog: AgentCatalog
    memory: LongTermMemory
    graphs: GraphWorker | None
    remote: RemoteTools


def build_models(settings: Settings, telemetry: Telemetry, persistence: Persistence) -> ModelRegistry:
    """Build the registry of the vendors whose keys are set."""
    return ModelRegistry(
        settings.llm,
        telemetry.meters,
        secrets=persistence.secrets,
        tracer=telemetry.tracer,
        answers=persistence.caches.answers,
    )


def build_agents(
    agents: AgentsFile,
    models: ModelRegistry,
    telemetry: Telemetry,
    persistence: Persistence,
    acting: ActingUser,
    remote: RemoteTools,
) -> AgentRuntime:
    """Build the agents of the file, over the memory of the user that ``acting`` names and with ``remote`` tools."""
    database, shelf = persistence.database, persistence.caches.embeddings
    versions = build_versions(
        database, agents, lambda name, dimensions: build_embedder(name, dimensions, models, shelf)
    )
    store = StoreService(database, versions, agents.store)
    documents = DocumentServices(database, store, acting)
    memory = LongTermMemory(store, StoreMaintenance(database, VectorBackfill(database, versions)), documents)
    recorder = ToolCallRecorder(*telemetry.recorder)
    worker = graph_worker(agents)
    store_of_graphs = GraphStore(
        StoreOperations(store, acting), ThreadOperations(database, acting, persistence.state_bytes)
    )
    services = ToolServices(recorder, documents.library, remote.servers, remote.peers)
    graphs = {
        name: GraphAgent(
            name,
            worker,
            store_of_graphs,
            seconds=spec.limits.seconds,
            description=spec.description,
            toolbox=graph_toolbox(name, spec, agents, services),
        )
        for name, spec in agents.agents.items()
        if worker is not None and spec.graph
    }
    catalog = AgentCatalog(agents, models.model, services, documents.agents, graphs)
    return AgentRuntime(models, catalog, memory, worker, remote)


def graph_worker(agents: AgentsFile) -> GraphWorker | None:
    """Return the process that runs the file's graphs; None if it has none. Raises ``StartError``."""
    graphs = {name: spec.graph for name, spec in agents.agents.items() if spec.graph}
    if not graphs:
        return None
    folder, how = agents.folder, agents.graphs
    try:
        environment = how.environment(folder)
    except StartError as error:
        raise StartError(f"{agents.source}: {error}") from error
    return GraphWorker(
        GraphProject(
            graphs=graphs,
            folder=folder,
            python=how.interpreter(folder) or sys.executable,
            paths=how.paths(folder),
            environment=environment,
        )
    )
