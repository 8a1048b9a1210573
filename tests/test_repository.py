"""The repository is portable: no machine paths, package hosts or secrets, and consistent versions."""

import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from requirements.uv import pip_settings, uv_environment

ROOT = Path(__file__).parent.parent
LOCKS = ("audit.txt", "auth.txt", "build.txt", "dev.txt", "mcp.txt", "runtime.txt")

PACKAGE_HOSTS = re.compile(
    r"https?://[\w.-]*(py" + r"pi\b|pythonhosted|npmjs|debian\.org)|--(extra-)?index-url[ =]|--find-links[ =]"
)
MACHINE_PATHS = re.compile(r"/(ro" + r"ot|wo" + r"rk|ho" + r"me/[a-z]+|Us" + r"ers/[A-Za-z]+)/")
CREDENTIALS = re.compile(
    r"\b(sk-(ant-)?[A-Za-z0-9_-]{24,}|gh[pousr]_[A-Za-z0-9]{30,}|AKIA[0-9A-Z]{16}|xox[bap]-[0-9A-Za-z-]{20,})"
    r"|-----BEGIN [A-Z ]*PRIVATE " + r"KEY-----"
)
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))


def listed_files() -> list[Path]:
    """Return all files that git does not ignore."""
    command = ["git", "ls-files", "--cached", "--others", "--exclude-standard", "-z"]
    listed = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=True)
    return [path for name in listed.stdout.split("\0") if name and (path := ROOT / name).is_file()]


def texts() -> Iterator[tuple[str, str]]:
    for path in listed_files():
        content = path.read_bytes()
        if b"\0" not in content:
            yield path.relative_to(ROOT).as_posix(), content.decode("utf-8")


@pytest.mark.parametrize(
    "pattern", [PACKAGE_HOSTS, MACHINE_PATHS, CREDENTIALS], ids=["package hosts", "machine paths", "credentials"]
)
def test_no_file_has_machine_paths_package_hosts_or_credentials(pattern: re.Pattern[str]) -> None:
    found = [
        f"{name}:{number} {match.group()}"
        for name, text in texts()
        for number, line in enumerate(text.splitlines(), 1)
        if (match := pattern.search(line))
    ]
    assert found == []


def test_no_generated_or_private_file_is_in_the_repository() -> None:
    private = re.compile(r"^(\.env|uv\.lock|secrets/.*|\.data/.*|\.venv/.*|bench/results/.*|.*\.(pyc|key|pem))$")
    names = [path.relative_to(ROOT).as_posix() for path in listed_files()]
    assert [name for name in names if private.match(name)] == []


def locked(name: str) -> dict[str, str]:
    """Return the versions of a lock file by package name."""
    pinned = re.findall(r"^([a-z0-9-]+)==(\S+)", (ROOT / "requirements" / name).read_text(), re.MULTILINE)
    return dict(pinned)


@pytest.mark.parametrize("name", LOCKS)
def test_every_line_of_a_lock_file_is_a_pinned_package_with_its_hashes(name: str) -> None:
    text = (ROOT / "requirements" / name).read_text(encoding="utf-8")
    entries = re.split(r"^(?=[^ #\n])", re.sub(r"^#.*\n", "", text, flags=re.MULTILINE), flags=re.MULTILINE)
    entry = re.compile(r"[a-z0-9-]+==\S+( ; [^\\\n]+)? \\\n(    --hash=sha256:[0-9a-f]{64}( \\)?\n)+")
    assert [line for line in entries if line and not entry.fullmatch(line)] == []


def test_the_two_environments_run_the_same_versions() -> None:
    development = locked("dev.txt")
    shipped = {**locked("runtime.txt"), **locked("auth.txt"), **locked("mcp.txt")}
    assert {name: version for name, version in shipped.items() if development.get(name) != version} == {}


@pytest.mark.parametrize(
    "name, wanted",
    [
        ("audit.txt", PROJECT["dependency-groups"]["audit"]),
        ("build.txt", PROJECT["dependency-groups"]["build"]),
        ("runtime.txt", PROJECT["project"]["dependencies"]),
        ("auth.txt", PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["auth"]),
        ("mcp.txt", PROJECT["project"]["dependencies"] + PROJECT["project"]["optional-dependencies"]["mcp"]),
        ("dev.txt", PROJECT["dependency-groups"]["dev"] + PROJECT["project"]["optional-dependencies"]["embedded"]),
    ],
)
def test_a_lock_file_satisfies_the_project(name: str, wanted: list[str]) -> None:
    """Otherwise run `make lock`."""
    versions = locked(name)
    missing = [
        line
        for line in wanted
        if not Requirement(line).specifier.contains(
            versions.get(canonicalize_name(Requirement(line).name), "0"), prereleases=True
        )
    ]
    assert missing == []


