"""Who gets in: API keys, tokens of an issuer, handlers of the operator."""

from typing import TYPE_CHECKING

import msgspec

from app.agents.config.agents_file import AgentsFile
from app.features.access.custom_auth import CustomAuth, build_custom_auth
from app.features.access.guard import Authenticator
from app.infra.secrets.secret import Secret
from app.infra.settings.environment import Settings
from app.security.access.service import AccessService
from app.server.composition.persistence import Persistence
from app.server.routes import BASE_PATH

if TYPE_CHECKING:  # it loads its libraries
    from app.security.access.jwks import JwksCache


class AuthStack(msgspec.Struct, frozen=True):
    """``authenticator`` checks credentials (None: none are checked), unless ``custom_auth`` stands in its place."""

    keys: AccessService
    authenticator: Authenticator | None
    token_keys: "JwksCache | None" = None
    """Public keys of the issuer of tokens."""
    custom_auth: CustomAuth | None = None
    """Handlers of the agents file."""

    @property
    def is_on(self) -> bool:
        """Whether requests are authenticated at all."""
        return self.authenticator is not None or self.custom_auth is not None


def build_auth(settings: Settings, persistence: Persistence, agents: AgentsFile) -> AuthStack:
    """Build what AGENT_AUTH and ``[auth]`` of the agents file ask for."""
    auth, database, audit = settings.auth, persistence.database, persistence.audit
    peppers = persistence.secrets.rotating("AGENT_KEY_PEPPER", "AGENT_KEY_PEPPER_SECONDARY").good
    access = AccessService(database, peppers if auth.key_pepper else Secret(""), records=audit)
    if agents.auth is not None:
        keys = access if auth.mode == "api_key" and auth.key_pepper else None
        base = f"{settings.server.root_path}{BASE_PATH}"
        custom = build_custom_auth(agents, database, base, keys=keys, records=audit, mode=auth.mode)
        return AuthStack(access, keys, custom_auth=custom)
    if auth.mode != "jwt":
        return AuthStack(access, access if auth.mode == "api_key" else None)
    from app.security.access.jwks import JwksCache
    from app.security.access.token_auth import CombinedAuthenticator, TokenService

    token_keys = JwksCache(auth.jwt_issuer, auth.jwt_jwks_url)
    tokens = TokenService(database, token_keys, auth)
    return AuthStack(access, CombinedAuthenticator(access, tokens) if auth.key_pepper else tokens, token_keys)
