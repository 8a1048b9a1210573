"""A field of a run takes three places: the example of CONTRIBUTING, applied to a copy of the program."""

import re
import shutil
import subprocess
import sys
import textwrap
from pathlib import Path

import pytest

from app.infra.db.revisions import HEAD

ROOT = Path(__file__).parents[2]
STRUCT = "class RunFields("
TABLE = 'runs = sa.Table(\n    "runs",\n    metadata,\n'


def example() -> tuple[str, str, str]:
    """Return the code of the example: field, column, revision after the newest one."""
    page = (ROOT / "CONTRIBUTING.md").read_text(encoding="utf-8")
    section = page.partition("### A field of a run\n")[2].partition("\n### ")[0]
    field, column, revision = map(textwrap.dedent, re.findall(r"```python\n(.*?)\n *```", section, re.DOTALL))
    return field, column, revision.replace("9999", f"{int(HEAD) + 1:04}").replace("9998", HEAD)


def insert(file: Path, line: str, after: str) -> None:
    """Insert ``line``, indented, after the end of ``after`` in ``file``."""
    before, found, rest = file.read_text(encoding="utf-8").partition(after)
    assert found, after
    file.write_text(f"{before}{found}    {line}\n{rest}", encoding="utf-8")


@pytest.mark.timeout(180)
def test_a_field_of_a_run_takes_three_places(fresh_database_url: str, tmp_path: Path) -> None:
    for folder in ("app", "migrations"):
        shutil.copytree(ROOT / folder, tmp_path / folder)
    shutil.copy(ROOT / "alembic.ini", tmp_path)
    (tmp_path / "tests").symlink_to(ROOT / "tests")
    field, column, revision = example()
    structs = tmp_path / "app" / "engine" / "structs.py"
    declared = structs.read_text(encoding="utf-8").partition(STRUCT)[2]
    insert(structs, field, after=STRUCT + declared[: declared.index('"""\n\n') + len('"""\n\n')])
    insert(tmp_path / "app" / "engine" / "tables.py", f"{column},", after=TABLE)
    (tmp_path / "migrations" / "versions" / f"{int(HEAD) + 1:04}_priority.py").write_text(revision, encoding="utf-8")
    scenario = [sys.executable, "-m", "tests.runs.new_field", fresh_database_url]
    done = subprocess.run(scenario, cwd=tmp_path, capture_output=True, text=True, timeout=150, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
