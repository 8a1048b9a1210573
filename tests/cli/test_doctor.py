"""``doctor``: the checklist holds for a sound deployment, and finds and names each fault."""

import asyncio
import json
import os
import re
import subprocess
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any
from uuid import uuid4

import pytest

from app.cli.doctor.secret_leaks import is_ordinary
from app.cli.health import probe
from tests.cli.commands import Running, run_command
from tests.database import execute
from tests.waiting import until

Start = Callable[..., Running]
PEPPER = "3f9c0a7be8d1426509f4c2b7a61d38e5"
NOWHERE = "postgresql://agent@127.0.0.1:1/agents"


@pytest.fixture
def login_url(server_url: str, database_url: str) -> Iterator[str]:
    """Database URL of a login role that is not a superuser."""
    user = f"doctor_{uuid4().hex[:8]}"
    asyncio.run(execute(server_url, f"create role {user} login in role agent_app, agent_engine"))
    yield database_url.replace("postgres@", f"{user}@")
    asyncio.run(execute(server_url, f"drop role {user}"))


class Deployment:
    """A server with its environment and an API key."""

    def __init__(self, folder: Path, start: Start, port: int, url: str) -> None:
        self.folder = folder
        self.settings = {
            "DATABASE_URL": url,
            "AGENT_KEY_PEPPER": PEPPER,
            "APP_ENV": "production",
            "PORT": str(port),
        }
        self.server = start("serve", LOG_FORMAT="json", **self.settings)
        until(lambda: not probe("127.0.0.1", port), 60)
        self.settings["OPENAI_API_KEY"] = "not-a-real-key"  # set after the start: the server would use it
        made = run_command(folder, "keys", "create", "--name", "doctor", "--role", "operator", **self.settings)
        self.key = folder / "key"
        self.key.write_text(re.findall(r"as_\S+", made.stdout)[0])

    def check(self, *words: str, **changed: str) -> tuple[int, dict[str, Any]]:
        """Run ``doctor``; return its exit code and its rows by name."""
        settings = {name: text for name, text in {**self.settings, **changed}.items() if text}
        done = run_command(self.folder, "doctor", "--json", "--key-file", str(self.key), *words, **settings)
        assert done.stderr == ""
        document = json.loads(done.stdout)
        assert document["holds"] is (done.returncode == 0)
        return done.returncode, {f"{row['area']}: {row['check']}": row for row in document["rows"]}


@pytest.fixture
def deployment(tmp_path: Path, start: Start, port: int, login_url: str) -> Deployment:
    return Deployment(tmp_path, start, port, login_url)


def failing(rows: dict[str, Any]) -> set[str]:
    return {name for name, row in rows.items() if row["status"] == "fail"}


@pytest.mark.timeout(180)  # some thirty starts of the command
def test_a_sound_deployment_passes_and_each_fault_is_named(
    deployment: Deployment, empty_database_url: str, database_url: str, tmp_path: Path
) -> None:
    log = tmp_path / "service.log"
    log.write_text('{"event": "started"}\n')
    code, rows = deployment.check("--log", str(log))
    assert (code, failing(rows)) == (0, set())
    for row in rows.values():
        assert row["status"] in {"pass", "not asked"}
        assert row["seen"]
        assert row["status"] == "not asked" or (row["command"] and row["expected"])
    assert rows["database: row level security"]["seen"].startswith("forced on ")

    code, rows = deployment.check(DATABASE_URL=empty_database_url)
    assert code == 1
    assert {"database: migrations", "database: pgvector"} <= failing(rows)
    assert rows["database: migrations"]["seen"].startswith("lacks 0001")

    code, rows = deployment.check(DATABASE_URL=NOWHERE)
    assert (code, failing(rows)) == (1, {"database: reachable"})

    assert failing(deployment.check(DATABASE_URL=database_url)[1]) == {"database: login role"}
    assert failing(deployment.check(OPENAI_API_KEY="")[1]) == {"settings: provider key"}
    assert failing(deployment.check(APP_ENV="development")[1]) == {"settings: production"}
    assert failing(deployment.check(AGENT_KEY_PEPPER="ab" * 16)[1]) == {
        "settings: pepper",
        "settings: serve would start",
    }
    assert failing(deployment.check(AGENT_KEY_PEPER="x")[1]) == {"settings: names known"}
    assert failing(deployment.check(REDIS_URL="redis://127.0.0.1:1/0")[1]) == {"redis: reachable"}
    assert "settings: serve would start" in failing(deployment.check(HOST="0.0.0.0", AGENT_AUTH="none")[1])

    log.write_text(f'{{"event": "started"}}\n{{"event": "oops", "pepper": "{PEPPER}"}}\n')
    code, rows = deployment.check("--log", str(log))
    assert (code, failing(rows)) == (1, {"secrets: none in logs"})
    assert rows["secrets: none in logs"]["seen"] == "AGENT_KEY_PEPPER in line 2"
    assert PEPPER not in json.dumps(rows)

    worded = deployment.settings["DATABASE_URL"].replace("@", ":agents@", 1)
    log.write_text('{"event": "started", "agents": 3}\n')
    code, rows = deployment.check("--log", str(log), DATABASE_URL=worded)
    assert failing(rows) == set()
    seen = rows["secrets: none in answers"]["seen"]
    assert "DATABASE_URL" in seen.partition("because a random one is needed: ")[2]

    log.write_text("")
    code, rows = deployment.check("--log", str(log))
    assert (code, rows["secrets: none in logs"]["status"]) == (1, "skipped")
    assert deployment.check("--log", str(log), "--skip", "none in logs")[0] == 0

    deployment.key.write_text("as_0123456789abcdef_" + "x" * 32)
    assert failing(deployment.check()[1]) == {"server: key accepted"}


