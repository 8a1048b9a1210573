"""Tokens of an issuer: principals of valid tokens, and refusal of invalid ones."""

import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import jwt
import pytest
import structlog

from app.base.errors import UsageError
from app.infra.settings.environment import check_serving, load
from app.security.access.jwks import JwksCache
from app.security.access.structs import DEFAULT_TENANT, ROLES, tenant_id_of
from tests.access.issuer import AUDIENCE, EC, ED, RSA, Issuer, jwk
from tests.system.services import API, PEPPER, Service, serving

pytestmark = pytest.mark.filterwarnings("ignore::jwt.warnings.InsecureKeyLengthWarning")


@pytest.fixture
async def issuer() -> AsyncIterator[Issuer]:
    async with Issuer() as issuer:
        yield issuer


@pytest.fixture
async def service(database_url: str, issuer: Issuer) -> AsyncIterator[Service]:
    async with serving(database_url, **settings(issuer)) as service:
        yield service


def settings(issuer: Issuer, **more: str) -> dict[str, Any]:
    return {
        "AGENT_AUTH": "jwt",
        "AGENT_JWT_ISSUER": issuer.url,
        "AGENT_JWT_AUDIENCE": AUDIENCE,
        "AGENT_JWT_TENANT_CLAIM": "org",
        "AGENT_JWT_ROLES_CLAIM": "realm.roles",
        **more,
    }


def good(issuer: Issuer, **changed: Any) -> str:
    return issuer.token(**{"org": "acme", "realm": {"roles": ["member", "something else"]}, **changed})


async def search(service: Service, token: str) -> int:
    """Return the status of a reading request."""
    headers = {"authorization": f"Bearer {token}"}
    return (await service.client.post(f"{API}/threads/search", json={}, headers=headers)).status_code


async def refresh(service: Service) -> None:
    """Refresh the keys, as every five minutes."""
    keys = service.services.auth.token_keys
    assert isinstance(keys, JwksCache)
    await keys._refresh()


async def test_a_token_of_the_issuer_stands_for_its_subject_tenant_and_roles(service: Service, issuer: Issuer) -> None:
    assert service.services.auth.authenticator is not None
    principal = await service.services.auth.authenticator.authenticate(good(issuer))
    assert (principal.tenant_id, principal.user_id, principal.key_id) == (tenant_id_of("acme"), "ada", None)
    assert principal.scopes == ROLES["member"]
    assert await search(service, good(issuer)) == 200


@pytest.mark.parametrize(
    "key, algorithm, key_id", [(EC, "ES256", "ec"), (ED, "EdDSA", "ed"), (RSA["rsa"], "RS256", "rsa")]
)
async def test_every_allowed_type_of_key_is_accepted(
    service: Service, issuer: Issuer, key: Any, algorithm: str, key_id: str
) -> None:
    assert await search(service, good(issuer, key=key, algorithm=algorithm, headers={"kid": key_id})) == 200


async def test_tokens_that_no_issuer_would_sign_are_refused(service: Service, issuer: Issuer) -> None:
    answers = {wrong: await search(service, token) for wrong, token in issuer.hostile().items()}
    assert {wrong: status for wrong, status in answers.items() if status != 401} == {}
    assert await search(service, good(issuer)) == 200


async def test_a_refusal_repeats_nothing_of_the_token(service: Service, issuer: Issuer) -> None:
    token = good(issuer, sub=None)
    answer = await service.get("/threads/unknown", token)
    assert answer.status_code == 401
    assert not any(part in answer.text for part in token.split("."))


@pytest.mark.parametrize(
    "changed", [{"org": None}, {"org": 7}, {"org": ""}, {"org": "a\nb"}, {"org": "x" * 500}, {"org": ["acme"]}]
)
async def test_a_token_without_a_tenant_is_refused(service: Service, issuer: Issuer, changed: Any) -> None:
    assert await search(service, good(issuer, **changed)) == 401


async def test_a_token_without_a_known_role_may_do_nothing(service: Service, issuer: Issuer) -> None:
    for roles in [[], ["unknown"], "", {"admin": True}, None, [["member"]]]:
        assert await search(service, good(issuer, realm={"roles": roles})) == 403


async def test_roles_may_be_a_string_of_words_and_add_up(service: Service, issuer: Issuer) -> None:
    assert service.services.auth.authenticator is not None
    token = good(issuer, realm={"roles": "read-only operator"})
    principal = await service.services.auth.authenticator.authenticate(token)
    assert principal.scopes == ROLES["operator"]


async def test_a_new_key_of_the_issuer_is_fetched_and_invented_key_ids_cause_no_fetch(
    service: Service, issuer: Issuer
) -> None:
    assert await search(service, good(issuer)) == 200
    asked = issuer.asked
    for number in range(20):
        assert await search(service, good(issuer, key=RSA["foreign"], headers={"kid": f"no {number}"})) == 401
    assert issuer.asked - asked <= 1


async def test_a_key_that_the_issuer_has_removed_is_refused(service: Service, issuer: Issuer) -> None:
    token = good(issuer)
    assert await search(service, token) == 200
    issuer.keys = [jwk(RSA["next"], "next")]
    await refresh(service)
    assert await search(service, token) == 401
    assert await search(service, good(issuer, key=RSA["next"], headers={"kid": "next"})) == 200


async def test_an_unavailable_issuer_is_harmless_while_its_keys_are_cached(service: Service, issuer: Issuer) -> None:
    assert await search(service, good(issuer)) == 200
    issuer.down = True
    await refresh(service)
    assert await search(service, good(issuer, sub="grace")) == 200


