"""What every protocol's controller works with."""

from typing import Any, NamedTuple

from litestar.di import NamedDependency

from app.features.assistants.service import AssistantService
from app.features.runs.chain import RunChains
from app.features.runs.service import RunService
from app.features.threads.service import ThreadService
from app.features.webhooks.push import PushConfigs
from app.infra.http.open_streams import OpenStreams
from app.protocols.projection import ProjectedRuns

OBSERVABLE: list[Any] = ["values", "updates", "messages-tuple", "custom"]
"""Stream modes of runs that come in by a protocol: every other one, and LangGraph's clients, can follow them."""


class ProtocolGateway(NamedTuple):
    """The services behind the protocols, the projections of runs, and the open responses of this process."""

    assistants: AssistantService
    threads: ThreadService
    runs: RunService
    chains: RunChains
    push: PushConfigs
    projections: ProjectedRuns
    streams: OpenStreams


Gateway = NamedDependency[ProtocolGateway]
"""What a handler asks for by the name ``gateway``."""