def test_a_server_without_authentication_fails(tmp_path: Path, start: Start, port: int, database_url: str) -> None:
    start("serve", "--port", str(port), DATABASE_URL=database_url, AGENT_AUTH="none")
    until(lambda: not probe("127.0.0.1", port), 60)
    done = run_command(tmp_path, "doctor", "--url", f"http://127.0.0.1:{port}")
    assert done.returncode == 1
    assert re.search(r"fail +server +anonymous refused +200", done.stdout)
    assert "\033[" not in done.stdout
    assert "not all checks hold: " in done.stdout


def test_an_unreachable_server_fails(tmp_path: Path, port: int) -> None:
    done = run_command(tmp_path, "doctor", "--url", f"http://127.0.0.1:{port}", "--json")
    assert done.returncode == 1
    assert json.loads(done.stdout)["counts"]["fail"] == 3


@pytest.mark.parametrize(
    "words, sentence",
    [
        ([], "there is nothing to check"),
        (["--url", "nowhere"], "--url must be like http://"),
        (["--source", "."], "has no source tree"),
        (["--url", "http://127.0.0.1:1", "--skip", "fly"], "--skip fly: there is no such check"),
    ],
)
def test_an_invalid_target_is_wrong_usage(tmp_path: Path, words: list[str], sentence: str) -> None:
    done = run_command(tmp_path, "doctor", "--json", *words)
    assert done.returncode == 2
    assert sentence in done.stderr


