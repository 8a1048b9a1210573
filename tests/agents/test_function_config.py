"""Function agents in the agents file: supported signatures, and one-line errors for others."""

import re
from enum import Enum
from pathlib import Path
from typing import Any, Literal

import msgspec
import pytest

from app.agents.catalog import ToolServices, build
from app.agents.config.agents_file import read
from app.agents.function import Context
from app.agents.functions.agent import FunctionAgent
from app.base.errors import Invalid, StartError
from app.base.ids import new_id
from app.infra.telemetry.meters import Meters
from app.infra.telemetry.tool_calls import ToolCallRecorder
from app.infra.telemetry.tracing import NO_TRACER
from tests.agents.functions import agent
from tests.cli.commands import run_command
from tests.llm.scripted_model import ScriptedModel

UNCOUNTED = ToolCallRecorder(Meters(), NO_TRACER)

GREETER = """
from app.agents.function import Context


async def run(context: Context) -> str:
    return "hi"


def sync(context: Context) -> str:
    return "hi"


async def streams(context: Context):
    yield "hi"


async def alone() -> str:
    return "hi"


async def other(context: int) -> str:
    return "hi"


async def many(context: Context, a: int, b: int) -> str:
    return "hi"


async def named(context: Context, *, a: int = 1) -> str:
    return "hi"


async def odd(context: Context, a: complex) -> str:
    return "hi"


async def unknown(context: Context, a: "Nowhere") -> str:
    return "hi"


thing = 7
"""


def built(folder: Path, function: str, more: str = "") -> Any:
    (folder / "greeter.py").write_text(GREETER)
    (folder / "agents.toml").write_text(f"[agents.greeter]\nfunction = {function!r}\n{more}")
    file = read(str(folder / "agents.toml"))
    return build("greeter", file.agents["greeter"], file, lambda *_: ScriptedModel([]), ToolServices(UNCOUNTED))


def test_a_function_agent_takes_tools_limits_and_instructions_from_its_table(tmp_path: Path) -> None:
    more = "description = 'Greets.'\ntools = ['clock']\nlimits = { seconds = 5 }\napprove = { tools = ['clock'] }"
    found = built(tmp_path, "./greeter.py:run", more)
    assert isinstance(found, FunctionAgent)
    assert (found.name, found.description, found.seconds, found.nodes) == ("greeter", "Greets.", 5.0, ("run",))
    assert found.schemas()["input_schema"]["required"] == ["messages"]
    assert found.graph()["edges"] == [{"source": "__start__", "target": "run"}, {"source": "run", "target": "__end__"}]


@pytest.mark.parametrize(
    "function, words",
    [
        ("./nowhere.py:run", r"'./nowhere.py' is not a file in "),
        ("./greeter.py:nothing", "has no attribute 'nothing'"),
        ("greeter", "write module:attribute or ./file.py:attribute"),
        ("./greeter.py:sync", "is not async: write async def run"),
        ("./greeter.py:streams", "yields: write async def run"),
        ("./greeter.py:alone", "must take the context first"),
        ("./greeter.py:other", "must take the context first"),
        ("./greeter.py:many", "takes 3 parameters, more than the context and one input"),
        ("./greeter.py:named", "parameter 'a' must be an ordinary one"),
        ("./greeter.py:odd", "its parameter 'a' has the type complex, which cannot be described as JSON; use str, int"),
        ("./greeter.py:unknown", "its annotations cannot be read: name 'Nowhere' is not defined"),
        ("./greeter.py:thing", "is not a function but of type int"),
    ],
)
def test_an_unsupported_function_is_reported_in_one_line(tmp_path: Path, function: str, words: str) -> None:
    with pytest.raises(StartError) as caught:
        built(tmp_path, function)
    (line,) = str(caught.value).splitlines()
    assert line.startswith(f"{tmp_path}/agents.toml: agent 'greeter': ")
    assert re.search(words, line)


def test_the_command_lists_and_checks_function_agents(tmp_path: Path) -> None:
    (tmp_path / "greeter.py").write_text(GREETER)
    (tmp_path / "agents.toml").write_text(
        "[agents.good]\nfunction = './greeter.py:run'\n[agents.bad]\nfunction = './greeter.py:sync'\n"
    )
    listed = run_command(tmp_path, "agents", "list").stdout
    assert re.search(r"^good +function ./greeter.py:run +scripted:demo +-$", listed, re.MULTILINE)
    checked = run_command(tmp_path, "agents", "check")
    assert checked.returncode == 1
    assert re.search(r"^ok +good$", checked.stdout, re.MULTILINE)
    assert re.search(r"^failed +bad: .*'./greeter.py:sync' is not async", checked.stdout, re.MULTILINE)


class Colour(Enum):
    RED = "red"
    BLUE = "blue"


class Item(msgspec.Struct):
    colour: Colour
    size: Literal["s", "l"] = "s"


class Wanted(msgspec.Struct):
    items: list[Item]
    count: int = 1


@pytest.mark.parametrize(
    "value, pointer, words",
    [
        (
            {"items": [{"colour": "red"}, {"colour": "green"}]},
            "/input/items/1/colour",
            "has the invalid enum value 'green': use one of blue, red",
        ),
        (
            {"items": [{"colour": "red", "size": "m"}]},
            "/input/items/0/size",
            "has the invalid enum value 'm': use one of l, s",
        ),
        ({"items": [{}]}, "/input/items/0/colour", "is missing"),
        ({"items": [], "count": "1"}, "/input/count", "must be an integer, not a string"),
        ([], "/input", "must be an object, not an array"),
    ],
)
def test_an_invalid_input_is_rejected_with_a_pointer_and_reason(value: Any, pointer: str, words: str) -> None:
    async def run(context: Context, wanted: Wanted) -> None:
        pass

    with pytest.raises(Invalid) as caught:
        agent(run).read_input(value, new_id())
    ((place, said),) = caught.value.errors
    assert (place, said) == (pointer, words)
