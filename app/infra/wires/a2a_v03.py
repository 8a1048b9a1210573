"""Version 0.3 of A2A for old peers: other names of methods, states in lower case, ``kind`` members.

Source: https://a2a-protocol.org/v0.3.0/specification/
"""

from typing import Any

from app.base.errors import Invalid

METHODS = {
    "message/send": "SendMessage",
    "message/stream": "SendStreamingMessage",
    "tasks/get": "GetTask",
    "tasks/cancel": "CancelTask",
    "tasks/resubscribe": "SubscribeToTask",
    "agent/getAuthenticatedExtendedCard": "GetExtendedAgentCard",
    "tasks/pushNotificationConfig/set": "CreateTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/get": "GetTaskPushNotificationConfig",
    "tasks/pushNotificationConfig/list": "ListTaskPushNotificationConfigs",
    "tasks/pushNotificationConfig/delete": "DeleteTaskPushNotificationConfig",
}
"""Methods of version 1.0 by their names in 0.3."""
OLD_METHODS = {new: old for old, new in METHODS.items()}

_ROLES = {"user": "ROLE_USER", "agent": "ROLE_AGENT"}
_OLD_ROLES = {new: old for old, new in _ROLES.items()}
TERMINAL = {"completed", "failed", "canceled", "rejected", "input-required", "auth-required"}
"""States after which a stream ends."""


def params_of(method: str, given: Any) -> Any:
    """Return parameters of a method of version 1.0 in the form of that version. Raises ``Invalid``."""
    if not isinstance(given, dict):
        return given
    if method == "CreateTaskPushNotificationConfig":
        return {**_push_config(given.get("pushNotificationConfig")), "taskId": given.get("taskId")}
    if "PushNotificationConfig" in method:
        which = given.get("pushNotificationConfigId")
        return {"taskId": given.get("id"), **({} if which is None else {"id": which})}
    if "message" not in given:
        return given
    made = {**given, "message": _message(given["message"])}
    configuration = given.get("configuration")
    if isinstance(configuration, dict):
        blocking = configuration.get("blocking")
        new = {name: one for name, one in configuration.items() if name not in {"blocking", "pushNotificationConfig"}}
        if configuration.get("pushNotificationConfig") is not None:
            new["taskPushNotificationConfig"] = _push_config(configuration["pushNotificationConfig"])
        made["configuration"] = {**new, "returnImmediately": blocking is False}
    return made


def _push_config(given: Any) -> dict[str, Any]:
    """Return a push configuration of version 1.0, which has one scheme. Raises ``Invalid``."""
    if not isinstance(given, dict):
        raise Invalid.at("pushNotificationConfig is an object with a url.", "/pushNotificationConfig")
    authentication = given.get("authentication")
    if not isinstance(authentication, dict):
        return given
    schemes = authentication.get("schemes")
    made = {name: one for name, one in authentication.items() if name != "schemes"}
    return {
        **given,
        "authentication": {**made, "scheme": schemes[0]} if isinstance(schemes, list) and schemes else made,
    }


def _old_push_config(config: dict[str, Any]) -> dict[str, Any]:
    made = {name: one for name, one in config.items() if name != "taskId"}
    if authentication := config.get("authentication"):
        made["authentication"] = {"schemes": [authentication["scheme"]]}
    return {"taskId": config["taskId"], "pushNotificationConfig": made}


