"""``agent-service mcp config``: what it prints is what each client reads."""

import json
import tomllib
from typing import Any

import pytest

from app.cli.main import main
from app.cli.mcp_config import CLIENTS


def printed(capsys: pytest.CaptureFixture[str], *words: str) -> str:
    assert main(["mcp", "config", *words]) == 0
    return capsys.readouterr().out


def parsed(client: str, text: str) -> Any:
    return tomllib.loads(text) if client == "codex" else json.loads(text)


@pytest.mark.parametrize("client", CLIENTS)
def test_a_client_is_told_the_address_and_no_secret(
    client: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AGENT_AUTH", "api_key")
    monkeypatch.setenv("AGENT_PUBLIC_URL", "https://agents.example.com/x")
    (servers,) = [found for name, found in parsed(client, printed(capsys, client)).items() if "ervers" in name]
    assert servers["agent-service"]["url"] == "https://agents.example.com/x/mcp"
    assert len(servers["agent-service"]) > 1  # where the key comes from
    monkeypatch.setenv("AGENT_AUTH", "none")
    (servers,) = [
        found
        for name, found in parsed(
            client, printed(capsys, client, "--assistant", "echo", "--url", "http://h:1/")
        ).items()
        if "ervers" in name
    ]
    assert servers["agent-service-echo"]["url"] == "http://h:1/mcp/echo"
    assert "key" not in json.dumps(servers).lower()


def test_an_unknown_client_is_wrong_usage(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["mcp", "config", "emacs"]) == 2
    assert "claude" in capsys.readouterr().err
