"""Examples of bodies and parameters, as the API page offers them to be tried.

In the order of ``BODIES`` each works as it stands, from creation to deletion. Ids that the server chooses (of runs,
crons, documents, checkpoints) are those of a previous response.
"""

from typing import Any

THREAD = "5d0c2f6e-8f5b-4b6c-9c36-0d6a4f3c2b1a"
ASSISTANT = "7c9e6679-7425-40de-944b-e07fc1f90ae7"
_MESSAGE = {"messages": [{"role": "user", "content": "What is 12*(3+4)?"}]}
_RUN = {"assistant_id": "assistant", "input": _MESSAGE}
_ON_THREAD = "/api/v1/threads/{thread_id}"

_MCP = {
    "jsonrpc": "2.0",
    "id": 1,
    "method": "initialize",
    "params": {
        "protocolVersion": "2025-11-25",
        "capabilities": {},
        "clientInfo": {"name": "example", "version": "1.0"},
    },
}

_AG_UI: dict[str, Any] = {
    "messages": [{"id": "m-1", "role": "user", "content": "What is 12*(3+4)?"}],
    "tools": [],
    "context": [],
}
_SENT = {"message": {"messageId": "m-1", "role": "ROLE_USER", "parts": [{"text": "What is 12*(3+4)?"}]}}
_ITEM = {"type": "message", "role": "user", "content": "Good morning"}

PARAMETERS = {
    "agent": "assistant",
    "assistant": "assistant",
    "assistant_id": ASSISTANT,
    "chat_id": "chat-1",
    "checkpoint_id": "01a22d1a-9607-7624-9cde-13f5af44c30d",
    "config_id": "c-1",
    "conversation_id": "conv_01a22d1a956871498b1bb17156a562e5",
    "cron_id": "01a22d1a-95e2-759a-a1ca-ccdac139ed08",
    "document_id": "01a22d21-8e4c-7775-9b50-c048ea46b454",
    "item_id": "msg_01a22d1a956871498b1bb17156a562e5",
    "key": "favourites",
    "model": "assistant",
    "namespace": "users",
    "response_id": "resp_01a22d1a956871498b1bb17156a562e5",
    "schedule": "0 9 * * 1-5",
    "run_id": "01a22d1c-b202-7287-b25d-1ec4756fafc4",
    "task_id": "01a22d1c-b202-7287-b25d-1ec4756fafc4",
    "thread_id": THREAD,
}
"""Values of parameters in paths, and of required ones in queries."""

