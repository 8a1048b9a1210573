"""Where things are kept."""

from typing import Annotated

import msgspec

from app.options.meaning import POSTGRES, is_
from app.secrets.secret import Secret


class DatabaseSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Database"""

    url: Annotated[
        Secret | None, is_("DATABASE_URL", "PostgreSQL 16 or later with pgvector 0.8 or later.", **POSTGRES)
    ] = None
    migrate_url: Annotated[
        Secret | None,
        is_("MIGRATE_DATABASE_URL", "The same as its owner, for migrations. Unset: `DATABASE_URL`.", **POSTGRES),
    ] = None
    direct_url: Annotated[
        Secret | None,
        is_(
            "DATABASE_DIRECT_URL",
            "The same past any pooler, for LISTEN. Unset: `DATABASE_URL`.",
            **POSTGRES,
        ),
    ] = None
    migrate_on_start: Annotated[
        bool, is_("AGENT_MIGRATE_ON_START", "Apply pending migrations before serving, under an advisory lock.")
    ] = False
    data_dir: Annotated[str, is_("AGENT_DATA_DIR", "The folder of the embedded database of `agent-service dev`.")] = (
        ".data"
    )

    @property
    def owner_url(self) -> Secret | None:
        """The address that migrations use."""
        return self.migrate_url or self.url


class RedisSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Redis"""

    url: Annotated[
        Secret | None,
        is_(
            "REDIS_URL",
            "Carries frames of runs to readers in other processes. Unset: PostgreSQL does.",
            pattern=r"^(rediss?|unix)://",
            examples=["redis://user:password@host:6379/0"],
        ),
    ] = None
    cache_url: Annotated[
        Secret | None,
        is_(
            "REDIS_CACHE_URL",
            "Keeps embeddings and answers of models for all processes; a Redis of its own, with `maxmemory` and "
            "`allkeys-lru`. Unset: each process keeps its own.",
            pattern=r"^(rediss?|unix)://",
            examples=["redis://user:password@cache:6379/0"],
        ),
    ] = None


class DocumentSettings(msgspec.Struct, frozen=True, kw_only=True):
    """Documents"""

    most: Annotated[
        int,
        is_(
            "AGENT_DOCUMENT_BYTES",
            "Bytes of a document that is uploaded; of HTML up to 32 MiB and of PDF up to 64 MiB in any case.",
            ge=1024,
            le=4 * 1024**3,
        ),
    ] = 256 * 1024**2
