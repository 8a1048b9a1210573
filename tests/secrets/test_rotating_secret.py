"""Secrets that change while the program runs."""

from pathlib import Path

import pytest
from structlog.testing import capture_logs

from app.base.errors import UsageError
from app.infra.secrets.rotating_secret import SecretStore
from app.infra.secrets.secret import Secret
from app.infra.settings.environment import load


class ChangeRecorder:
    """Records changes."""

    def __init__(self) -> None:
        self.events: list[tuple[str, str]] = []

    def __call__(self, name: str, outcome: str) -> None:
        self.events.append((name, outcome))


def opened(folder: Path, **files: str) -> tuple[SecretStore, ChangeRecorder]:
    """A secret store over mounted files, one per variable."""
    environment = {}
    for name, text in files.items():
        (folder / name).write_text(text)
        environment[f"{name}_FILE"] = str(folder / name)
    changes = ChangeRecorder()
    return SecretStore(load(environment, dotenv=folder / "none").read_secret, changes), changes


def test_a_replaced_file_is_read_whole(tmp_path: Path) -> None:
    vault, changes = opened(tmp_path, OPENAI_API_KEY="sk-first", OPENAI_API_KEY_SECONDARY="sk-spare")
    ring = vault.ring("OPENAI_API_KEY", "OPENAI_API_KEY_SECONDARY")
    assert ring.values == (Secret("sk-first"), Secret("sk-spare"))
    (tmp_path / "new").write_text("sk-second\n")
    (tmp_path / "new").rename(tmp_path / "OPENAI_API_KEY")
    assert vault.refresh() == ["OPENAI_API_KEY"]
    assert (ring.values, ring.version) == ((Secret("sk-second"), Secret("sk-spare")), 1)
    assert changes.events == [("OPENAI_API_KEY", "rotated")]
    assert vault.refresh() == []
    assert ring.version == 1


def test_a_folder_replaced_by_symlink_is_read_as_with_kubernetes(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(f"sk-{version}")
    (tmp_path / "data").symlink_to(tmp_path / "1")
    (tmp_path / "key").symlink_to("data/key")
    settings = load({"OPENAI_API_KEY_FILE": str(tmp_path / "key")}, dotenv=tmp_path / "none")
    vault = SecretStore(settings.read_secret, ChangeRecorder())
    ring = vault.ring("OPENAI_API_KEY")
    (tmp_path / "new").symlink_to(tmp_path / "2")
    (tmp_path / "new").rename(tmp_path / "data")
    assert vault.refresh() == ["OPENAI_API_KEY"]
    assert ring.values == (Secret("sk-2"),)


@pytest.mark.parametrize(
    "name, good, bad",
    [
        ("OPENAI_API_KEY", "sk-good", ""),
        ("OPENAI_API_KEY", "sk-good", "two\nlines"),
        ("OPENAI_API_KEY", "sk-good", "\x00"),
        ("DATABASE_URL", "postgresql://a:b@c/d", "mysql://a:b@c/d"),
    ],
)
def test_an_invalid_new_value_keeps_the_old_one_and_is_reported_once(
    tmp_path: Path, name: str, good: str, bad: str
) -> None:
    vault, changes = opened(tmp_path, **{name: good})
    ring = vault.ring(name)
    (tmp_path / name).write_text(bad)
    with capture_logs() as logged:
        assert vault.refresh() == []
        assert vault.refresh() == []
    assert ring.values == (Secret(good),)
    assert changes.events == [(name, "refused")]
    assert [line["event"] for line in logged] == ["secret_refused"]
    assert name in vault.refused[name]
    assert "mysql" not in str(logged)
    (tmp_path / name).write_text(good)
    vault.refresh()
    assert vault.refused == {}


def test_a_missing_file_keeps_the_old_value(tmp_path: Path) -> None:
    vault, changes = opened(tmp_path, OPENAI_API_KEY="sk-first")
    ring = vault.ring("OPENAI_API_KEY")
    (tmp_path / "OPENAI_API_KEY").unlink()
    assert vault.refresh() == []
    assert ring.values == (Secret("sk-first"),)
    assert changes.events == [("OPENAI_API_KEY", "refused")]


def test_keep_retains_the_previous_value_as_the_last_one(tmp_path: Path) -> None:
    vault, _ = opened(tmp_path, DATABASE_URL="postgresql://a:1@c/d")
    ring = vault.ring("DATABASE_URL", keep=True)
    (tmp_path / "DATABASE_URL").write_text("postgresql://a:2@c/d")
    assert ring.refresh()
    assert ring.values == (Secret("postgresql://a:2@c/d"), Secret("postgresql://a:1@c/d"))
    assert not ring.refresh()


def test_a_secret_may_be_set_after_the_start(tmp_path: Path) -> None:
    (tmp_path / "spare").write_text("sk-spare")
    environment = {"OPENAI_API_KEY": "sk-environment"}
    vault = SecretStore(load(environment, dotenv=tmp_path / "none").read_secret, ChangeRecorder())
    ring = vault.ring("OPENAI_API_KEY", "OPENAI_API_KEY_SECONDARY")
    assert ring.pair() == (Secret("sk-environment"), None)
    environment["OPENAI_API_KEY_SECONDARY_FILE"] = str(tmp_path / "spare")
    assert vault.refresh() == ["OPENAI_API_KEY_SECONDARY"]
    assert ring.pair() == (Secret("sk-environment"), Secret("sk-spare"))


def test_an_invalid_value_at_the_start_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    with pytest.raises(UsageError, match="OPENAI_API_KEY_FILE"):
        load({"OPENAI_API_KEY_FILE": str(tmp_path / "key")}, dotenv=tmp_path / "none")