BODIES: dict[tuple[str, str], Any] = {
    ("POST", "/api/v1/assistants"): {
        "graph_id": "assistant",
        "assistant_id": ASSISTANT,
        "name": "Brief assistant",
        "config": {"recursion_limit": 10},
        "if_exists": "do_nothing",
    },
    ("PATCH", "/api/v1/assistants/{assistant_id}"): {"metadata": {"team": "support"}},
    ("POST", "/api/v1/assistants/search"): {"graph_id": "assistant", "limit": 5},
    ("POST", "/api/v1/assistants/count"): {"graph_id": "assistant"},
    ("POST", "/api/v1/assistants/{assistant_id}/versions"): {"limit": 5},
    ("POST", "/api/v1/assistants/{assistant_id}/latest"): {"version": 1},
    ("POST", "/api/v1/threads"): {
        "thread_id": THREAD,
        "metadata": {"customer": "17"},
        "if_exists": "do_nothing",
    },
    ("PATCH", _ON_THREAD): {"metadata": {"topic": "arithmetic"}},
    ("POST", f"{_ON_THREAD}/runs"): _RUN,
    ("POST", f"{_ON_THREAD}/runs/wait"): _RUN,
    ("POST", f"{_ON_THREAD}/runs/stream"): {**_RUN, "stream_mode": ["messages-tuple", "updates"]},
    ("POST", "/api/v1/runs"): {**_RUN, "after_seconds": 60},
    ("POST", "/api/v1/runs/wait"): {"assistant_id": "echo", "input": "Good morning"},
    ("POST", "/api/v1/runs/stream"): {**_RUN, "stream_mode": "updates"},
    ("POST", "/api/v1/runs/batch"): [{"assistant_id": "echo", "input": text} for text in ("one", "two")],
    ("POST", "/api/v1/runs/search"): {"status": ["success", "error"], "limit": 5},
    ("POST", "/api/v1/runs/cancel"): {"status": "pending"},
    ("POST", "/api/v1/threads/search"): {"metadata": {"customer": "17"}, "limit": 5},
    ("POST", "/api/v1/threads/count"): {"status": "idle"},
    ("POST", f"{_ON_THREAD}/state"): {"values": {"messages": [{"role": "user", "content": "And times two?"}]}},
    ("POST", f"{_ON_THREAD}/state/checkpoint"): {"checkpoint": {"thread_id": THREAD}},
    ("POST", f"{_ON_THREAD}/history"): {"limit": 5},
    ("POST", f"{_ON_THREAD}/commands"): {
        "id": 1,
        "method": "run.start",
        "params": {"assistant_id": "assistant", "input": _MESSAGE},
    },
    ("POST", f"{_ON_THREAD}/stream/events"): {"channels": ["lifecycle", "messages"]},
    ("POST", f"{_ON_THREAD}/stream"): {"channels": ["lifecycle", "values"]},
    ("POST", "/api/v1/runs/crons"): {
        "assistant_id": "assistant",
        "schedule": "0 9 * * 1-5",
        "timezone": "Europe/Berlin",
        "input": _MESSAGE,
    },
    ("POST", f"{_ON_THREAD}/runs/crons"): {"assistant_id": "assistant", "schedule": "30 7 * * *", "input": _MESSAGE},
    ("PATCH", "/api/v1/runs/crons/{cron_id}"): {"enabled": False},
    ("POST", "/api/v1/runs/crons/search"): {"assistant_id": "assistant", "limit": 5},
    ("POST", "/api/v1/runs/crons/count"): {"enabled": True},
    ("PUT", "/api/v1/store/items"): {
        "namespace": ["users", "ada"],
        "key": "favourites",
        "value": {"text": "Ada likes green tea."},
    },
    ("POST", "/api/v1/store/items/search"): {
        "namespace_prefix": ["users"],
        "query": "What does Ada drink?",
        "limit": 3,
    },
    ("POST", "/api/v1/store/namespaces"): {"prefix": ["users"], "max_depth": 2},
    ("DELETE", "/api/v1/store/items"): {"namespace": ["users", "ada"], "key": "favourites"},
    ("POST", "/api/v1/documents"): "Orders are sent within two days.",
    ("POST", "/api/v1/documents/search"): {"query": "When are orders sent?", "limit": 3},
    ("POST", "/ai-sdk/{assistant}/chat"): {
        "id": "chat-1",
        "messages": [{"id": "m-1", "role": "user", "parts": [{"type": "text", "text": "What is 12*(3+4)?"}]}],
        "trigger": "submit-message",
    },
    ("POST", "/ag-ui/{assistant}"): _AG_UI | {"threadId": "chat-2", "runId": "run-1"},
    ("POST", "/copilotkit/agent/{agent}/run"): _AG_UI | {"threadId": "chat-3", "runId": "run-2"},
    ("POST", "/copilotkit/agent/{agent}/connect"): _AG_UI | {"threadId": "chat-3", "runId": "run-3", "messages": []},
    ("POST", "/copilotkit"): {"method": "info"},
    ("POST", "/mcp"): _MCP,
    ("POST", "/mcp/{assistant}"): _MCP,
    ("POST", "/a2a/{assistant}"): {"jsonrpc": "2.0", "id": 1, "method": "SendMessage", "params": _SENT},
    ("POST", "/a2a/{assistant}/message:send"): _SENT,
    ("POST", "/a2a/{assistant}/message:stream"): _SENT,
    ("POST", "/a2a/{assistant}/tasks/{task_id}/pushNotificationConfigs"): {"url": "https://example.com/notifications"},
    ("POST", "/mcp/admin"): _MCP,
    ("POST", "/v1/responses"): {"model": "assistant", "input": "What is 12*(3+4)?"},
    ("POST", "/v1/responses/input_tokens"): {"model": "assistant", "input": "What is 12*(3+4)?"},
    ("POST", "/v1/responses/compact"): {"model": "assistant", "input": "We ship on Tuesday."},
    ("POST", "/v1/conversations"): {"metadata": {"customer": "17"}, "items": [_ITEM]},
    ("POST", "/v1/conversations/{conversation_id}"): {"metadata": {"customer": "18"}},
    ("POST", "/v1/conversations/{conversation_id}/items"): {"items": [_ITEM]},
    ("POST", "/v1/chat/completions"): {
        "model": "assistant",
        "messages": [{"role": "user", "content": "What is 12*(3+4)?"}],
        "stream": False,
    },
    ("POST", "/api/v1/threads/prune"): {"thread_ids": [THREAD], "strategy": "keep_latest"},
}
