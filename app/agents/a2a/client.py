"""Requests to one agent: to checked addresses only, without redirects, with bounded responses."""

from collections.abc import Mapping
from typing import Any, NamedTuple
from uuid import uuid4

import aiohttp
import msgspec
from yarl import URL

from app.agents.a2a.card import PeerCard
from app.agents.tools.remote import LostConnection, ServerAway, ServerError
from app.base.errors import Invalid
from app.base.json_scan import UNREADABLE_JSON
from app.infra.egress.addresses import AddressAllowlist, host_of
from app.infra.egress.client import AWAY, NOT_SENT, checked_session, failure_reason
from app.infra.wires.a2a_v03 import OLD_METHODS, new_result, old_params

MAX_RESPONSE_BYTES = 8 * 1024 * 1024
MAX_REASON_LENGTH = 500

_encode = msgspec.json.Encoder().encode


class _Response(NamedTuple):
    status: int
    headers: Mapping[str, str]
    body: bytes


class A2AClient:
    """Sends requests to the agent whose card is at ``url``, with ``headers``, which go before our own: ``A2A-Version``
    among them chooses the version of the card. A connection serves one request.

    All methods raise ``ServerAway`` if a request did not reach the agent, ``LostConnection`` if its outcome is not
    known, and ``ServerError`` for errors of the agent, which may not leave the host of its card.
    """

    def __init__(self, url: str, headers: Mapping[str, str], allowed: AddressAllowlist) -> None:
        self._url = url
        self._headers = headers
        self._allowed = allowed

    async def card(self, etag: str = "") -> tuple[bytes, str] | None:
        """Return the agent's card and its ETag; None if it has not changed since ``etag``."""
        headers = {"Accept": "application/json", "A2A-Version": "1.0"}
        response = await self._send("GET", self._url, headers | ({"If-None-Match": etag} if etag else {}))
        if response.status == 304:
            return None
        if response.status != 200:
            raise ServerError(f"its card at {self._url} was answered with status {response.status}")
        return response.body, response.headers.get("ETag", "")

    async def call(self, card: PeerCard, method: str, params: dict[str, Any]) -> Any:
        """Return the result of a method of version 1.0, in that version's form.

        Raises ``ServerError`` too if the agent is of version 0.3, which does not have the method.
        """
        old = card.version == "0.3"
        if old and method not in OLD_METHODS:
            raise ServerError(f"it speaks version 0.3 of A2A, which has no {method}")
        given = {**params, "tenant": card.tenant} if card.tenant else params
        request = {
            "jsonrpc": "2.0",
            "id": uuid4().hex,
            "method": OLD_METHODS[method] if old else method,
            "params": old_params(given) if old else given,
        }
        headers = {"Content-Type": "application/json", "Accept": "application/json", "A2A-Version": card.version}
        response = await self._send("POST", card.endpoint, headers, _encode(request))
        if response.status in {401, 403}:
            raise ServerError(f"it refuses our credentials with status {response.status}: check its headers")
        result = _result_of(response)
        if not old:
            return result
        try:
            made = new_result(result)
        except Invalid as error:
            raise ServerError(f"its answer does not follow the protocol: {error}") from None
        return {"message" if "messageId" in made else "task": made} if method == "SendMessage" else made

    async def _send(self, method: str, url: str, headers: Mapping[str, str], body: bytes | None = None) -> _Response:
        sent = {**headers, **self._headers, "Accept-Encoding": "identity"}
        try:
            async with (
                checked_session(host_of(url), self._allowed, force_close=True) as session,
                session.request(
                    method, URL(url, encoded=True), data=body, headers=sent, allow_redirects=False
                ) as response,
            ):
                if 300 <= response.status < 400 and response.status != 304:
                    raise ServerError("it redirects to another address, which is not followed: use its final address")
                if response.status in AWAY:
                    raise LostConnection(f"it answered with status {response.status}")
                if response.headers.get("Content-Encoding", "identity").lower() not in {"", "identity"}:
                    raise ServerError("it sent a compressed body, which was not asked for")
                return _Response(response.status, response.headers, await _read(response))
        except NOT_SENT as error:
            raise ServerAway(failure_reason(error)) from error
        except (aiohttp.ClientError, OSError) as error:
            raise LostConnection(f"the connection was lost: {failure_reason(error)}") from error


async def _read(response: aiohttp.ClientResponse) -> bytes:
    body = bytearray()
    async for chunk in response.content.iter_any():
        body += chunk
        if len(body) > MAX_RESPONSE_BYTES:
            raise ServerError(f"it sent more than {MAX_RESPONSE_BYTES} bytes")
    return bytes(body)


def _result_of(response: _Response) -> Any:
    """Return the result of a JSON-RPC response. Raises ``ServerError``."""
    try:
        answer = msgspec.json.decode(response.body)
    except UNREADABLE_JSON:
        answer = None
    if isinstance(answer, dict) and isinstance(answer.get("result"), dict):
        return answer["result"]
    error = answer.get("error") if isinstance(answer, dict) else None
    if not isinstance(error, dict):
        raise ServerError(f"its answer (status {response.status}) is not JSON-RPC")
    code = error.get("code")
    words = str(error.get("message") or "no reason was given")[:MAX_REASON_LENGTH]
    raise ServerError(words, code if isinstance(code, int) else 0)
