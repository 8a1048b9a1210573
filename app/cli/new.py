"""``agent-service new``: write a folder for agents, with an agent, a typed tool and a test. Overwrites nothing."""

import argparse
from pathlib import Path

from app.base.errors import AgentServiceError, UsageError

TEMPLATE = "deploy/project"
"""Its files, with ``NAME`` for the agent's; ``gitignore`` becomes ``.gitignore``."""
SHARED = "deploy/example/agents"
PLACEHOLDER = "NAME"


def declare(parser: argparse.ArgumentParser) -> None:
    """Declare the name."""
    parser.add_argument("name", metavar="NAME", help="the folder to create, and the agent's name")


def run(arguments: argparse.Namespace) -> int:
    """Write the files. Raises ``UsageError`` for a name that no agent can have, or a folder with files."""
    from app.agents.config.agents_file import NAME

    folder = Path(arguments.name)
    name = folder.name
    if not NAME.fullmatch(name):
        raise UsageError(f"{name!r} cannot be an agent's name: use letters, digits, - and _, like my-agents")
    try:
        if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
            raise UsageError(f"{folder} exists and is not empty: choose another name")
        for path, text in project_files(name).items():
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            (folder / path).write_text(text, "utf-8")
            print(f"created  {folder / path}")
    except OSError as error:
        raise AgentServiceError(f"cannot write {error.filename} ({error.strerror})") from error
    print(f"\nnext:    cd {folder} && agent-service dev --reload")
    print(f'then:    agent-service chat {name} -m "call find_order number=17"')
    return 0


def project_files(name: str) -> dict[str, str]:
    """Return the files of a project by path."""
    from app.cli.init import SOURCES

    files = {path.name: path.read_text("utf-8") for path in sorted((SOURCES / TEMPLATE).iterdir()) if path.is_file()}
    files[".gitignore"] = files.pop("gitignore")
    for shared in ("Containerfile", "requirements.txt"):
        text = (SOURCES / SHARED / shared).read_text("utf-8")
        files[shared] = text.replace("my-agents agents ", "my-agents . ")
    return {path: text.replace(PLACEHOLDER, name) for path, text in files.items()}
