"""``tenants``: limits of their own, and what was spent."""

from pathlib import Path

from tests.cli.commands import PEPPER, only_line, ran


def test_a_tenant_gets_limits_of_its_own_and_loses_them_again(tmp_path: Path, fresh_database_url: str) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    made = ran(
        tmp_path,
        "tenants",
        "limits",
        "acme",
        "--create",
        "--set",
        "rate_per_minute=600",
        "--set",
        "cost_per_day=2.5",
        **settings,
    )
    assert made.returncode == 0, made.stderr
    shown = dict(line.split(maxsplit=1) for line in made.stdout.splitlines()[1:])
    assert (shown["rate_per_minute"], shown["cost_per_day"], shown["runs"]) == ("600", "2.5", "as the setting says")
    unset = ran(tmp_path, "tenants", "limits", "acme", "--unset", "cost_per_day", **settings)
    assert (
        dict(line.split(maxsplit=1) for line in unset.stdout.splitlines()[1:])["cost_per_day"] == "as the setting says"
    )
    assert ran(tmp_path, "tenants", "limits", "acme", **settings).stdout == unset.stdout
    assert len(ran(tmp_path, "tenants", "usage", "acme", **settings).stdout.splitlines()) == 1


def test_what_is_no_limit_is_one_line(tmp_path: Path, fresh_database_url: str) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    for given, words in (
        (["--set", "speed=3"], "there is no limit 'speed': use rate_per_minute, "),
        (["--set", "runs"], "--set must be NAME=NUMBER, not 'runs'"),
        (["--set", "runs=many"], "--set: "),
        (["--set", "runs=-1"], "--set: a limit is never below 0"),
    ):
        done = ran(tmp_path, "tenants", "limits", "acme", "--create", *given, **settings)
        assert done.returncode == 2
        assert only_line(done).startswith(words)


def test_a_mistyped_tenant_is_neither_listed_nor_limited_and_a_new_one_is_named(
    tmp_path: Path, fresh_database_url: str
) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    made = ran(tmp_path, "keys", "create", "--name", "k", "--tenant", "acme", **settings)
    assert (made.returncode, "tenant 'acme' is new" in made.stderr) == (0, True)
    again = ran(tmp_path, "keys", "create", "--name", "k", "--tenant", "acme", **settings)
    assert (again.returncode, "is new" in again.stderr) == (0, False)
    unknown: list[tuple[str, ...]] = [
        ("keys", "list", "--tenant", "acne"),
        ("tenants", "limits", "acne"),
        ("tenants", "limits", "acne", "--set", "runs=1"),
        ("tenants", "usage", "acne"),
    ]
    for words in unknown:
        done = ran(tmp_path, *words, **settings)
        assert (done.returncode, only_line(done).startswith("Tenant 'acne' not found")) == (1, True)
    known: list[tuple[str, ...]] = [
        ("keys", "list"),
        ("tenants", "limits", "default", "--set", "runs=1"),
        ("tenants", "usage", "acme"),
    ]
    for words in known:
        assert ran(tmp_path, *words, **settings).returncode == 0