def test_every_dependency_is_imported() -> None:
    modules = {
        "markdown-it-py": "markdown_it",
        "opentelemetry-exporter-otlp-proto-http": "opentelemetry.exporter.otlp.proto.http",
        "opentelemetry-exporter-prometheus": "opentelemetry.exporter.prometheus",
        "opentelemetry-sdk": "opentelemetry.sdk",
        "pyjwt": "jwt",
        "python-dotenv": "dotenv",
    }
    loaded_by_granian = {"uvloop"}
    statement = re.compile(r"^\s*(?:from|import) ([\w.]+)", re.MULTILINE)
    files = [path for folder in ("app", "migrations") for path in (ROOT / folder).rglob("*.py")]
    imported = {name + "." for path in files for name in statement.findall(path.read_text(encoding="utf-8"))}
    names = {Requirement(line).name for line in PROJECT["project"]["dependencies"]} - loaded_by_granian
    unused = {
        name
        for name in names
        if not any(found.startswith(modules.get(name, name.replace("-", "_")) + ".") for found in imported)
    }
    assert unused == set()


LANGGRAPH_BRINGS = frozenset(
    {"langchain_core", "langgraph", "langgraph_sdk", "orjson", "ormsgpack", "pydantic", "typing_extensions"}
)
"""LangGraph, and libraries that it requires itself."""


def test_the_version_stands_in_one_place() -> None:
    version = PROJECT["project"]["version"]
    literal = re.compile(rf"""["'=]{re.escape(version)}["'\s]""")
    found = [
        name for name, text in texts() if name.endswith((".py", ".yaml", "Containerfile")) and literal.search(text)
    ]
    assert found == []


def test_the_worker_of_graphs_needs_what_langgraph_brings_alone() -> None:
    """It runs in a project's own Python environment, where nothing of ours is installed."""
    allowed = {"__future__", "agent_service_graphs", *sys.stdlib_module_names, *LANGGRAPH_BRINGS}
    statement = re.compile(r"^\s*(?:from|import) (\w+)", re.MULTILINE)
    files = (ROOT / "agent_service_graphs").glob("*.py")
    assert {name for path in files for name in statement.findall(path.read_text(encoding="utf-8"))} <= allowed


def test_every_part_of_the_wheel_is_part_of_the_image() -> None:
    parts = PROJECT["tool"]["hatch"]["build"]["targets"]["wheel"]["only-include"]
    text = (ROOT / "Containerfile").read_text(encoding="utf-8")
    sent = {line.strip("!/") for line in (ROOT / ".containerignore").read_text(encoding="utf-8").splitlines()}
    built = {
        name.strip("/") for line in re.findall(r"^COPY (?!--)(.+) \S+$", text, re.MULTILINE) for name in line.split()
    }
    kept = {name for line in re.findall(r"cp -r (.+) /own/", text) for name in line.split()}
    assert set(parts) <= sent & built & kept


def test_a_change_is_told_of_in_the_changelog() -> None:
    assert re.search(r"^## \[Unreleased\]$", (ROOT / "CHANGELOG.md").read_text(encoding="utf-8"), re.MULTILINE)


def test_what_ci_runs_can_be_run() -> None:
    assert os.access(ROOT / ".ci" / "run", os.X_OK)


LISTED = """\
:env:.index-url='https://from.the/environment'
global.cert='/etc/certificates.pem'
global.extra-index-url='https://one.more/simple file:///a/folder'
global.index-url='https://from.a/file'
install.trusted-host='one.more'
"""


def test_what_pip_is_configured_with_is_handed_on_to_uv() -> None:
    added = uv_environment(pip_settings(LISTED), {}, install=True)
    assert added == {
        "UV_DEFAULT_INDEX": "https://from.the/environment",
        "UV_INDEX": "https://one.more/simple file:///a/folder",
        "UV_INDEX_STRATEGY": "unsafe-best-match",
        "UV_INSECURE_HOST": "one.more",
        "SSL_CERT_FILE": "/etc/certificates.pem",
    }


def test_what_uv_is_told_itself_wins_over_pips_configuration() -> None:
    given = {"UV_INDEX_URL": "https://uvs.own", "SSL_CERT_FILE": "/own.pem"}
    added = uv_environment(pip_settings(LISTED), given, install=True)
    assert "UV_DEFAULT_INDEX" not in added
    assert "SSL_CERT_FILE" not in added


def test_a_lock_is_made_from_the_one_index_alone() -> None:
    assert "UV_INDEX" not in uv_environment(pip_settings(LISTED), {}, install=False)
