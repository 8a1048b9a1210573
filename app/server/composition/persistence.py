"""Secrets, the database that one of them opens, the audit log in it, and the caches."""

import msgspec

from app.base.errors import UsageError
from app.infra.cache.caches import Caches, build_caches
from app.infra.db.engine import Database
from app.infra.secrets.rotating_secret import SecretStore
from app.infra.settings.environment import Settings
from app.security.access.structs import SERVICE, AuditEvent
from app.security.audit.service import AuditService
from app.server.composition.telemetry import Telemetry


class Persistence(msgspec.Struct, frozen=True):
    """What is kept outside this process, and the secrets that open it.

    ``state_bytes``: maximum bytes of a thread's values (``State.max_bytes``).
    """

    secrets: SecretStore
    database: Database
    audit: AuditService
    caches: Caches
    state_bytes: int


def build_persistence(settings: Settings, telemetry: Telemetry) -> Persistence:
    """Build the database client and what rests on it. Raises ``UsageError`` if DATABASE_URL is not set."""

    def on_change(name: str, outcome: str) -> None:
        telemetry.meters.secret_rotations.add(1, name, outcome)
        audit.record(AuditEvent(SERVICE, f"secret.{outcome}", "service", name))

    if settings.database.url is None:
        raise UsageError("DATABASE_URL is not set; set it to postgresql://user:password@host/database")
    secrets = SecretStore(settings.read_secret, on_change)
    # a rotation writes the new password here first: the old one stays in use until the database accepts the new one
    url = secrets.rotating("DATABASE_URL", keep=True)
    direct = secrets.rotating("DATABASE_DIRECT_URL", keep=True)
    database = Database(
        lambda: [one.reveal() for one in url.values],
        direct=(lambda: [one.reveal() for one in direct.values]) if settings.database.direct_url else "",
    )
    database.measure(*telemetry.recorder)
    telemetry.loop_lag.also(database.sample)
    audit = AuditService(database)
    caches = build_caches(settings.redis, secrets, telemetry.meters)
    return Persistence(secrets, database, audit, caches, settings.runs.state_bytes)
