"""Settings from the environment, with errors that name the fix."""

from pathlib import Path

import pytest

from app.base.errors import UsageError
from app.infra.settings.environment import Settings, check_serving, child_environment, is_loopback, load, variables
from docs.configuration import PAGE, render

NOWHERE = Path("no-such-file")
PEPPER = "0123456789abcdef" * 2


def read(**environ: str) -> Settings:
    return load(environ, dotenv=NOWHERE)


def test_defaults_apply_without_variables() -> None:
    settings = read()
    assert (settings.server.host, settings.server.port, settings.server.workers) == ("127.0.0.1", 8000, 1)
    assert settings.auth.mode == "api_key"
    assert settings.database.url is None
    assert settings.runs.drain_seconds == 30
    assert settings.warnings == ()


def test_each_variable_reaches_its_field() -> None:
    settings = read(
        APP_ENV="production",
        LOG_LEVEL="WARNING",
        PORT="9000",
        AGENT_MIGRATE_ON_START="1",
        AGENT_LEASE_SECONDS="4.5",
        DATABASE_URL="postgresql:///agents?host=/run/postgresql",
        OPENAI_BASE_URL="http://localhost:11434/v1",
        ROOT_PATH="/agents",
    )
    assert settings.server.environment == "production"
    assert settings.server.log_level == "warning"
    assert settings.server.port == 9000
    assert settings.server.root_path == "/agents"
    assert settings.database.migrate_on_start is True
    assert settings.runs.lease_seconds == 4.5
    assert settings.database.url is not None
    assert settings.database.url.reveal() == "postgresql:///agents?host=/run/postgresql"
    assert settings.llm.openai_base_url == "http://localhost:11434/v1"


def test_no_two_fields_share_a_variable() -> None:
    names = [variable.name for variable in variables()]
    assert len(names) == len(set(names))


def test_migrations_use_the_owners_url_or_else_the_ordinary_one() -> None:
    ordinary, owner = "postgresql://app@host/agents", "postgresql://owner@host/agents"
    alone = read(DATABASE_URL=ordinary).database.owner_url
    both = read(DATABASE_URL=ordinary, MIGRATE_DATABASE_URL=owner).database.owner_url
    assert alone is not None
    assert alone.reveal() == ordinary
    assert both is not None
    assert both.reveal() == owner


def test_an_empty_value_counts_as_unset() -> None:
    assert read(PORT="", OPENAI_API_KEY=" ").llm.openai_api_key is None


