"""Checks of the settings of a deployment, its agents and its disk."""

import asyncio
import os
from pathlib import Path
from urllib.parse import parse_qs, urlsplit

from app.base.errors import AgentServiceError
from app.cli.doctor.checklist import Checklist
from app.infra.settings.environment import MIN_DISTINCT, Settings, check_serving, distinct_characters, is_loopback

AREA = "settings"
SECURE = ("require", "verify-ca", "verify-full")
MIN_FREE_SHARE = 0.1


def add_rows(checklist: Checklist, settings: Settings) -> None:
    """Check ``settings``."""
    serve = "agent-service serve"
    warnings = "; ".join(settings.warnings)
    checklist.check(
        AREA, "names known", "env | grep ^AGENT_", "no unknown name", lambda: (not warnings, warnings or "all known")
    )
    checklist.check(
        AREA, "production", "echo $APP_ENV", "production", lambda: _is(settings.server.environment, "production")
    )
    checklist.check(AREA, "serve would start", serve, "no refusal", lambda: _would_start(settings))
    if settings.auth.key_pepper is None:
        checklist.omit(AREA, "pepper", f"AGENT_KEY_PEPPER is not set (AGENT_AUTH={settings.auth.mode})")
    else:
        pepper = settings.auth.key_pepper.reveal()
        distinct = distinct_characters(settings.auth.key_pepper)
        command = "openssl rand -hex 32 > secrets/key_pepper  # makes one"
        checklist.check(AREA, "pepper", command, "at random", lambda: _pepper(len(pepper), distinct))
    _model(checklist, settings)
    checklist.check(
        AREA, "agents load", "agent-service agents check", "every agent", lambda: asyncio.run(_agents(settings))
    )
    _database_tls(checklist, settings)
    _disk(checklist, settings)


def _would_start(settings: Settings) -> tuple[bool, str]:
    from app.agents.config.agents_file import read

    check_serving(settings, handled=read(settings.agents.config).auth is not None)
    return True, "no refusal"


def _is(seen: str, wanted: str) -> tuple[bool, str]:
    return seen == wanted, seen


def _pepper(length: int, distinct: int) -> tuple[bool, str]:
    return distinct >= MIN_DISTINCT, f"{length} characters, {distinct} different ones"


def _model(checklist: Checklist, settings: Settings) -> None:
    """Check that a provider's key is set; sends no request to the provider."""
    from app.providers.llm.vendors import VENDORS

    llm = settings.llm
    present: list[str] = []
    for spec in VENDORS.values():
        given = spec.given(llm)
        present += [spec.key_variable] if given.key else []
        present += [spec.url_variable] if given.base_url else []
    vendor = llm.default_model.partition(":")[0].upper()
    holds = any(name.startswith(vendor) for name in present)
    seen = ", ".join(present) or "none: the offline model scripted:demo answers"
    prefixes = "|".join(spec.prefix for spec in VENDORS.values())
    expected = f"a key or an address{f' of {vendor.lower()}' if vendor else ''}"
    checklist.check(AREA, "provider key", f"env | grep -oE '^({prefixes})_[A-Z_]+'", expected, lambda: (holds, seen))


async def _agents(settings: Settings) -> tuple[bool, str]:
    from app.agents.config.agents_file import read
    from app.cli.agent_checks import agent_checks
    from app.infra.telemetry.meters import Meters
    from app.providers.llm.registry import ModelRegistry

    file = read(settings.agents.config)
    meters = Meters()
    models = ModelRegistry(settings.llm, meters)
    try:
        for _, check in agent_checks(settings, file, models, meters):
            check()
    except AgentServiceError as error:
        return False, str(error)
    finally:
        await models.aclose()
    return True, ", ".join(file.agents)


def _database_tls(checklist: Checklist, settings: Settings) -> None:
    if settings.database.url is None:
        checklist.omit(AREA, "database encrypted", "DATABASE_URL is not set")
        return
    parts = urlsplit(settings.database.url.reveal())
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or ""])[0]
    if not host or host.startswith("/") or is_loopback(host):
        checklist.omit(AREA, "database encrypted", "it is on this machine")
        return
    mode = query.get("sslmode", ["not set"])[0]
    command = "echo $DATABASE_URL | grep -o 'sslmode=[a-z-]*'"
    checklist.check(
        AREA, "database encrypted", command, f"sslmode {' or '.join(SECURE)}", lambda: (mode in SECURE, mode)
    )


def _disk(checklist: Checklist, settings: Settings) -> None:
    folder = Path(settings.database.data_dir)
    if not folder.is_dir():
        checklist.omit(AREA, "disk", "the data folder is not on this machine")
        return

    def free_space() -> tuple[bool, str]:
        found = os.statvfs(folder)
        free = found.f_bavail / found.f_blocks
        return free >= MIN_FREE_SHARE, f"{free:.0%} free, {found.f_bavail * found.f_frsize / 1e9:.0f} GB"

    checklist.check(AREA, "disk", f"df -h {folder}", f"{MIN_FREE_SHARE:.0%} free", free_space)
