"""``keys``: the secret is printed once; keys are listed, rotated and revoked."""

from pathlib import Path

from tests.cli.commands import PEPPER, only_line, run_command


def test_a_key_is_made_listed_and_revoked(tmp_path: Path, fresh_database_url: str) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    made = run_command(tmp_path, "keys", "create", "--name", "ci", "--expires", "90d", **settings)
    assert made.returncode == 0, made.stderr
    key = made.stdout.strip()
    _, key_id, secret = key.split("_", 2)
    assert "not shown again" in made.stderr
    assert secret not in made.stderr

    listed = run_command(tmp_path, "keys", "list", **settings)
    header, row = listed.stdout.splitlines()
    assert header.split() == ["ID", "NAME", "ROLE", "CREATED", "USED", "STATE"]
    assert row.split()[:2] == [key_id, "ci"]
    assert row.split()[2] == "member"
    assert row.split()[4:6] == ["never", "expires"]
    assert secret not in listed.stdout

    rotated = run_command(tmp_path, "keys", "rotate", key_id, "--keep", "2h", **settings)
    assert rotated.stdout.startswith(f"as_{key_id}_")
    assert rotated.stdout.strip() != key

    assert run_command(tmp_path, "keys", "revoke", key_id, **settings).returncode == 0
    assert run_command(tmp_path, "keys", "list", **settings).stdout.splitlines()[1].endswith("revoked")
    assert run_command(tmp_path, "keys", "list", "--tenant", "acme", **settings).returncode == 1


def test_an_impossible_action_is_one_line(tmp_path: Path, fresh_database_url: str, empty_database_url: str) -> None:
    unknown = run_command(
        tmp_path, "keys", "revoke", "nothing", DATABASE_URL=fresh_database_url, AGENT_KEY_PEPPER=PEPPER
    )
    assert (unknown.returncode, only_line(unknown)) == (1, "Key nothing not found in tenant 'default'.")
    empty = run_command(tmp_path, "keys", "list", DATABASE_URL=empty_database_url, AGENT_KEY_PEPPER=PEPPER)
    assert empty.returncode == 1
    assert only_line(empty) == "the database lacks migrations: run `agent-service migrate` first"
    bare = run_command(tmp_path, "keys", "list", DATABASE_URL=fresh_database_url)
    assert bare.returncode == 2
    assert only_line(bare) == "AGENT_KEY_PEPPER is not set; set it to that of the server"


def test_an_invalid_role_or_time_is_one_line(tmp_path: Path, fresh_database_url: str) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    role = run_command(tmp_path, "keys", "create", "--name", "ci", "--role", "root", **settings)
    assert (role.returncode, only_line(role)) == (
        2,
        "--role must be one of read-only, runner, member, operator, admin, not 'root'",
    )
    keep = run_command(tmp_path, "keys", "rotate", "0123456789abcdef", "--keep", "soon", **settings)
    assert (keep.returncode, only_line(keep)) == (2, "--keep must be a number and m, h, d or w, like 90d, not 'soon'")
