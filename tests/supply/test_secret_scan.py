"""The secret scan finds every kind in files and in the history, and does not print it."""

import subprocess
from pathlib import Path

import pytest

from requirements import secret_scan
from requirements.secret_scan import KINDS, allowed, main, scan

ROOT = Path(__file__).parents[2]

PLANTED = {
    "key of a model provider": [
        "sk-" + "ant-api03-" + "Ab1" * 12,
        "sk-" + "proj-" + "Zz9" * 12,
        "AI" + "za" + "Q" * 35,
    ],
    "key of this server": ["as_" + "0123456789abcdef" + "_" + "Ab_-" * 10 + "xyz"],
    "private key": ["-----BEGIN " + kind + "PRIVATE KEY-----" for kind in ("", "RSA ", "EC ", "OPENSSH ")],
    "AWS": ["AK" + "IA" + "ABCDEFGHIJKLMNOP", "aws_secret_" + "access_key = " + "aB3/" * 10],
    "GitHub": ["gh" + "p_" + "a1" * 18, "github_" + "pat_" + "a1_" * 20],
    "Slack": ["xo" + "xb-" + "123456789012-abcdefghijkl", "hooks.slack" + ".com/services/T0AB1/B0CD2/" + "x1" * 10],
    "token (JWT)": ["ey" + "JhbGciOiJIUzI1NiJ9." + "ey" + "JzdWIiOiJhZGEifQ." + "s1" * 20],
    "password in an address": [
        "postgresql://" + "svc:" + "tr0ub4dor" + "@db.internal/app",
        "redis://" + ":s3cret" + "@cache",
    ],
    "address of a package index": [
        "--extra-" + "index-url https://mirror.internal/x",
        "https://mirror.internal" + "/simple/",
    ],
}
CASES = [(kind, value) for kind, values in PLANTED.items() for value in values]


def git(folder: Path, *words: str) -> None:
    who = ("-c", "user.name=Ada", "-c", "user.email=ada@example.com", "-c", "commit.gpgsign=false")
    subprocess.run(["git", *who, *words], cwd=folder, check=True, capture_output=True)


def commit(folder: Path, message: str = "A change", **files: str) -> None:
    for name, text in files.items():
        (folder / name).write_text(text)
    git(folder, "add", "--all")
    git(folder, "commit", "--allow-empty", "--message", message)


@pytest.fixture
def repository(tmp_path: Path) -> Path:
    git(tmp_path, "init", "--quiet")
    commit(tmp_path, readme="nothing here\n")
    return tmp_path


def test_each_kind_has_an_example() -> None:
    assert set(PLANTED) == set(KINDS)


@pytest.mark.parametrize("kind, value", CASES, ids=[f"{kind} {n}" for n, (kind, _) in enumerate(CASES)])
def test_a_secret_in_a_tracked_file_is_found_and_not_shown(
    repository: Path, kind: str, value: str, capsys: pytest.CaptureFixture[str]
) -> None:
    (repository / "settings").write_text(f"first line\nvalue = '{value}'\n")
    git(repository, "add", "--all")
    assert main([str(repository)]) == 1
    said = capsys.readouterr().out
    assert f"settings:2: {kind}: " in said
    assert value not in said


def test_a_secret_removed_by_a_later_commit_is_found(repository: Path) -> None:
    _, value = CASES[0]
    commit(repository, settings=value)
    commit(repository, settings="nothing")
    assert (repository / "settings").read_text() == "nothing"
    [finding], _ = scan(repository)
    assert finding.where.endswith(" settings")
    assert finding.value.startswith(value)


def test_a_secret_in_a_commit_message_is_found(repository: Path) -> None:
    commit(repository, f"Use {PLANTED['key of this server'][0]}")
    [finding], _ = scan(repository)
    assert finding.where.endswith(" message")


def test_only_listed_values_are_allowed(repository: Path) -> None:
    (repository / "requirements").mkdir()
    one, other = PLANTED["password in an address"]
    rule = f"[[allowed]]\nkind = 'password in an address'\nvalue = '{one.partition('@')[0]}@.'\nreason = 'an example'\n"
    (repository / secret_scan.ALLOWED).write_text(rule)
    commit(repository, one=one + "\n", other=other + "\n")
    findings, passed = scan(repository)
    assert {finding.where.rpartition(" ")[2] for finding in findings} == {"other"}
    assert passed > 0
    (repository / secret_scan.ALLOWED).write_text(rule.replace("an example", " "))
    with pytest.raises(ValueError, match="reason"):
        allowed(repository)
