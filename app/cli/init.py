"""``agent-service init``: write a folder from which ``podman compose up`` starts the stack. Overwrites nothing."""

import argparse
import base64
import hashlib
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from app.base.errors import AgentServiceError, UsageError

PACKAGED = Path(__file__).with_name("deployment")
"""``compose.yaml`` and ``deploy/`` in a wheel; a checkout and the image have them next to the package."""
SOURCES = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2]

EXAMPLE = "deploy/example/"
"""Files for the user to edit, never compared or overwritten; ``env`` becomes ``.env``."""
SOURCES_ONLY = re.compile(r"deploy/example/|deploy/project/|/tests/|\.pyc?$")
"""Files that only a source tree needs: generators of files in ``deploy/``, and their tests; and what ``new`` writes."""

SUPERUSER = "postgres/superuser_password"
OWNER = "postgres/owner_password"
DATABASE = "app/database_url"
PEPPER = "app/key_pepper"
WEBHOOKS = "app/webhook_secret"
REDIS = "app/redis_url"
REDIS_USERS = "redis/users.acl"
GRAFANA = "grafana/admin_password"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the folder."""
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to (default: this folder)")


def run(arguments: argparse.Namespace) -> int:
    """Write the files that are missing. Raises ``AgentServiceError``, and writes nothing, if others differ."""
    folder = Path(arguments.folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder")
    missing, different = compare(folder)
    if different:
        raise AgentServiceError(
            f"nothing was written: these files in {folder} differ from this version's: {', '.join(different)}; "
            "move them away, then run init again"
        )
    try:
        for name, content in missing.items():
            write(folder / name, content, private=name == ".env")
        created = make_secrets(folder / "secrets")
    except OSError as error:
        raise AgentServiceError(f"cannot write {error.filename} ({error.strerror})") from error
    for name in (*missing, *(f"secrets/{name}" for name in created)):
        print(f"created  {folder / name}")
    print(f"ready: {'' if folder == Path() else f'cd {folder} && '}podman compose up --detach")
    return 0


def deployment_files() -> dict[str, bytes]:
    """Return the contents of a deployment's files by path: the required ones, then the example's."""
    files = [SOURCES / "compose.yaml", *sorted(path for path in (SOURCES / "deploy").rglob("*") if path.is_file())]
    found = {path.relative_to(SOURCES).as_posix(): path for path in files}
    own = {name.removeprefix(EXAMPLE): path for name, path in found.items() if name.startswith(EXAMPLE)}
    required = {name: path for name, path in found.items() if not SOURCES_ONLY.search(name)}
    own = {".env" if name == "env" else name: path for name, path in own.items() if not name.endswith(".pyc")}
    return {name: path.read_bytes() for name, path in {**required, **own}.items()}


def compare(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """Return the files missing in ``folder``, and the paths that differ; files for the user to edit never differ."""
    missing, different = {}, []
    agents = (folder / "agents").is_dir()
    for name, content in deployment_files().items():
        there = folder / name
        own = name == ".env" or name.startswith("agents/")
        if own and (there.exists() or (name != ".env" and agents)):
            continue
        if not there.exists():
            missing[name] = content
        elif there.read_bytes() != content:
            different.append(name)
    return missing, different


def write(path: Path, content: bytes, *, private: bool = False) -> None:
    """Create a file, regardless of the umask: ``private`` to its owner, or readable for users of containers."""
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir()
            parent.chmod(0o755)
    with path.open("xb") as file:
        path.chmod(0o600 if private else 0o755 if path.suffix == ".sh" else 0o644)
        file.write(content)


def make_secrets(folder: Path) -> list[str]:
    """Generate the missing secrets and return their names.

    Only the owner can enter the folder; its files are readable, because containers run as other users.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    created: list[str] = []

    def ensure(name: str, text: str) -> str:
        path = folder / name
        if path.is_file() and (there := path.read_text("utf-8").strip()):
            return there
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(f"{text}\n", "utf-8")
        path.chmod(0o644)
        created.append(name)
        return text

    ensure(SUPERUSER, secrets.token_hex(32))
    owner = ensure(OWNER, secrets.token_hex(32))
    ensure(DATABASE, f"postgresql://agents:{owner}@postgres/agents")
    ensure(PEPPER, secrets.token_hex(32))
    ensure(WEBHOOKS, f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    redis = ensure(REDIS, f"redis://agents:{secrets.token_hex(32)}@redis:6379/0")
    if REDIS in created:
        (folder / REDIS_USERS).unlink(missing_ok=True)
    ensure(REDIS_USERS, redis_users(redis))
    ensure(GRAFANA, secrets.token_urlsafe(24))
    return created


def redis_users(url: str) -> str:
    """Redis' users (https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).

    The server's user of ``url`` without admin commands, and one for the health check, which may only PING.
    """
    parts = urlsplit(url)
    digest = hashlib.sha256((parts.password or "").encode()).hexdigest()
    return "\n".join(
        (
            "user default off",
            f"user {parts.username} on #{digest} ~* &* +@all -@admin -@dangerous +info",
            "user probe on nopass -@all +ping",
        )
    )
