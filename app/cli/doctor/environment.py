"""Rows about the settings of a deployment, and what lies on this machine."""

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


def add_rows(sheet: Checklist, settings: Settings) -> None:
    """Every row about ``settings``."""
    serve = "agent-service serve"
    warnings = "; ".join(settings.warnings)
    sheet.ask(
        AREA, "names known", "env | grep ^AGENT_", "no unknown name", lambda: (not warnings, warnings or "all known")
    )
    sheet.ask(AREA, "production", "echo $APP_ENV", "production", lambda: _is(settings.server.environment, "production"))
    sheet.ask(AREA, "serve would start", serve, "no refusal", lambda: _would_start(settings))
    if settings.auth.key_pepper is None:
        sheet.leave(AREA, "pepper", f"AGENT_KEY_PEPPER is not set (AGENT_AUTH={settings.auth.mode})")
    else:
        pepper = settings.auth.key_pepper.reveal()
        few = distinct_characters(settings.auth.key_pepper)
        command = "openssl rand -hex 32 > secrets/key_pepper  # makes one"
        sheet.ask(AREA, "pepper", command, "at random", lambda: _pepper(len(pepper), few))
    _model(sheet, settings)
    sheet.ask(AREA, "agents load", "agent-service agents check", "every agent", lambda: asyncio.run(_agents(settings)))
    _database_tls(sheet, settings)
    _disk(sheet, settings)


def _would_start(settings: Settings) -> tuple[bool, str]:
    from app.agents.config.agents_file import read

    check_serving(settings, handled=read(settings.agents.config).auth is not None)
    return True, "no refusal"


def _is(seen: str, wanted: str) -> tuple[bool, str]:
    return seen == wanted, seen


def _pepper(length: int, few: int) -> tuple[bool, str]:
    return few >= MIN_DISTINCT, f"{length} characters, {few} different ones"


def _model(sheet: Checklist, settings: Settings) -> None:
    """A provider's key is there; nothing is asked of the provider."""
    llm = settings.llm
    given = {
        "OPENAI_API_KEY": llm.openai_api_key,
        "OPENAI_BASE_URL": llm.openai_base_url,
        "ANTHROPIC_API_KEY": llm.anthropic_api_key,
        "ANTHROPIC_BASE_URL": llm.anthropic_base_url,
    }
    there = [name for name, value in given.items() if value]
    vendor = llm.default_model.partition(":")[0].upper()
    holds = any(name.startswith(vendor) for name in there)
    seen = ", ".join(there) or "none: the offline model scripted:demo answers"
    expected = f"a key or an address{f' of {vendor.lower()}' if vendor else ''}"
    sheet.ask(AREA, "provider key", "env | grep -oE '^(OPENAI|ANTHROPIC)_[A-Z_]+'", expected, lambda: (holds, seen))


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


def _database_tls(sheet: Checklist, settings: Settings) -> None:
    if settings.database.url is None:
        sheet.leave(AREA, "database encrypted", "DATABASE_URL is not set")
        return
    parts = urlsplit(settings.database.url.reveal())
    query = parse_qs(parts.query)
    host = query.get("host", [parts.hostname or ""])[0]
    if not host or host.startswith("/") or is_loopback(host):
        sheet.leave(AREA, "database encrypted", "it is on this machine")
        return
    mode = query.get("sslmode", ["not set"])[0]
    command = "echo $DATABASE_URL | grep -o 'sslmode=[a-z-]*'"
    sheet.ask(AREA, "database encrypted", command, f"sslmode {' or '.join(SECURE)}", lambda: (mode in SECURE, mode))


def _disk(sheet: Checklist, settings: Settings) -> None:
    folder = Path(settings.database.data_dir)
    if not folder.is_dir():
        sheet.leave(AREA, "disk", "the folder of the data is not on this machine")
        return

    def add_rows() -> tuple[bool, str]:
        found = os.statvfs(folder)
        free = found.f_bavail / found.f_blocks
        return free >= MIN_FREE_SHARE, f"{free:.0%} free, {found.f_bavail * found.f_frsize / 1e9:.0f} GB"

    sheet.ask(AREA, "disk", f"df -h {folder}", f"{MIN_FREE_SHARE:.0%} free", add_rows)