def test_a_broken_source_tree_is_reported_by_target(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text('name = "agent-service"\n')
    targets = "format-check types contracts migrations secrets-scan"
    (tmp_path / "Makefile").write_text(f"lint:\n\t@echo E501 too long; exit 3\n{targets}:\n\t@true\n")
    done = run_command(tmp_path, "doctor", "--json", "--quick")
    assert done.returncode == 1
    rows = {row["check"]: row for row in json.loads(done.stdout)["rows"] if row["area"] == "source"}
    assert rows["lint"]["status"] == "fail"
    assert rows["lint"]["seen"] == "exit code 2: E501 too long"
    assert rows["types"]["status"] == "pass"
    assert rows["test"]["seen"] == "--quick"


INSPECTED = {
    "State": {"Status": "running", "Health": {"Status": "healthy"}},
    "Config": {"User": "10001:10001"},
    "EffectiveCaps": [],
    "HostConfig": {
        "ReadonlyRootfs": True,
        "CapDrop": ["CAP_CHOWN", "CAP_KILL"],
        "SecurityOpt": ["no-new-privileges"],
        "Memory": 1_000_000_000,
    },
}
"""Output of ``podman inspect`` for the server of ``compose.yaml``."""


@pytest.mark.parametrize(
    "place, value, check",
    [
        (("Config", "User"), "", "user"),
        (("Config", "User"), "0:0", "user"),
        (("HostConfig", "ReadonlyRootfs"), False, "read-only root"),
        (("EffectiveCaps",), ["CAP_CHOWN"], "capabilities"),
        (("HostConfig", "SecurityOpt"), [], "no-new-privileges"),
        (("HostConfig", "Privileged"), True, "privileged"),
        (("HostConfig", "Memory"), 0, "memory limit"),
        (("State", "Health"), {"Status": "unhealthy"}, "health check"),
        (("State", "Status"), "exited", "running"),
        ((), None, ""),
    ],
)
def test_the_hardening_of_a_container_is_checked(
    tmp_path: Path, place: tuple[str, ...], value: Any, check: str
) -> None:
    inspected = json.loads(json.dumps(INSPECTED))
    if place:
        inner = inspected
        for name in place[:-1]:
            inner = inner[name]
        inner[place[-1]] = value
    podman = tmp_path / "podman"
    podman.write_text(f"#!/bin/sh\ncat <<'EOF'\n{json.dumps([inspected])}\nEOF\n")
    podman.chmod(0o755)
    path = os.pathsep.join([str(tmp_path), os.environ["PATH"]])
    done = run_command(tmp_path, "doctor", "--json", "--container", "app", PATH=path)
    failed = [row["check"] for row in json.loads(done.stdout)["rows"] if row["status"] == "fail"]
    assert failed == ([check] if check else [])


@pytest.mark.parametrize(
    "text, holds",
    [
        ("groups:\n- name: a\n  rules:\n  - alert: A\n    expr: agent_runs_active > 1\n", True),
        ("groups:\n- name: a\n  rules:\n  - alert: A\n", False),
        ("groups: [", False),
        ("rules: []\n", False),
    ],
)
def test_rules_load(tmp_path: Path, text: str, holds: bool) -> None:
    rules = tmp_path / "alerts.yml"
    rules.write_text(text)
    assert (run_command(tmp_path, "doctor", "--rules", str(rules)).returncode == 0) is holds


@pytest.mark.parametrize("quote", ['"', "'", '\\"'])
def test_a_rule_for_an_unknown_label_value_fails(tmp_path: Path, quote: str) -> None:
    rules = tmp_path / "alerts.yml"
    expression = f"agent_runs_total{{status={quote}VALUE{quote}}} > 1"
    written = f'"{expression}"' if "\\" in quote else expression
    rule = f"groups:\n- name: a\n  rules:\n  # agent_runs_total{{status='x'}}\n  - alert: A\n    expr: {written}\n"
    rules.write_text(rule.replace("VALUE", "success"))
    assert run_command(tmp_path, "doctor", "--rules", str(rules)).returncode == 0
    rules.write_text(rule.replace("VALUE", "succes"))
    done = run_command(tmp_path, "doctor", "--json", "--rules", str(rules))
    assert done.returncode == 1
    assert "alerts.yml: agent_runs_total has no status 'succes': it is one of 'success'" in done.stdout


def test_a_rule_for_an_unknown_metric_fails(tmp_path: Path, start: Start, port: int, database_url: str) -> None:
    start("serve", "--port", str(port), DATABASE_URL=database_url, AGENT_AUTH="none")
    until(lambda: not probe("127.0.0.1", port), 60)
    rules = tmp_path / "alerts.yml"
    rule = "groups:\n- name: a\n  rules:\n  - alert: A\n    expr: sum by (agent_x) (rate(agent_runs_total[5m])) > {}\n"
    words = ("doctor", "--json", "--url", f"http://127.0.0.1:{port}", "--rules", str(rules), "--skip", "server")
    rules.write_text(rule.format("1"))
    assert run_command(tmp_path, *words).returncode == 0
    rules.write_text(rule.format("agent_fairies"))
    done = run_command(tmp_path, *words)
    assert done.returncode == 1
    assert "not exposed: agent_fairies" in done.stdout


def test_make_is_killed_after_its_timeout(tmp_path: Path) -> None:
    from app.cli.doctor.external_programs import run_command as bounded

    assert bounded(["sleep", "60"], 0.2) == (False, "not done after 0.2 s")
    assert subprocess.run(["pgrep", "-P", str(os.getpid()), "sleep"], check=False).returncode != 0


@pytest.mark.parametrize(
    "secret, ordinary",
    [("agents", True), ("postgres-16", True), ("Password2024", True), ("12345678", True), ("abc", True),
     ("k3Yx9-pQ2", False), ("0f" * 16, False), ("correct-horse-battery-staple", False)],
)  # fmt: skip
def test_an_ordinary_word_is_not_searched_for(secret: str, ordinary: bool) -> None:
    assert is_ordinary(secret) is ordinary
