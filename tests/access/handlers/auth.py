"""Typical handlers: a user's token is its name, and every resource has an owner."""

from typing import Any

from langgraph_sdk import Auth

auth = Auth()


@auth.authenticate
async def authenticate(authorization: str | None, method: str, path: str, headers: dict[bytes, bytes]) -> Any:
    if key := headers.get(b"x-api-key"):
        authorization = f"Bearer {key.decode()}"
    assert authorization
    scheme, _, token = authorization.partition(" ")
    assert scheme.lower() == "bearer"
    if token == "crash":
        raise RuntimeError(f"no such token: {token}-SECRET")
    if token == "teapot":
        raise Auth.exceptions.HTTPException(status_code=418, detail="I am a teapot", headers={"X-Tea": "green"})
    if token == "away":
        raise Auth.exceptions.HTTPException(status_code=401, detail="The token has expired.")
    assert path.startswith("/")
    return {
        "identity": token,
        "display_name": token.capitalize(),
        "permissions": [f"{method}:x"],
        "org": f"org of {token}",
        "provider_token": f"{token}-PROVIDER-SECRET",
        "lock": object(),
    }


@auth.on
async def own(ctx: Auth.types.AuthContext, value: dict[str, Any]) -> Any:
    """Stamp created resources and filter the others, as the LangGraph documentation recommends."""
    mine = {"owner": ctx.user.identity}
    value.setdefault("metadata", {}).update(mine)
    return mine


@auth.on.threads.create_run
async def run(ctx: Auth.types.AuthContext, value: Any) -> Any:
    kwargs = value["kwargs"]
    if kwargs["config"].get("configurable", {}).get("costly") or kwargs["context"].get("costly"):
        raise Auth.exceptions.HTTPException(status_code=402, detail="Not in your plan.")
    return await own(ctx, value)


@auth.on.store
async def store(ctx: Auth.types.AuthContext, value: Any) -> None:
    namespace = tuple(value["namespace"] or ())
    if not namespace or namespace[0] != ctx.user.identity:
        value["namespace"] = (ctx.user.identity, *namespace)