def _message(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    made = {name: one for name, one in _with_parts(given).items() if name != "kind"}
    made["role"] = _ROLES.get(str(given.get("role")), given.get("role"))
    return made


def _with_parts(given: Any) -> Any:
    """Return a message or artifact with parts of version 1.0."""
    if not isinstance(given, dict) or not isinstance(given.get("parts"), list):
        return given
    return {**given, "parts": [_part(part, at) for at, part in enumerate(given["parts"])]}


def _part(given: Any, at: int) -> Any:
    if not isinstance(given, dict):
        return given
    common = {"metadata": given["metadata"]} if given.get("metadata") is not None else {}
    kind = given.get("kind")
    if kind == "text":
        return {"text": given.get("text"), **common}
    if kind == "data":
        return {"data": given.get("data"), **common}
    file = given.get("file")
    if kind != "file" or not isinstance(file, dict):
        raise Invalid.at("A part has the kind text, file or data.", f"/message/parts/{at}/kind")
    names = {"bytes": "raw", "uri": "url", "name": "filename", "mimeType": "mediaType"}
    return {names[name]: one for name, one in file.items() if name in names and one is not None} | common


def old_params(params: dict[str, Any]) -> dict[str, Any]:
    """Return parameters of a request to an old peer: those of SendMessage in the form of version 0.3."""
    if "message" not in params:
        return params
    configuration = dict(params.get("configuration") or {})
    blocking = not configuration.pop("returnImmediately", False)
    return {
        **params,
        "message": _old_message(params["message"]),
        "configuration": {**configuration, "blocking": blocking},
    }


def new_result(result: Any) -> Any:
    """Return an old peer's result, a task or a message, in the form of version 1.0. Raises ``Invalid``."""
    if not isinstance(result, dict) or result.get("kind") == "message":
        return _message(result)
    made = {name: one for name, one in result.items() if name != "kind"}
    made["status"] = _status(result.get("status"))
    for name, convert in (("artifacts", _with_parts), ("history", _message)):
        if isinstance(result.get(name), list):
            made[name] = [convert(one) for one in result[name]]
    return made


def _status(given: Any) -> Any:
    if not isinstance(given, dict):
        return given
    state = str(given.get("state")).upper().replace("-", "_")
    made = {**given, "state": f"TASK_STATE_{state}"}
    return {**made, "message": _message(given["message"])} if given.get("message") is not None else made


def result_of(method: str, result: Any) -> Any:
    """Return a result, or an event of a stream, in the form of version 0.3."""
    if not isinstance(result, dict) or method == "GetExtendedAgentCard":
        return result  # a card is made in its version
    if method == "ListTaskPushNotificationConfigs":
        return [_old_push_config(one) for one in result["configs"]]
    if method == "DeleteTaskPushNotificationConfig":
        return None
    if "PushNotificationConfig" in method:
        return _old_push_config(result)
    if "task" in result:
        return old_task(result["task"])
    if "message" in result:
        return _old_message(result["message"])
    if "statusUpdate" in result:
        update = result["statusUpdate"]
        status = _old_status(update["status"])
        return {**update, "kind": "status-update", "status": status, "final": status["state"] in TERMINAL}
    if "artifactUpdate" in result:
        update = result["artifactUpdate"]
        return {**update, "kind": "artifact-update", "artifact": _old_artifact(update["artifact"])}
    return old_task(result)


def old_task(task: dict[str, Any]) -> dict[str, Any]:
    """Return a task in the form of version 0.3."""
    made = {**task, "kind": "task", "status": _old_status(task["status"])}
    if "artifacts" in task:
        made["artifacts"] = [_old_artifact(one) for one in task["artifacts"]]
    if "history" in task:
        made["history"] = [_old_message(one) for one in task["history"]]
    return made


def _old_status(status: dict[str, Any]) -> dict[str, Any]:
    made = {**status, "state": status["state"].removeprefix("TASK_STATE_").lower().replace("_", "-")}
    if "message" in status:
        made["message"] = _old_message(status["message"])
    return made


def _old_message(message: dict[str, Any]) -> dict[str, Any]:
    parts = [_old_part(part) for part in message["parts"]]
    return {**message, "kind": "message", "role": _OLD_ROLES[message["role"]], "parts": parts}


def _old_artifact(artifact: dict[str, Any]) -> dict[str, Any]:
    return {**artifact, "parts": [_old_part(part) for part in artifact["parts"]]}


def _old_part(part: dict[str, Any]) -> dict[str, Any]:
    common = {"metadata": part["metadata"]} if "metadata" in part else {}
    if "text" in part:
        return {"kind": "text", "text": part["text"], **common}
    if "data" in part:
        data = part["data"]
        return {"kind": "data", "data": data if isinstance(data, dict) else {"value": data}, **common}
    names = {"raw": "bytes", "url": "uri", "filename": "name", "mediaType": "mimeType"}
    return {"kind": "file", "file": {names[name]: one for name, one in part.items() if name in names}, **common}
