"""``tenants``: limits and usage."""

import asyncio
import json
from pathlib import Path

import asyncpg
import pytest

from app.base.byte_sizes import parse_size, show_size
from app.security.access.structs import tenant_id_of
from tests.cli.commands import PEPPER, only_line, run_command


def test_limits_of_a_tenant_are_set_and_unset(tmp_path: Path, fresh_database_url: str) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    made = run_command(
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
    unset = run_command(tmp_path, "tenants", "limits", "acme", "--unset", "cost_per_day", **settings)
    assert (
        dict(line.split(maxsplit=1) for line in unset.stdout.splitlines()[1:])["cost_per_day"] == "as the setting says"
    )
    assert run_command(tmp_path, "tenants", "limits", "acme", **settings).stdout == unset.stdout
    assert len(run_command(tmp_path, "tenants", "usage", "acme", **settings).stdout.splitlines()) == 1


def test_an_invalid_limit_is_one_line(tmp_path: Path, fresh_database_url: str) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    for given, words in (
        (["--set", "speed=3"], "there is no limit 'speed': use rate_per_minute, "),
        (["--set", "runs"], "--set must be NAME=NUMBER, not 'runs'"),
        (["--set", "runs=many"], "--set: "),
        (["--set", "runs=-1"], "--set: a limit must not be negative"),
    ):
        done = run_command(tmp_path, "tenants", "limits", "acme", "--create", *given, **settings)
        assert done.returncode == 2
        assert only_line(done).startswith(words)


def test_a_mistyped_tenant_is_refused_and_a_new_one_is_reported(tmp_path: Path, fresh_database_url: str) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    made = run_command(tmp_path, "keys", "create", "--name", "k", "--tenant", "acme", **settings)
    assert (made.returncode, "tenant 'acme' is new" in made.stderr) == (0, True)
    again = run_command(tmp_path, "keys", "create", "--name", "k", "--tenant", "acme", **settings)
    assert (again.returncode, "is new" in again.stderr) == (0, False)
    unknown: list[tuple[str, ...]] = [
        ("keys", "list", "--tenant", "acne"),
        ("tenants", "limits", "acne"),
        ("tenants", "limits", "acne", "--set", "runs=1"),
        ("tenants", "usage", "acne"),
    ]
    for words in unknown:
        done = run_command(tmp_path, *words, **settings)
        assert (done.returncode, only_line(done).startswith("Tenant 'acne' not found")) == (1, True)
    known: list[tuple[str, ...]] = [
        ("keys", "list"),
        ("tenants", "limits", "default", "--set", "runs=1"),
        ("tenants", "usage", "acme"),
    ]
    for words in known:
        assert run_command(tmp_path, *words, **settings).returncode == 0


async def _measured(url: str, share: float) -> None:
    connection = await asyncpg.connect(url)
    await connection.execute(
        "insert into storage_usage (tenant_id, bytes, by_kind, share, measured_at)"
        """ values ($1, 10737418240 * $2::float8, '{"threads": 1024, "store": 5368709120}', $2, now())"""
        " on conflict (tenant_id) do update set bytes = excluded.bytes, share = excluded.share",
        tenant_id_of("acme"),
        share,
    )
    await connection.close()


def test_a_storage_limit_is_set_shown_and_checked(tmp_path: Path, fresh_database_url: str) -> None:
    settings = {"DATABASE_URL": fresh_database_url, "AGENT_KEY_PEPPER": PEPPER}
    done = run_command(tmp_path, "tenants", "limits", "acme", "--create", "--bytes", "10GiB", **settings)
    assert done.returncode == 0, done.stderr
    assert ["bytes", "10737418240", "(10", "GiB)"] in [line.split() for line in done.stdout.splitlines()]
    asyncio.run(_measured(fresh_database_url, 0.5))
    usage = run_command(tmp_path, "tenants", "usage", "acme", **settings).stdout.splitlines()
    assert usage[2].startswith("STORED (")
    assert [" ".join(line.split()) for line in usage[3:]] == [
        "store 5 GiB",
        "threads 1 KiB",
        "all 5 GiB of 10 GiB (50%)",
    ]
    asyncio.run(_measured(fresh_database_url, 0.95))
    document = json.loads(run_command(tmp_path, "doctor", "--json", "--quick", **settings).stdout)
    [row] = [row for row in document["rows"] if row["check"] == "storage of tenants"]
    assert (row["status"], row["seen"]) == ("fail", "acme: 9.5 GiB of 10 GiB")


@pytest.mark.parametrize(
    "text, count, shown",
    [
        ("1048576", 1024**2, "1 MiB"),
        ("10GiB", 10 * 1024**3, "10 GiB"),
        ("1.5 mib", 1024**2 * 3 // 2, "1.5 MiB"),
        ("2kb", 2000, "1.95 KiB"),
        ("0", 0, "0 bytes"),
    ],
)
def test_sizes_are_parsed_and_formatted(text: str, count: int, shown: str) -> None:
    assert (parse_size(text), show_size(count)) == (count, shown)


def test_an_invalid_size_is_refused_with_an_example() -> None:
    for text in ("10 elephants", "-1", "GiB", ""):
        with pytest.raises(ValueError, match="like 10GiB or 500MB"):
            parse_size(text)
