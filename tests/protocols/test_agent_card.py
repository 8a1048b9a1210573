"""Signed agent cards, verified by libraries that did not sign them, and their addresses."""

import base64
import json
from typing import Any

import pytest
import rfc8785
from joserfc import jws
from joserfc.errors import BadSignatureError
from joserfc.jwk import ECKey, KeySet

from app.base.errors import UsageError
from tests.system.services import Service, built, serving

KEY = "1f" * 32
CARD = "/a2a/echo/.well-known/agent-card.json"
PUBLIC = "https://agents.example.com/all"


async def card_of(service: Service, prefix: str = "", **headers: str) -> tuple[dict[str, Any], str]:
    answer = await service.client.get(f"{prefix}{CARD}", headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.json(), answer.headers["etag"]


OLD = {"url", "preferredTransport", "protocolVersion", "supportsAuthenticatedExtendedCard", "security"}
"""Members of a card that version 1.0 does not have."""


def known_to_1_0(card: dict[str, Any]) -> dict[str, Any]:
    """Return a card as SDKs of version 1.0 keep it."""
    schemes = {
        name: {member: value for member, value in scheme.items() if member.endswith("SecurityScheme")}
        for name, scheme in card["securitySchemes"].items()
    }
    return {name: one for name, one in card.items() if name not in OLD} | {"securitySchemes": schemes}


def token_of(card: dict[str, Any], at: int = 0) -> str:
    """Return a signature of a card as a compact token, whose payload is the card without its signatures."""
    signature = card["signatures"][at]
    unsigned = {name: value for name, value in card.items() if name != "signatures"}
    payload = base64.urlsafe_b64encode(rfc8785.dumps(unsigned)).rstrip(b"=").decode()
    return f"{signature['protected']}.{payload}.{signature['signature']}"


def is_empty(value: Any) -> bool:
    members = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
    return value in ("", [], {}) or any(map(is_empty, members))


async def test_a_card_is_signed_by_the_key_that_the_server_publishes(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="api_key", AGENT_CARD_KEY=KEY, ROOT_PATH="/agents") as service:
        card, tag = await card_of(service, "/agents")
        keys = (await service.client.get("/agents/a2a/jwks.json")).json()
        assert {one["url"] for one in card["supportedInterfaces"]} == {"http://localhost/agents/a2a/echo"}
        assert not is_empty(card)  # verifiers leave out what is empty
        header = json.loads(base64.urlsafe_b64decode(card["signatures"][0]["protected"] + "=="))
        assert header["jku"] == "http://localhost/agents/a2a/jwks.json"
        assert header["kid"] == ECKey.import_key(keys["keys"][0]).thumbprint()
        verified = jws.deserialize_compact(token_of(card), KeySet.import_key_set(keys), algorithms=["ES256"])
        assert json.loads(verified.payload)["name"] == "echo"
        new = token_of(known_to_1_0(card), 1)
        of_1_0, _ = await card_of(service, "/agents", **{"A2A-Version": "1.0"})
        assert known_to_1_0(card) | {"signatures": of_1_0["signatures"]} == of_1_0
        for token in (new, token_of(of_1_0)):
            jws.deserialize_compact(token, KeySet.import_key_set(keys), algorithms=["ES256"])
        changes: list[dict[str, Any]] = [{"name": "other"}, {"url": "https://elsewhere.example"}, {"skills": []}]
        for changed in changes:
            with pytest.raises(BadSignatureError):
                jws.deserialize_compact(token_of({**card, **changed}), KeySet.import_key_set(keys), ["ES256"])
        for known, status in ((tag, 304), (f'"x", {tag}', 304), ("*", 304), ('"x"', 200)):
            again = await service.client.get(f"/agents{CARD}", headers={"if-none-match": known})
            assert (again.status_code, again.headers["etag"]) == (status, tag)
        assert (await service.client.get("/agents/.well-known/agent-card.json")).json()["supportedInterfaces"]


async def test_another_key_or_address_makes_another_card(database_url: str) -> None:
    async with serving(database_url, AGENT_AUTH="none") as service:
        unsigned, first = await card_of(service)
        assert "signatures" not in unsigned
        assert (await service.client.get("/a2a/jwks.json")).json() == {"keys": []}
    async with serving(database_url, AGENT_AUTH="none", AGENT_CARD_KEY=KEY, AGENT_PUBLIC_URL=PUBLIC) as service:
        card, second = await card_of(service)
        assert second != first
        assert card["supportedInterfaces"][0]["url"] == f"{PUBLIC}/a2a/echo"
        old = await service.client.get(CARD, headers={"A2A-Version": "0.3"})
        assert old.json()["url"] == f"{PUBLIC}/a2a/echo"
    for wrong in ("zz", "00" * 32, "ff" * 32, "1f" * 31):
        with pytest.raises(UsageError, match="openssl rand"):
            built(database_url, AGENT_CARD_KEY=wrong)
