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
    store, changes = opened(tmp_path, OPENAI_API_KEY="sk-first", OPENAI_API_KEY_SECONDARY="sk-spare")
    secret = store.rotating("OPENAI_API_KEY", "OPENAI_API_KEY_SECONDARY")
    assert secret.values == (Secret("sk-first"), Secret("sk-spare"))
    (tmp_path / "new").write_text("sk-second\n")
    (tmp_path / "new").rename(tmp_path / "OPENAI_API_KEY")
    assert store.refresh() == ["OPENAI_API_KEY"]
    assert (secret.values, secret.version) == ((Secret("sk-second"), Secret("sk-spare")), 1)
    assert changes.events == [("OPENAI_API_KEY", "rotated")]
    assert store.refresh() == []
    assert secret.version == 1


def test_a_folder_replaced_by_symlink_is_read_as_with_kubernetes(tmp_path: Path) -> None:
    for version in ("1", "2"):
        (tmp_path / version).mkdir()
        (tmp_path / version / "key").write_text(f"sk-{version}")
    (tmp_path / "data").symlink_to(tmp_path / "1")
    (tmp_path / "key").symlink_to("data/key")
    settings = load({"OPENAI_API_KEY_FILE": str(tmp_path / "key")}, dotenv=tmp_path / "none")
    store = SecretStore(settings.read_secret, ChangeRecorder())
    secret = store.rotating("OPENAI_API_KEY")
    (tmp_path / "new").symlink_to(tmp_path / "2")
    (tmp_path / "new").rename(tmp_path / "data")
    assert store.refresh() == ["OPENAI_API_KEY"]
    assert secret.values == (Secret("sk-2"),)


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
    store, changes = opened(tmp_path, **{name: good})
    secret = store.rotating(name)
    (tmp_path / name).write_text(bad)
    with capture_logs() as logged:
        assert store.refresh() == []
        assert store.refresh() == []
    assert secret.values == (Secret(good),)
    assert changes.events == [(name, "refused")]
    assert [line["event"] for line in logged] == ["secret_refused"]
    assert name in store.refused[name]
    assert "mysql" not in str(logged)
    (tmp_path / name).write_text(good)
    store.refresh()
    assert store.refused == {}


def test_a_missing_file_keeps_the_old_value(tmp_path: Path) -> None:
    store, changes = opened(tmp_path, OPENAI_API_KEY="sk-first")
    secret = store.rotating("OPENAI_API_KEY")
    (tmp_path / "OPENAI_API_KEY").unlink()
    assert store.refresh() == []
    assert secret.values == (Secret("sk-first"),)
    assert changes.events == [("OPENAI_API_KEY", "refused")]


def test_keep_retains_the_previous_value_as_the_last_one(tmp_path: Path) -> None:
    store, _ = opened(tmp_path, DATABASE_URL="postgresql://a:1@c/d")
    secret = store.rotating("DATABASE_URL", keep=True)
    (tmp_path / "DATABASE_URL").write_text("postgresql://a:2@c/d")
    assert secret.refresh()
    assert secret.values == (Secret("postgresql://a:2@c/d"), Secret("postgresql://a:1@c/d"))
    assert not secret.refresh()


def test_a_secret_may_be_set_after_the_start(tmp_path: Path) -> None:
    (tmp_path / "spare").write_text("sk-spare")
    environment = {"OPENAI_API_KEY": "sk-environment"}
    store = SecretStore(load(environment, dotenv=tmp_path / "none").read_secret, ChangeRecorder())
    secret = store.rotating("OPENAI_API_KEY", "OPENAI_API_KEY_SECONDARY")
    assert secret.pair() == (Secret("sk-environment"), None)
    environment["OPENAI_API_KEY_SECONDARY_FILE"] = str(tmp_path / "spare")
    assert store.refresh() == ["OPENAI_API_KEY_SECONDARY"]
    assert secret.pair() == (Secret("sk-environment"), Secret("sk-spare"))


def test_an_invalid_value_at_the_start_is_refused(tmp_path: Path) -> None:
    (tmp_path / "key").write_text("")
    with pytest.raises(UsageError, match="OPENAI_API_KEY_FILE"):
        load({"OPENAI_API_KEY_FILE": str(tmp_path / "key")}, dotenv=tmp_path / "none")
