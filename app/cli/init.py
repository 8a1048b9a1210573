"""``agent-service init``: a folder from which ``podman compose up`` starts the whole stack. Overwrites nothing."""

import argparse
import base64
import hashlib
import re
import secrets
from pathlib import Path
from urllib.parse import urlsplit

from app.base.errors import AgentServiceError, UsageError

PACKAGED = Path(__file__).with_name("deployment")
"""Where a wheel has ``compose.yaml`` and ``deploy/``; a checkout and the image have them beside the package."""
SOURCES = PACKAGED if PACKAGED.is_dir() else Path(__file__).parents[2]

EXAMPLE = "deploy/example/"
"""Its files are a person's own once they are there; ``env`` becomes ``.env``."""
LEFT_OUT = re.compile(r"deploy/example/|/tests/|\.pyc?$")
"""What only the sources need: programs that make files of ``deploy/``, and their tests."""

SUPERUSER = "postgres/superuser_password"
OWNER = "postgres/owner_password"
DATABASE = "app/database_url"
PEPPER = "app/key_pepper"
WEBHOOKS = "app/webhook_secret"
REDIS = "app/redis_url"
REDIS_USERS = "redis/users.acl"
GRAFANA = "grafana/admin_password"


def declare(parser: argparse.ArgumentParser) -> None:
    """Where."""
    parser.add_argument("folder", nargs="?", default=".", metavar="FOLDER", help="where to (default: this folder)")


def run(arguments: argparse.Namespace) -> int:
    """Look first whether all can be written, then write; 1, and nothing is written, when something else is there."""
    folder = Path(arguments.folder)
    if folder.exists() and not folder.is_dir():
        raise UsageError(f"{folder} is a file: name a folder")
    lacking, different = compared(folder)
    if different:
        raise AgentServiceError(
            f"nothing was written: in {folder} these are not what this version brings: {', '.join(different)}; "
            f"move them away, then run init again"
        )
    try:
        for name, content in lacking.items():
            write(folder / name, content, private=name == ".env")
        made = make_secrets(folder / "secrets")
    except OSError as error:
        raise AgentServiceError(f"cannot write {error.filename} ({error.strerror})") from error
    for name in (*lacking, *(f"secrets/{name}" for name in made)):
        print(f"made  {folder / name}")
    print(f"ready: {'' if folder == Path() else f'cd {folder} && '}podman compose up --detach")
    return 0


def brought() -> dict[str, bytes]:
    """The files of a deployment by their place in its folder: those that it cannot do without, then the example's."""
    files = [SOURCES / "compose.yaml", *sorted(path for path in (SOURCES / "deploy").rglob("*") if path.is_file())]
    found = {path.relative_to(SOURCES).as_posix(): path for path in files}
    own = {name.removeprefix(EXAMPLE): path for name, path in found.items() if name.startswith(EXAMPLE)}
    kept = {name: path for name, path in found.items() if not LEFT_OUT.search(name)}
    own = {".env" if name == "env" else name: path for name, path in own.items() if not name.endswith(".pyc")}
    return {name: path.read_bytes() for name, path in {**kept, **own}.items()}


def compared(folder: Path) -> tuple[dict[str, bytes], list[str]]:
    """What ``folder`` lacks, and what is there but different; of a person's own files none is."""
    lacking, different = {}, []
    agents = (folder / "agents").is_dir()
    for name, content in brought().items():
        there = folder / name
        own = name == ".env" or name.startswith("agents/")
        if own and (there.exists() or (name != ".env" and agents)):
            continue
        if not there.exists():
            lacking[name] = content
        elif there.read_bytes() != content:
            different.append(name)
    return lacking, different


def write(path: Path, content: bytes, *, private: bool = False) -> None:
    """A new file: for its owner alone when ``private``, else for the users of containers too, whatever the umask."""
    for parent in reversed(path.parents):
        if not parent.exists():
            parent.mkdir()
            parent.chmod(0o755)
    with path.open("xb") as file:
        path.chmod(0o600 if private else 0o755 if path.suffix == ".sh" else 0o644)
        file.write(content)


def make_secrets(folder: Path) -> list[str]:
    """Every secret that is not there yet; the names of those that were made.

    Nobody but the owner gets into the folder. What is inside is readable, since the users of containers are others.
    """
    folder.mkdir(parents=True, exist_ok=True)
    folder.chmod(0o700)
    made: list[str] = []

    def kept(name: str, text: str) -> str:
        path = folder / name
        if path.is_file() and (there := path.read_text("utf-8").strip()):
            return there
        path.parent.mkdir(exist_ok=True)
        path.parent.chmod(0o755)
        path.write_text(f"{text}\n", "utf-8")
        path.chmod(0o644)
        made.append(name)
        return text

    kept(SUPERUSER, secrets.token_hex(32))
    owner = kept(OWNER, secrets.token_hex(32))
    kept(DATABASE, f"postgresql://agents:{owner}@postgres/agents")
    kept(PEPPER, secrets.token_hex(32))
    kept(WEBHOOKS, f"whsec_{base64.b64encode(secrets.token_bytes(32)).decode()}")
    redis = kept(REDIS, f"redis://agents:{secrets.token_hex(32)}@redis:6379/0")
    if REDIS in made:
        (folder / REDIS_USERS).unlink(missing_ok=True)
    kept(REDIS_USERS, redis_users(redis))
    kept(GRAFANA, secrets.token_urlsafe(24))
    return made


def redis_users(url: str) -> str:
    """Redis' users (https://redis.io/docs/latest/operate/oss_and_stack/management/security/acl/).

    The server's, as ``url`` names it, who administers nothing; and one for the health check, who may only ask for life.
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
