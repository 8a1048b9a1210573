"""What a server builds from the agents file when it starts, part by part, for commands that look for mistakes."""

from collections.abc import Callable, Iterator
from functools import partial

from app.access.people import handlers_of
from app.agents.catalog import build
from app.agents.config import AgentsFile
from app.agents.memory import StoreSpec
from app.embed.registry import embedder_of
from app.llm.registry import Registry
from app.settings import Settings
from app.store.versions import checked_indexes
from app.telemetry.meters import Meters
from app.telemetry.tools import ToolCalls
from app.telemetry.tracing import NO_TRACER

Check = Callable[[], object]
"""Builds one part. Raises ``AgentServiceError`` as the start of a server would."""


def agent_checks(settings: Settings, file: AgentsFile, models: Registry, meters: Meters) -> Iterator[tuple[str, Check]]:
    """Each agent of ``file`` by name, then ``[store]`` and ``[auth]`` where the file has them, with its check."""
    calls = ToolCalls(meters, NO_TRACER)
    for name, spec in file.agents.items():
        yield name, partial(build, name, spec, file, models.model, calls)
    if file.store != StoreSpec():
        yield "[store]", lambda: checked_indexes(file, lambda name, size: embedder_of(name, size, models))
    if file.auth is not None:
        yield "[auth]", lambda: handlers_of(file, settings.auth.mode)
