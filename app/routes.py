"""Every controller in reading order: the API's table of contents."""

from litestar import Controller

from app.access.controller import AccessController
from app.assistants.controller import AssistantsController
from app.audit.controller import AuditController
from app.crons.controller import CronsController
from app.documents.controller import DocumentsController
from app.runs.controller import RunsController
from app.store.controller import StoreController
from app.system.controller import MetricsController, SystemController
from app.system.later import LaterController
from app.threads.controller import ThreadsController
from app.webhooks.controller import WebhooksController

BASE_PATH = "/api/v1"

CONTROLLERS: tuple[type[Controller], ...] = (
    AssistantsController,
    ThreadsController,
    RunsController,
    CronsController,
    StoreController,
    DocumentsController,
    WebhooksController,
    AuditController,
    AccessController,
    SystemController,
    LaterController,
)
"""Below the base path."""


def controllers_of(role: str) -> tuple[type[Controller], ...]:
    """What a process of this role serves: one that only executes runs tells of its health."""
    return (SystemController,) if role == "worker" else CONTROLLERS


def root_controllers_of(metrics: bool) -> tuple[type[Controller], ...]:
    """What is served beside the base path; ``metrics``: whether they have no port of their own."""
    return (MetricsController,) if metrics else ()
