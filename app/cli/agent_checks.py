"""Build the parts of an agents file as a server does at start-up, to validate them."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial

from app.agents.catalog import build
from app.agents.config.agents_file import AgentsFile
from app.agents.config.store_index import StoreSpec
from app.base.errors import StartError
from app.features.access.custom_auth import handlers_of
from app.features.store.index.versions import validate_indexes
from app.infra.settings.environment import Settings
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tool_calls import ToolCallRecorder
from app.infra.telemetry.tracing import NO_TRACER
from app.providers.embeddings.registry import build_embedder
from app.providers.llm.registry import ModelRegistry
from app.server.composition.models import graph_worker

Check = Callable[[], object]
"""Builds one part. Raises the ``AgentServiceError`` that a server would raise at start-up."""


def agent_checks(
    settings: Settings, file: AgentsFile, models: ModelRegistry, meters: Meters, broken: Mapping[str, str] = {}
) -> Iterator[tuple[str, Check]]:
    """Yield the name and check of each agent of ``file``, then of ``[store]`` and ``[auth]`` if present.

    ``broken``: why graphs cannot be used, by name (``broken_graphs``).
    """
    calls = ToolCallRecorder(meters, NO_TRACER)
    for name, spec in file.agents.items():
        if spec.graph:
            yield name, partial(_check_graph, broken.get(name, ""), file.source)
        else:
            yield name, partial(build, name, spec, file, models.model, calls)
    if file.store != StoreSpec():
        yield "[store]", lambda: validate_indexes(file, lambda name, size: build_embedder(name, size, models))
    if file.auth is not None:
        yield "[auth]", lambda: handlers_of(file, settings.auth.mode)


def _check_graph(reason: str, source: str) -> None:
    if reason:
        raise StartError(f"{source}: {reason}")


async def broken_graphs(file: AgentsFile) -> dict[str, str]:
    """Load the graphs of ``file`` in their process; return why some cannot be used, by name."""
    worker = graph_worker(file)
    if worker is None:
        return {}
    worker.start()
    try:
        await worker.wait()
        return {name: graph.error for name, graph in worker.graphs.items() if graph.error}
    finally:
        await worker.aclose()
