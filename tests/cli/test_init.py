"""``agent-service init``: a complete deployment folder with random secrets; overwrites nothing."""

import hashlib
import os
import re
import stat
import subprocess
import sys
import zipfile
from pathlib import Path
from urllib.parse import urlsplit

import pytest
import yaml

from app.cli.init import make_secrets
from tests.cli.commands import ROOT, only_line, run_command


def texts(folder: Path) -> dict[str, str]:
    return {path.relative_to(folder).as_posix(): path.read_text() for path in folder.rglob("*") if path.is_file()}


def mode(path: Path) -> int:
    return stat.S_IMODE(path.stat().st_mode)


@pytest.fixture
def made(tmp_path: Path) -> Path:
    done = run_command(tmp_path, "init", "stack")
    assert done.returncode == 0, done.stderr
    assert done.stdout.splitlines()[-1] == "ready: cd stack && podman compose up --detach"
    return tmp_path / "stack"


def test_all_mounts_of_the_compose_file_exist(made: Path) -> None:
    services = yaml.safe_load((made / "compose.yaml").read_text())["services"]
    mounted = {
        source
        for service in services.values()
        for volume in service.get("volumes", ())
        if (source := volume.partition(":")[0]).startswith("./")
    }
    assert len(mounted) > 5
    assert [source for source in mounted if not any((made / source).iterdir())] == []


def test_all_secrets_of_the_compose_file_exist(made: Path) -> None:
    services = yaml.safe_load((made / "compose.yaml").read_text())["services"]
    files = {
        "app": re.findall(r"/run/secrets/(\w+)", str(services["app"])),
        "postgres": [*re.findall(r"/run/secrets/(\w+)", str(services["postgres"])), "owner_password"],
        "redis": re.findall(r"/run/secrets/([\w.]+)", (made / "deploy/redis/redis.conf").read_text()),
        "grafana": re.findall(r"/run/secrets/(\w+)", str(services["grafana"])),
    }
    for folder, names in files.items():
        assert {path.name for path in (made / "secrets" / folder).iterdir()} == set(names)


def test_secrets_are_random_and_private(made: Path, tmp_path: Path) -> None:
    assert run_command(tmp_path, "init", "another").returncode == 0
    ours, theirs = texts(made / "secrets"), texts(tmp_path / "another" / "secrets")
    assert set(ours) == set(theirs)
    assert [name for name in ours if ours[name] == theirs[name]] == []
    assert mode(made / "secrets") == 0o700
    assert mode(made / ".env") == 0o600
    assert all(text.strip() not in (made / "compose.yaml").read_text() for text in ours.values())


def test_users_of_containers_can_read_mounts_regardless_of_the_umask(tmp_path: Path) -> None:
    before = os.umask(0o077)
    try:
        assert run_command(tmp_path, "init", "stack").returncode == 0
    finally:
        os.umask(before)
    for place in ("agents", "deploy", "secrets/app", "secrets/postgres", "secrets/redis"):
        for path in (tmp_path / "stack" / place, *(tmp_path / "stack" / place).rglob("*")):
            assert mode(path) & 0o005 == (0o005 if path.is_dir() else mode(path) & 0o001 | 0o004), path
    assert mode(tmp_path / "stack/deploy/postgres/owner.sh") == 0o755


def test_secrets_fit_together(made: Path) -> None:
    secrets = texts(made / "secrets")
    assert urlsplit(secrets["app/database_url"]).password == secrets["postgres/owner_password"].strip()
    redis = urlsplit(secrets["app/redis_url"].strip())
    digest = hashlib.sha256((redis.password or "").encode()).hexdigest()
    assert f"user {redis.username} on #{digest} " in secrets["redis/users.acl"]
    assert "user default off" in secrets["redis/users.acl"].splitlines()


def test_a_second_run_changes_nothing(made: Path, tmp_path: Path) -> None:
    (made / "agents" / "agents.toml").write_text("# mine\n")
    (made / "agents" / "tools.py").unlink()
    (made / ".env").write_text("APP_BIND=0.0.0.0\n")
    before = texts(made)
    done = run_command(tmp_path, "init", "stack")
    assert done.returncode == 0
    assert done.stdout.count("\n") == 1
    assert texts(made) == before


def test_existing_secrets_are_kept_and_missing_ones_match_them(tmp_path: Path) -> None:
    (tmp_path / "secrets/postgres").mkdir(parents=True)
    (tmp_path / "secrets/app").mkdir()
    (tmp_path / "secrets/postgres/owner_password").write_text("mine\n")
    (tmp_path / "secrets/app/key_pepper").write_text("\n")  # empty counts as missing
    assert run_command(tmp_path, "init").returncode == 0
    secrets = texts(tmp_path / "secrets")
    assert secrets["postgres/owner_password"] == "mine\n"
    assert urlsplit(secrets["app/database_url"].strip()).password == "mine"
    assert len(secrets["app/key_pepper"]) == 65


def test_redis_users_follow_a_new_password(tmp_path: Path) -> None:
    make_secrets(tmp_path)
    (tmp_path / "app/redis_url").unlink()
    assert make_secrets(tmp_path) == ["app/redis_url", "redis/users.acl"]


def test_nothing_is_written_if_a_file_differs(tmp_path: Path) -> None:
    (tmp_path / "compose.yaml").write_text("services: {}\n")
    done = run_command(tmp_path, "init")
    assert done.returncode == 1
    assert "nothing was written" in only_line(done)
    assert "compose.yaml" in only_line(done)
    assert texts(tmp_path) == {"compose.yaml": "services: {}\n"}


def test_a_file_in_place_of_the_folder_is_wrong_usage(tmp_path: Path) -> None:
    (tmp_path / "stack").write_text("")
    done = run_command(tmp_path, "init", "stack")
    assert done.returncode == 2
    assert "name a folder" in only_line(done)


def test_the_example_agents_load(made: Path) -> None:
    done = run_command(made, "agents", "check", "--agents", "agents/agents.toml")
    assert done.returncode == 0
    assert {line.split()[-1] for line in done.stdout.splitlines()} >= {"helper", "greeter"}


def test_a_wheel_makes_the_same_folder(made: Path, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "hatchling", "build", "-t", "wheel", "-d", str(tmp_path / "wheel")]
    subprocess.run(command, cwd=ROOT, check=True, capture_output=True)
    [wheel] = (tmp_path / "wheel").iterdir()
    installed = tmp_path / "installed"
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(installed)
    script = (
        "import sys; sys.path.insert(0, sys.argv[1]); from app.cli.main import main; sys.exit(main(['init', 'own']))"
    )
    environment = {name: text for name, text in os.environ.items() if name != "PYTHONPATH"}
    done = subprocess.run(
        [sys.executable, "-c", script, str(installed)],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 0, done.stderr

    def deployment_files(folder: Path) -> dict[str, str]:
        return {name: text for name, text in texts(folder).items() if not name.startswith("secrets/")}

    assert deployment_files(tmp_path / "own") == deployment_files(made)
