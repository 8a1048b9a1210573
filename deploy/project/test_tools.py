"""Tests of the tools, and of whether the agents load: python -m pytest"""

import pytest

from app.cli.main import main
from tools import find_order


def test_an_order_is_found() -> None:
    assert find_order(17)["state"] == "sent"


def test_an_unknown_order_is_an_error_that_the_model_can_read() -> None:
    with pytest.raises(ValueError, match="no order 99"):
        find_order(99)


def test_every_agent_loads() -> None:
    assert main(["agents", "check", "--agents", "agents.toml"]) == 0
