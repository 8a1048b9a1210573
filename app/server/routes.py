"""All controllers in reading order: the API's table of contents."""

from litestar import Controller

from app.console.controller import ConsoleController, ContentsController
from app.features.assistants.controller import AssistantsController
from app.features.crons.controller import CronsController
from app.features.documents.controller import DocumentsController
from app.features.runs.controller import RunsController
from app.features.store.controller import StoreController
from app.features.system.audit_controller import AuditController
from app.features.system.controller import AccessController, MetricsController, SystemController
from app.features.system.operation_controller import OperationController
from app.features.threads.controller import ThreadsController
from app.features.webhooks.controller import WebhooksController
from app.protocols.a2a.controller import A2AController, AgentCardController
from app.protocols.ag_ui.controller import AGUIController
from app.protocols.ag_ui.copilotkit import CopilotKitController
from app.protocols.ai_sdk.controller import AISDKController
from app.protocols.langgraph_v2.controller import ThreadProtocolController
from app.protocols.mcp.controller import McpController
from app.protocols.mcp.resource_metadata import ResourceMetadataController
from app.protocols.mcp.sign_in import McpSignInController
from app.protocols.openai.controller import OpenAIController
from app.protocols.openai.responses.controller import ResponsesController
from app.protocols.openai.responses.conversations import ConversationsController

BASE_PATH = "/api/v1"

CONTROLLERS: tuple[type[Controller], ...] = (
    AssistantsController,
    ThreadsController,
    RunsController,
    ThreadProtocolController,
    CronsController,
    StoreController,
    DocumentsController,
    WebhooksController,
    OperationController,
    AuditController,
    AccessController,
    SystemController,
)
"""Controllers below the base path."""

PROTOCOLS: tuple[type[Controller], ...] = (
    AGUIController,
    AgentCardController,
    A2AController,
    AISDKController,
    CopilotKitController,
    McpController,
    McpSignInController,
    OpenAIController,
    ResourceMetadataController,
    ResponsesController,
    ConversationsController,
)
"""Controllers of other protocols, outside the base path."""


def controllers_of(role: str) -> tuple[type[Controller], ...]:
    """Return the controllers of a role; a process that only executes runs serves its health."""
    return (SystemController,) if role == "worker" else CONTROLLERS


def root_controllers_of(role: str, *, metrics: bool, console: bool) -> tuple[type[Controller], ...]:
    """Return the controllers outside the base path; ``metrics``: served here, not on a port of their own."""
    shown = (MetricsController,) if metrics else ()
    return shown if role == "worker" else (*shown, ConsoleController if console else ContentsController, *PROTOCOLS)
