"""Settings of the database, retention, Redis and documents."""

from typing import Annotated

import msgspec

from app.infra.secrets.secret import Secret
from app.infra.settings.declaration import POSTGRES, is_


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Database"""

    url: Annotated[
        Secret | None, is_("DATABASE_URL", "PostgreSQL 16 or later with pgvector 0.8 or later.", **POSTGRES)
    ] = None
    migrate_url: Annotated[
        Secret | None,
        is_(
            "MIGRATE_DATABASE_URL", "The same database as its owner, for migrations. Unset: `DATABASE_URL`.", **POSTGRES
        ),
    ] = None
    direct_url: Annotated[
        Secret | None,
        is_(
            "DATABASE_DIRECT_URL",
            "The same database without a pooler, for LISTEN. Unset: `DATABASE_URL`.",
            **POSTGRES,
        ),
    ] = None
    migrate_on_start: Annotated[
        bool, is_("AGENT_MIGRATE_ON_START", "Apply pending migrations before serving, under an advisory lock.")
    ] = False
    data_dir: Annotated[
        str, is_("AGENT_DATA_DIR", "Data directory of the embedded database of `agent-service dev`.")
    ] = ".data"

    @property
    def owner_url(self) -> Secret | None:
        """The address for migrations."""
        return self.migrate_url or self.url


class RetentionSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Retention"""

    events_hours: Annotated[
        int,
        is_(
            "AGENT_KEEP_EVENTS_HOURS", "Hours for which the stream of an ended run can be read again.", ge=1, le=87_600
        ),
    ] = 24
    idempotency_hours: Annotated[
        int,
        is_(
            "AGENT_KEEP_IDEMPOTENCY_HOURS",
            "Hours for which an `Idempotency-Key` is known, and a stateless run that was created with it is kept.",
            ge=1,
            le=87_600,
        ),
    ] = 24
    transitions_days: Annotated[
        int,
        is_(
            "AGENT_KEEP_TRANSITIONS_DAYS",
            "Days for which the status history of a deleted run is kept (0: forever). At least 1 day in any case.",
            ge=0,
            le=36_500,
        ),
    ] = 7
    audit_days: Annotated[
        int, is_("AGENT_KEEP_AUDIT_DAYS", "Days for which the audit log is kept (0: forever).", ge=0, le=36_500)
    ] = 90
    threads_days: Annotated[
        int,
        is_(
            "AGENT_KEEP_THREADS_DAYS",
            "Days without activity after which a thread without a TTL of its own is deleted with its runs and states "
            "(0: never).",
            ge=0,
            le=36_500,
        ),
    ] = 0
    history_days: Annotated[
        int,
        is_(
            "AGENT_KEEP_HISTORY_DAYS",
            "Days without activity after which only a thread's newest state is kept (0: all states are kept).",
            ge=0,
            le=36_500,
        ),
    ] = 0
    runs_days: Annotated[
        int,
        is_(
            "AGENT_KEEP_RUNS_DAYS",
            "Days after its end for which a run and its steps are kept; the newest run of a thread "
            "and all states are kept "
            "(0: forever).",
            ge=0,
            le=36_500,
        ),
    ] = 0


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Redis"""

    url: Annotated[
        Secret | None,
        is_(
            "REDIS_URL",
            "Carries frames of runs between processes. Unset: PostgreSQL does.",
            pattern=r"^(rediss?|unix)://",
            examples=["redis://user:password@host:6379/0"],
        ),
    ] = None
    cache_url: Annotated[
        Secret | None,
        is_(
            "REDIS_CACHE_URL",
            "Caches embeddings and model responses for all processes; a Redis of its own, with `maxmemory` and "
            "`allkeys-lru`. Unset: each process has its own cache.",
            pattern=r"^(rediss?|unix)://",
            examples=["redis://user:password@cache:6379/0"],
        ),
    ] = None


class DocumentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Documents"""

    max_bytes: Annotated[
        int,
        is_(
            "AGENT_DOCUMENT_BYTES",
            "Maximum bytes of an uploaded document; HTML at most 32 MiB and PDF at most 64 MiB in any case.",
            ge=1024,
            le=4 * 1024**3,
        ),
    ] = 256 * 1024**2
