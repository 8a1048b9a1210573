"""Settings of authentication and limits."""

from typing import Annotated, Literal

import msgspec

from app.infra.secrets.secret import Secret
from app.infra.settings.declaration import ISSUER, is_

MIN_PEPPER_LENGTH = 32


def rate(variable: str, meaning: str) -> msgspec.Meta:
    """Declare a limit per minute."""
    return is_(variable, f"{meaning} per minute (0: no limit).", ge=0, le=1_000_000_000)


class AuthSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Authentication"""

    mode: Annotated[
        Literal["none", "api_key", "jwt"],
        is_(
            "AGENT_AUTH",
            "`api_key`: requests need a key. `jwt`: a token of the issuer, or a key if AGENT_KEY_PEPPER is set. "
            "`none`: loopback only; what `agent-service dev` takes.",
        ),
    ] = "api_key"
    key_pepper: Annotated[
        Secret | None,
        is_(
            "AGENT_KEY_PEPPER",
            "The secret under which API keys are stored; required with `api_key`.",
            min_length=MIN_PEPPER_LENGTH,
            examples=["the output of: openssl rand -hex 32"],
        ),
    ] = None
    key_pepper_secondary: Annotated[
        Secret | None,
        is_(
            "AGENT_KEY_PEPPER_SECONDARY",
            "Keys stored under it are valid as well, and rehashed under the first one on use: for rotation.",
            min_length=MIN_PEPPER_LENGTH,
            examples=["the output of: openssl rand -hex 32"],
        ),
    ] = None
    jwt_issuer: Annotated[
        str,
        is_("AGENT_JWT_ISSUER", "The issuer of tokens: their `iss`.", examples=["https://login.example.com"], **ISSUER),
    ] = ""
    jwt_audience: Annotated[str, is_("AGENT_JWT_AUDIENCE", "The audience of tokens: their `aud` must name it.")] = ""
    jwt_jwks_url: Annotated[
        str,
        is_(
            "AGENT_JWT_JWKS_URL",
            "URL of the issuer's keys. Unset: from its discovery document.",
            examples=["https://login.example.com/jwks.json"],
            **ISSUER,
        ),
    ] = ""
    jwt_algorithms: Annotated[str, is_("AGENT_JWT_ALGORITHMS", "Accepted signature algorithms, comma-separated.")] = (
        "RS256,ES256,EdDSA"
    )
    jwt_tenant_claim: Annotated[
        str,
        is_(
            "AGENT_JWT_TENANT_CLAIM",
            "The claim that names the tenant. Unset: all users belong to the tenant `default`.",
        ),
    ] = ""
    jwt_roles_claim: Annotated[
        str,
        is_(
            "AGENT_JWT_ROLES_CLAIM",
            "The claim (dots separate nested names) that lists roles: read-only, runner, member, operator, admin. "
            "Unset: member.",
            examples=["realm_access.roles"],
        ),
    ] = ""
    console_client_id: Annotated[
        str,
        is_(
            "AGENT_CONSOLE_CLIENT_ID",
            "With AGENT_AUTH=jwt: the client as which the console signs in at the issuer, a public one with PKCE whose "
            "redirect URI is the console's address with `/console/`. Unset: the console asks for a token or key.",
        ),
    ] = ""
    console_scope: Annotated[
        str, is_("AGENT_CONSOLE_SCOPE", "The scopes that the console asks the issuer for, with spaces in between.")
    ] = "openid"
    jwt_leeway: Annotated[
        float, is_("AGENT_JWT_LEEWAY", "Seconds by which the issuer's clock may differ.", ge=0, le=300)
    ] = 10


class LimitSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Limits and budgets"""

    rate_per_minute: Annotated[
        int,
        is_(
            "AGENT_RATE_PER_MINUTE",
            "Runs that one key starts per minute (0: no limit): a batch counts each of its runs, an "
            "upload the one that "
            "reads it; a tenant's crons together count as one key. With AGENT_AUTH=none only if it is set.",
            ge=0,
            le=1_000_000_000,
        ),
    ] = 60
    requests_per_minute: Annotated[int, rate("AGENT_REQUESTS_PER_MINUTE", "All requests of one key")] = 0
    tenant_requests_per_minute: Annotated[
        int, rate("AGENT_TENANT_REQUESTS_PER_MINUTE", "All requests of one tenant")
    ] = 0
    bytes_per_minute: Annotated[int, rate("AGENT_BYTES_PER_MINUTE", "Bytes of request bodies of one tenant")] = 0
    tokens_per_minute: Annotated[int, rate("AGENT_TOKENS_PER_MINUTE", "Tokens of models that one tenant uses")] = 0
    reserve_tokens: Annotated[
        int,
        is_(
            "AGENT_RESERVE_TOKENS",
            "Tokens that a run reserves before it starts if tokens or cost are limited; it reserves "
            "more as it uses them up.",
            ge=1,
            le=10_000_000,
        ),
    ] = 2000
    cost_per_day: Annotated[
        float,
        is_(
            "AGENT_COST_PER_DAY",
            "Dollars that one tenant may spend on models per day, in UTC (0: no limit).",
            ge=0,
            le=1e9,
        ),
    ] = 0
    prices: Annotated[
        str, is_("AGENT_PRICES", "A TOML file with prices of models, which override the built-in ones.")
    ] = ""
    runs: Annotated[
        int,
        is_("AGENT_TENANT_RUNS", "Active runs of one tenant (0: no limit).", ge=0, le=1_000_000),
    ] = 0
    queued_runs: Annotated[
        int, is_("AGENT_TENANT_QUEUE", "Pending runs of one tenant (0: no limit).", ge=0, le=1_000_000_000)
    ] = 0
    crons: Annotated[
        int, is_("AGENT_CRONS_PER_TENANT", "Crons that one tenant may have (0: no limit).", ge=0, le=1_000_000)
    ] = 1000
    bytes: Annotated[
        int,
        is_(
            "AGENT_TENANT_BYTES",
            "Bytes that one tenant may store: threads with their runs and events, assistants, the store, documents "
            "(0: no limit, and nothing is measured).",
            ge=0,
            le=2**60,
        ),
    ] = 0
