"""The composition root: settings in, the House out. The only place that picks adapters and connects rooms."""

from pathlib import Path

import msgspec

from app.access.service import AccessService
from app.agents.catalog import Catalog
from app.assistants.service import AssistantService
from app.base.ids import new_id
from app.db.engine import Database
from app.llm.registry import Registry
from app.runs.claims import Claims
from app.runs.journal import Journal
from app.runs.service import RunService
from app.runs.supervisor import Supervisor
from app.settings import Settings
from app.system.prober import Prober
from app.system.state import Readiness
from app.telemetry.meters import Meters
from app.threads.service import ThreadService


class House(msgspec.Struct, frozen=True, kw_only=True):
    """Every live object of one worker, connected but not yet started (``app.lifespan`` does that)."""

    settings: Settings
    meters: Meters
    readiness: Readiness
    database: Database
    models: Registry
    catalog: Catalog
    journal: Journal
    claims: Claims
    supervisor: Supervisor
    access: AccessService
    assistants: AssistantService
    threads: ThreadService
    runs: RunService
    prober: Prober


def build(settings: Settings) -> House:
    """Connect the rooms as ``settings`` says. Raises ``StartError`` for what cannot work."""
    raise NotImplementedError(Path)
