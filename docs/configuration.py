"""Generate docs/reference/configuration.md from the settings declared in app/infra/settings: `make docs-config`."""

import typing
from pathlib import Path
from typing import Literal

import msgspec

from app.infra.settings.environment import Settings, Variable, variables

PAGE = Path(__file__).parent / "reference" / "configuration.md"

_HEAD = """\
<!-- Generated from app/infra/settings/environment.py by `make docs-config`: change it there. -->
# Configuration

The environment is read once, at start. A file `.env` in the working folder is read too; the real environment overrides
it. An empty value counts as unset. A name marked *secret* may also be given as `NAME_FILE`, the path of a file with the
bare secret. Unknown names that begin with `AGENT_` cause a warning with a suggestion. An invalid value stops the start
with one sentence that names the variable.
"""


def _default(variable: Variable) -> str:
    if variable.default is None or variable.default == "":
        return "–"
    if isinstance(variable.default, bool):
        return f"`{str(variable.default).lower()}`"
    return f"`{variable.default}`"


def _meaning(variable: Variable) -> str:
    parts = [variable.meta.description or ""]
    if typing.get_origin(variable.kind) is Literal:
        parts.append("Values: " + ", ".join(f"`{value}`" for value in typing.get_args(variable.kind)) + ".")
    elif variable.kind in (int, float):
        parts.append(f"{variable.bounds}.")
    if variable.name.endswith("_SECONDS"):
        parts.append("In seconds.")
    if variable.meta.examples:
        parts.append("Like " + " or ".join(f"`{example}`" for example in variable.meta.examples) + ".")
    if variable.is_secret:
        parts.append("*Secret.*")
    return " ".join(parts)


def render() -> str:
    """The page as it must be."""
    titles = {field.name: field.type.__doc__ for field in msgspec.structs.fields(Settings)}
    lines, group = [_HEAD], ""
    for variable in variables():
        if variable.group != group:
            group = variable.group
            if len(lines) > 1:
                lines.append("")
            lines += [f"## {titles[group]}\n", "| name | default | meaning |", "|---|---|---|"]
        lines.append(f"| `{variable.name}` | {_default(variable)} | {_meaning(variable)} |")
    return "\n".join(lines) + "\n"


if __name__ == "__main__":
    PAGE.write_text(render(), encoding="utf-8")
