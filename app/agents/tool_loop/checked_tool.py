"""A tool whose arguments are checked by its schema before it is called."""

from typing import Any

from app.agents.tools.port import Tool
from app.base.errors import StartError
from app.base.json_schema import JsonSchema
from app.base.schema_visits import CheckTooExpensive

MAX_PROBLEMS = 10

MAX_PROBLEM_LENGTH = 300


class CheckedTool:
    """A tool with its compiled schema. Raises ``StartError`` if the schema is invalid."""

    def __init__(self, tool: Tool) -> None:
        self.tool = tool
        try:
            self._schema = JsonSchema(tool.spec.parameters)
        except ValueError as error:
            raise StartError(f"tool {tool.spec.name!r}: its parameters are not a valid JSON Schema: {error}") from error

    def problems(self, args: dict[str, Any]) -> str:
        """Return the errors of ``args`` with JSON pointers, joined by semicolons. Raises ``CheckTooExpensive``."""
        found = []
        for error in self._schema.problems(args, MAX_PROBLEMS):
            parts = (str(part).replace("~", "~0").replace("/", "~1") for part in error.path)
            place = "".join(f"/{part}" for part in parts) or "the arguments"
            found.append(f"{place}: {error.message[:MAX_PROBLEM_LENGTH]}")
        return "; ".join(found)

    def refusal(self, args: dict[str, Any]) -> str:
        """Return why ``args`` are not accepted; empty if they are."""
        try:
            return f"are wrong: {words}" if (words := self.problems(args)) else ""
        except CheckTooExpensive as error:
            return f"were not checked: {error}"
