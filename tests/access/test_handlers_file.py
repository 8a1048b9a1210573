"""The part ``[auth]`` of the agents file: what does not start, and what counts as authentication."""

from pathlib import Path

import pytest

from app.base.errors import StartError, UsageError
from app.settings import check_serving, load
from tests.access.test_handlers import FILE
from tests.system.house import built


@pytest.mark.parametrize(
    "code, complaint",
    [
        ("auth = 1", "is no langgraph_sdk.Auth object"),
        ("from langgraph_sdk import Auth\nauth = Auth()", "has no handler @auth.authenticate"),
        (
            "from langgraph_sdk import Auth\nauth = Auth()\n@auth.authenticate\nasync def a(cookie): ...",
            "asks for 'cookie', which is none of request, body",
        ),
        ("other = 1", "has no attribute 'auth'"),
    ],
)
def test_a_file_without_usable_handlers_does_not_start(tmp_path: Path, code: str, complaint: str) -> None:
    (tmp_path / "who.py").write_text(code)
    (tmp_path / "agents.toml").write_text('[auth]\npath = "./who.py:auth"\n')
    with pytest.raises(StartError, match=complaint) as raised:
        built("postgresql://nobody@/nothing?host=/nowhere", AGENT_CONFIG=str(tmp_path / "agents.toml"))
    assert str(tmp_path / "agents.toml") in str(raised.value)


def test_tokens_and_handlers_at_once_are_refused() -> None:
    jwt = {"AGENT_JWT_ISSUER": "https://login.example.com", "AGENT_JWT_AUDIENCE": "us"}
    with pytest.raises(UsageError, match="both tell who asks"):
        built("postgresql://nobody@/nothing?host=/nowhere", AGENT_AUTH="jwt", AGENT_CONFIG=FILE, **jwt)


def test_handlers_count_as_authentication_on_an_open_address() -> None:
    settings = load(
        {"DATABASE_URL": "postgresql://h/d", "AGENT_AUTH": "none", "HOST": "0.0.0.0"},
        dotenv=Path("/dev/null"),
    )
    with pytest.raises(UsageError):
        check_serving(settings)
    check_serving(settings, handled=True)
