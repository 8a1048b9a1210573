"""``make migrations``: up, no drift, down, up again; differences are named."""

import pytest

from tests import migrations_check
from tests.db.conftest import Later


def test_the_migrations_make_what_the_code_describes(capsys: pytest.CaptureFixture[str]) -> None:
    assert migrations_check.main() == 0
    printed = capsys.readouterr()
    assert [line.rpartition(": ")[2] for line in printed.out.splitlines()] == ["ok"] * 5
    assert printed.err == ""


def test_a_difference_is_named(later: Later, capsys: pytest.CaptureFixture[str]) -> None:
    later("forgotten")
    assert migrations_check.main() == 1
    assert "made_by_forgotten" in capsys.readouterr().err


def test_a_migration_that_fails_is_named(later: Later, capsys: pytest.CaptureFixture[str]) -> None:
    later("fails", "op.execute('select 1 / 0')")
    assert migrations_check.main() == 1
    assert "division by zero" in capsys.readouterr().err
