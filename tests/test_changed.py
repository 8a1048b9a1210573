"""``make quick`` selects the tests of what changed."""

import pytest

from tests.changed import MAX_FILES, ROOT, SLOW, selected, sources


@pytest.mark.parametrize(
    "changed, test",
    [
        ("app/features/crons/schedule.py", "tests/crons/test_schedule.py"),
        ("tests/domain/test_state.py", "tests/domain/test_state.py"),
        ("docs/how-to/crons.md", "tests/test_pages.py"),
        ("migrations/env.py", "tests/db/test_schema.py"),
    ],
)
def test_a_changed_file_selects_its_tests(changed: str, test: str) -> None:
    assert test in selected([changed])


def test_a_module_without_a_test_of_its_own_selects_those_of_its_importers() -> None:
    lonely = [path for path in sources("app/agents/tools/builtin") if not path.endswith("__init__.py")]
    assert all(selected([path]) for path in lonely)


def test_the_selection_is_quick() -> None:
    found = selected(sources("app"))
    assert len(found) == MAX_FILES
    assert not any(path.startswith(f"tests/{name}/") for path in found for name in SLOW)
    assert all((ROOT / path).exists() for path in found)