@pytest.mark.parametrize(
    "name, value, sentence",
    [
        ("PORT", "abc", "PORT must be a whole number from 1 to 65535, not 'abc'"),
        ("PORT", "70000", "PORT must be a whole number from 1 to 65535, not '70000'"),
        ("APP_ENV", "staging", "APP_ENV must be one of development, production, not 'staging'"),
        ("AGENT_MIGRATE_ON_START", "maybe", "AGENT_MIGRATE_ON_START must be true or false, not 'maybe'"),
        (
            "AGENT_REQUEST_BYTES",
            "9",
            "AGENT_REQUEST_BYTES must be a whole number from 1048576 to 33554432, not '9'",
        ),
        ("AGENT_LEASE_SECONDS", "nan", "AGENT_LEASE_SECONDS must be a number from 3 to 3600, not 'nan'"),
        (
            "OPENAI_BASE_URL",
            "localhost:11434",
            "OPENAI_BASE_URL must be like http://localhost:11434/v1, not 'localhost",
        ),
        ("AGENT_DEFAULT_MODEL", "gpt", "AGENT_DEFAULT_MODEL must be like openai:gpt-5-mini, not 'gpt'"),
        ("ROOT_PATH", "agents", "ROOT_PATH must be like /agents, not 'agents'"),
        ("LOG_LEVEL", "info\ndebug", "LOG_LEVEL holds a line break or another control character; remove it"),
    ],
)
def test_an_invalid_value_is_refused_with_its_name_and_the_allowed_values(name: str, value: str, sentence: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(**{name: value})
    assert str(caught.value).startswith(sentence)
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize(
    "name, value",
    [
        ("DATABASE_URL", "mysql://me:canary-7f@host/db"),
        ("AGENT_KEY_PEPPER", "canary-7f"),
        ("OPENAI_API_KEY", "canary-7f\r\nX-Evil: 1"),
    ],
)
def test_a_refused_secret_is_not_shown(name: str, value: str) -> None:
    with pytest.raises(UsageError) as caught:
        read(**{name: value})
    assert name in str(caught.value)
    assert "canary" not in str(caught.value)


def test_printing_the_settings_shows_no_secret() -> None:
    shown = repr(read(OPENAI_API_KEY="canary-7f", DATABASE_URL="postgresql://me:canary-7f@host/db"))
    assert "canary" not in shown


def test_a_secret_may_come_from_a_file(tmp_path: Path) -> None:
    path = tmp_path / "key"
    path.write_text("from-a-file\n")
    key = read(OPENAI_API_KEY_FILE=str(path)).llm.openai_api_key
    assert key is not None
    assert key.reveal() == "from-a-file"


def test_a_secret_given_twice_is_refused(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="OPENAI_API_KEY and OPENAI_API_KEY_FILE are both set"):
        read(OPENAI_API_KEY="one", OPENAI_API_KEY_FILE=str(tmp_path / "key"))


@pytest.mark.parametrize(
    "content, complaint", [(None, "cannot read .*No such file"), (b"", "is empty"), (b"\xff\xfe", "is not UTF-8")]
)
def test_an_unusable_secret_file_is_refused_by_name(tmp_path: Path, content: bytes | None, complaint: str) -> None:
    path = tmp_path / "key"
    if content is not None:
        path.write_bytes(content)
    with pytest.raises(UsageError, match=f"^ANTHROPIC_API_KEY_FILE: .*{complaint}"):
        read(ANTHROPIC_API_KEY_FILE=str(path))


def test_the_real_environment_wins_over_the_file_and_both_over_a_commands_defaults(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("# a comment\nPORT=7001\nHOST='::1'\nexport LOG_LEVEL=debug\n")
    settings = load({"PORT": "7002"}, dotenv=dotenv, defaults={"LOG_LEVEL": "error", "AGENT_AUTH": "none"})
    assert settings.server.port == 7002
    assert settings.server.host == "::1"
    assert settings.server.log_level == "debug"
    assert settings.auth.mode == "none"


def test_a_secret_of_the_real_environment_wins_over_a_secret_file_named_in_the_file(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("OPENAI_API_KEY_FILE=/nowhere\n")
    key = load({"OPENAI_API_KEY": "real"}, dotenv=dotenv).llm.openai_api_key
    assert key is not None
    assert key.reveal() == "real"


def test_a_dollar_sign_in_the_file_is_only_a_dollar_sign(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_text("OPENAI_API_KEY=a${PATH}b\n")
    key = load({}, dotenv=dotenv).llm.openai_api_key
    assert key is not None
    assert key.reveal() == "a${PATH}b"


def test_an_unreadable_file_is_refused(tmp_path: Path) -> None:
    dotenv = tmp_path / ".env"
    dotenv.write_bytes(b"PORT=\xff\n")
    with pytest.raises(UsageError, match="as UTF-8 text"):
        load({}, dotenv=dotenv)


def test_an_unknown_setting_gets_a_warning_with_a_suggestion() -> None:
    settings = read(AGENT_LEASE_SECOND="5", AGENT_XYZZY="1", AGENT_SERVICE_PORT_80_TCP="tcp://10.0.0.1:80", OTHER="1")
    assert settings.warnings == (
        "AGENT_LEASE_SECOND is not a setting and is ignored; did you mean AGENT_LEASE_SECONDS?",
        "AGENT_XYZZY is not a setting and is ignored",
    )


@pytest.mark.parametrize(
    "host, loopback",
    [
        ("127.0.0.1", True),
        ("127.9.9.9", True),
        ("::1", True),
        ("localhost", True),
        ("0.0.0.0", False),
        ("::", False),
        ("example.org", False),
    ],
)
def test_which_addresses_are_loopback(host: str, loopback: bool) -> None:
    assert is_loopback(host) is loopback


@pytest.mark.parametrize(
    "environ, sentence",
    [
        ({"AGENT_KEY_PEPPER": PEPPER}, "DATABASE_URL is not set"),
        ({"DATABASE_URL": "postgresql://h/d"}, "AGENT_KEY_PEPPER is not set"),
        ({"DATABASE_URL": "postgresql://h/d", "AGENT_AUTH": "none", "HOST": "0.0.0.0"}, "AGENT_AUTH=none would serve"),
    ],
)
def test_serving_is_refused_with_missing_or_weak_settings(environ: dict[str, str], sentence: str) -> None:
    with pytest.raises(UsageError, match=f"^{sentence}"):
        check_serving(read(**environ))


def test_serving_without_keys_is_allowed_only_on_loopback() -> None:
    check_serving(read(DATABASE_URL="postgres://h/d", AGENT_KEY_PEPPER=PEPPER, HOST="0.0.0.0"))
    check_serving(read(DATABASE_URL="postgres://h/d", AGENT_AUTH="none"))


def test_the_settings_page_is_up_to_date() -> None:
    """docs/reference/configuration.md equals the output of `make docs-config`."""
    assert PAGE.read_text(encoding="utf-8") == render()


@pytest.mark.parametrize(
    "given, words",
    [
        ({"AGENT_KEY_PEPPER": "a" * 32}, "AGENT_KEY_PEPPER is not random; set it to the output of: openssl rand"),
        ({"AGENT_KEY_PEPPER": "abcabcab" * 8}, "AGENT_KEY_PEPPER is not random"),
        ({"AGENT_WEBHOOK_SECRET": "x"}, "AGENT_WEBHOOK_SECRET is too short or not random; set it to the output of"),
        ({"AGENT_WEBHOOK_SECRET": "0123456789abcdef"}, "AGENT_WEBHOOK_SECRET is too short"),
        ({"AGENT_WEBHOOK_SECRET": "whsec_" + "A" * 32}, "AGENT_WEBHOOK_SECRET is too short or not random"),
        ({"AGENT_KEY_PEPPER_SECONDARY": "a" * 32}, ""),  # until the rotation away from it is done
        ({"AGENT_WEBHOOK_SECRET_SECONDARY": "x"}, ""),
        ({}, ""),
    ],
)
def test_guessable_secrets_are_refused(given: dict[str, str], words: str) -> None:
    strong = {"AGENT_KEY_PEPPER": "0123456789abcdef" * 2, "AGENT_WEBHOOK_SECRET": "0123456789abcdef" * 2}
    settings = read(DATABASE_URL="postgresql://h/d", **{**strong, **given})
    if not words:
        check_serving(settings)
        return
    with pytest.raises(UsageError) as caught:
        check_serving(settings)
    assert str(caught.value).startswith(words)


def test_code_of_a_project_gets_no_secret_of_the_server(monkeypatch: pytest.MonkeyPatch) -> None:
    ours = {variable.name for variable in variables() if variable.is_secret and variable.group != "llm"}
    ours |= {f"{name}_FILE" for name in ours} | {"PGPASSWORD", "OTEL_EXPORTER_OTLP_HEADERS"}
    ours |= {"OTEL_EXPORTER_OTLP_TRACES_HEADERS"}
    for name in {*ours, "OPENAI_API_KEY", "OTEL_SERVICE_NAME"}:
        monkeypatch.setenv(name, "canary")
    found = child_environment({"MINE": "1"})
    assert set(found).isdisjoint(ours)
    assert set(found) >= {"OPENAI_API_KEY", "OTEL_SERVICE_NAME", "MINE"}
