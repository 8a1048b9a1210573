"""What every protocol's controller works with."""

from typing import NamedTuple

from app.features.assistants.service import AssistantService
from app.features.runs.service import RunService
from app.features.threads.service import ThreadService
from app.infra.http.open_streams import OpenStreams
from app.protocols.projection import ProjectedRuns


class ProtocolGateway(NamedTuple):
    """The services behind the protocols, the projections of runs, and the open responses of this process."""

    assistants: AssistantService
    threads: ThreadService
    runs: RunService
    projections: ProjectedRuns
    streams: OpenStreams