async def test_tokens_are_503_before_any_key_was_fetched(database_url: str, issuer: Issuer) -> None:
    issuer.down = True
    async with serving(database_url, **settings(issuer)) as service:
        assert await search(service, good(issuer)) == 503


async def test_without_claims_for_them_all_are_members_of_the_default_tenant(database_url: str, issuer: Issuer) -> None:
    more = {"AGENT_JWT_TENANT_CLAIM": "", "AGENT_JWT_ROLES_CLAIM": ""}
    async with serving(database_url, **settings(issuer, **more)) as service:
        assert service.services.auth.authenticator is not None
        principal = await service.services.auth.authenticator.authenticate(issuer.token())
        assert (principal.tenant_id, principal.scopes) == (DEFAULT_TENANT, ROLES["member"])


async def test_api_keys_are_accepted_in_addition_to_tokens_if_there_is_a_pepper(
    service: Service, issuer: Issuer
) -> None:
    key = await service.key("acme")
    made = await service.client.post(f"{API}/threads", json={}, headers={"authorization": f"Bearer {good(issuer)}"})
    assert (await service.get(f"/threads/{made.json()['thread_id']}", key)).status_code == 200


@pytest.mark.parametrize(
    "given, words",
    [
        ({}, "AGENT_JWT_ISSUER is not set"),
        ({"AGENT_JWT_ISSUER": "https://a.example"}, "AGENT_JWT_AUDIENCE is not set"),
        ({"AGENT_JWT_ISSUER": "http://a.example"}, "AGENT_JWT_ISSUER must be"),
        ({"AGENT_JWT_ISSUER": "http://localhost.example"}, "AGENT_JWT_ISSUER must be"),
    ],
)
def test_a_server_without_a_trusted_issuer_does_not_start(given: dict[str, str], words: str) -> None:
    environment = {"DATABASE_URL": "postgresql://x/y", "AGENT_AUTH": "jwt", "AGENT_KEY_PEPPER": PEPPER, **given}
    with pytest.raises(UsageError, match=words):
        check_serving(load(environment, dotenv=Path("/dev/null")))


async def test_an_algorithm_that_shares_its_secret_cannot_be_allowed(database_url: str, issuer: Issuer) -> None:
    with pytest.raises(UsageError, match="AGENT_JWT_ALGORITHMS names 'HS256'"):
        async with serving(database_url, **settings(issuer, AGENT_JWT_ALGORITHMS="RS256, HS256")):
            pass


ODD: list[Any] = [
    "1",
    "inf",
    True,
    False,
    [],
    {},
    [1],
    1e308,
    -1,
    -1e308,
    10**400,
    2**63,
    float("inf"),
    float("nan"),
    "",
]


@pytest.mark.parametrize("claim", ["exp", "nbf", "iat"])
async def test_times_of_the_wrong_kind_or_size_are_401(service: Service, issuer: Issuer, claim: str) -> None:
    for odd in [*ODD, str(2**40), str(2.0**40)]:
        header, body, key = {"alg": "RS256", "kid": "rsa"}, {**issuer.claims(org="acme"), claim: odd}, RSA["rsa"]
        token = jwt.api_jws.encode(json.dumps(body).encode(), key, "RS256", headers=header)
        assert (await search(service, token), claim, odd) == (401, claim, odd)


async def test_other_claims_of_any_kind_fail_no_request(service: Service, issuer: Issuer) -> None:
    for claim in ["aud", "iss", "sub", "org", "realm"]:
        for odd in [
            *ODD,
            None,
            ["a", 1],
            [[AUDIENCE]],
            {"roles": {"member": 1}},
            {"roles": [{}, [], None]},
            "\ud800",
            "x" * 5000,
        ]:
            header, body, key = {"alg": "RS256", "kid": "rsa"}, {**issuer.claims(org="acme"), claim: odd}, RSA["rsa"]
            token = jwt.api_jws.encode(json.dumps(body).encode(), key, "RS256", headers=header)
            status = await search(service, token)
            assert status in ({401, 403} if claim != "realm" else {401, 403, 200}), (claim, odd, status)


@pytest.mark.parametrize(
    "changed, reason",
    [
        ({"jwks_uri": "http://keys.example/keys"}, "jwks_uri"),
        ({"jwks_uri": "ftp://127.0.0.1/keys"}, "jwks_uri"),
        ({"jwks_uri": "//127.0.0.1/keys"}, "jwks_uri"),
        ({"jwks_uri": None}, "jwks_uri"),
        ({"issuer": "https://elsewhere.example"}, "another issuer"),
        ({"issuer": None}, "another issuer"),
    ],
)
async def test_a_discovery_document_that_leads_to_other_keys_is_not_followed(
    issuer: Issuer, changed: dict[str, Any], reason: str
) -> None:
    issuer.about = changed
    keys = JwksCache(issuer.url, "")
    with structlog.testing.capture_logs() as logged:
        await keys._refresh()
    assert [line["event"] for line in logged] == ["token_keys_unavailable"]
    assert reason in logged[0]["reason"]
    assert issuer.asked == 0


async def test_a_key_set_of_any_shape_leaves_the_known_keys(issuer: Issuer) -> None:
    keys = JwksCache(issuer.url, "")
    await keys._refresh()
    shapes: list[Any] = [None, {}, "x", [], [1, None, "x", []], [{"kty": "RSA", "n": 1}]]
    for odd in shapes:
        issuer.keys = odd
        await keys._refresh()
        assert await keys.key("rsa", "RS256") is not None
