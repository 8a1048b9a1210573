"""House rules (docs/explanation/architecture.md): sizes, places of files, imports, broad excepts."""

import ast
import functools
import graphlib
import re
import statistics
import subprocess
import sys
import tomllib
from collections import Counter
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.house_exceptions import BROAD_EXCEPTS, DEFERRED_IMPORTS

ROOT = Path(__file__).parent.parent
APP = ROOT / "app"

LINES_A_FILE = 500
LINES_A_FUNCTION = 60
LINES_OF_THE_MEDIAN_FUNCTION = 7
SWALLOWED_A_THOUSAND_LINES = 0.4
PARAMETERS = 6

FEATURES = ("documents", "crons", "store", "runs", "threads", "assistants")
THE_FIVE = {"controller.py", "service.py", "queries.py", "tables.py", "structs.py"}
SHARED = {"runs": {"tables.py", "structs.py"}, "threads": {"tables.py"}}  # with the engine, in app/engine
ROLES = tuple(name.removesuffix(".py") for name in sorted(THE_FIVE))

NAMES_THAT_SAY_NOTHING = {"utils", "util", "helpers", "helper", "common", "misc", "manager", "managers", "core"}

TASKS = "app/base/tasks.py"
SETTINGS = "app/infra/settings/environment.py"

INTERNALS = {
    "app/agents/mcp/oauth_internals.py",
    "app/server/granian_internals.py",
    "app/infra/db/sqlalchemy_internals.py",
    "app/infra/http/litestar_internals.py",
    "app/infra/telemetry/opentelemetry_internals.py",
    "app/security/access/langgraph_sdk_internals.py",
}
"""The modules that may lean on private parts of a library: one for each, with version, reason and removal condition."""

PUBLIC_BY_DOCUMENTATION = {"_mapping", "_replace", "_asdict", "_fields", "_exit"}
"""Of SQLAlchemy's rows, named tuples and ``os``."""

Constant = ast.Assign | ast.AnnAssign
PLAIN = (ast.Constant, ast.Tuple, ast.BinOp, ast.UnaryOp, ast.operator, ast.unaryop, ast.Name, ast.Attribute, ast.Load)
Function = ast.FunctionDef | ast.AsyncFunctionDef


def sources(*folders: str) -> list[Path]:
    return [path for folder in folders for path in sorted((ROOT / folder).rglob("*.py"))]


def place(path: Path) -> str:
    return path.relative_to(ROOT).as_posix()


@functools.cache
def tree(path: Path) -> ast.Module:
    return ast.parse(path.read_text(encoding="utf-8"), filename=str(path))


def functions(path: Path) -> Iterator[Function]:
    for node in ast.walk(tree(path)):
        if isinstance(node, Function):
            yield node


def is_attribute(node: ast.AST, owner: str, *names: str) -> bool:
    """Whether ``node`` reads ``owner.name``."""
    return (
        isinstance(node, ast.Attribute)
        and node.attr in names
        and isinstance(node.value, ast.Name)
        and node.value.id == owner
    )


def imported_names(node: ast.AST) -> list[str]:
    """The dotted names that an import statement brings, ``from a import b`` as ``a.b``."""
    if isinstance(node, ast.Import):
        return [alias.name for alias in node.names]
    if isinstance(node, ast.ImportFrom):
        return [f"{node.module}.{alias.name}" for alias in node.names]
    return []


def test_no_file_is_longer_than_five_hundred_lines() -> None:
    lengths = {
        place(path): len(path.read_text().splitlines())
        for path in sources("agent_service_graphs", "app", "bench", "docs", "tests")
    }
    assert {name: lines for name, lines in lengths.items() if lines > LINES_A_FILE} == {}


def test_no_function_is_longer_than_sixty_lines() -> None:
    long = {
        f"{place(path)}:{function.lineno} {function.name}": lines
        for path in sources("agent_service_graphs", "app", "bench", "docs", "tests")
        for function in functions(path)
        if (lines := (function.end_lineno or 0) - function.lineno + 1) > LINES_A_FUNCTION
    }
    assert long == {}


def test_the_median_function_has_at_most_seven_lines() -> None:
    lengths = [(one.end_lineno or 0) - one.lineno + 1 for path in sources("app") for one in functions(path)]
    assert statistics.median(lengths) <= LINES_OF_THE_MEDIAN_FUNCTION


def test_no_function_takes_more_than_six_parameters() -> None:
    def count(function: Function) -> int:
        every = [*function.args.posonlyargs, *function.args.args, *function.args.kwonlyargs]
        return len([parameter for parameter in every if parameter.arg not in {"self", "cls"}])

    many = {
        f"{place(path)}:{function.lineno} {function.name}": count(function)
        for path in sources("agent_service_graphs", "app", "bench", "docs")
        for function in functions(path)
        if count(function) > PARAMETERS
    }
    assert many == {}


def is_private(name: str) -> bool:
    return name.startswith("_") and not name.startswith("__") and name not in PUBLIC_BY_DOCUMENTATION


@functools.cache
def own_names() -> Counter[str]:
    """How often the program gives a name to a function, class, variable or attribute of an object."""
    names: Counter[str] = Counter()
    for path in sources("app"):
        for node in ast.walk(tree(path)):
            if isinstance(node, ast.ClassDef | Function):
                names[node.name] += 1
            elif isinstance(node, ast.Name | ast.Attribute) and isinstance(node.ctx, ast.Store):
                names[node.id if isinstance(node, ast.Name) else node.attr] += 1
    return names


def private_parts(path: Path) -> Iterator[str]:
    """The private parts of libraries that a module reads, imports or overrides."""
    for node in ast.walk(tree(path)):
        for name in imported_names(node):
            if not name.startswith("app.") and any(map(is_private, name.split("."))):
                yield name
        if isinstance(node, ast.Attribute) and is_private(node.attr):
            overridden = isinstance(node.value, ast.Call) and ast.unparse(node.value) == "super()"
            if own_names()[node.attr] <= overridden:  # an override is one definition; that of its base must be ours
                yield ast.unparse(node)
        elif isinstance(node, ast.Call) and ast.unparse(node.func) in {"getattr", "setattr", "hasattr"}:
            named = node.args[1] if len(node.args) > 1 else None
            if isinstance(named, ast.Constant) and is_private(str(named.value)):
                yield ast.unparse(node)


def test_private_parts_of_libraries_are_used_in_one_module_for_each_alone() -> None:
    found = {place(path): parts for path in sources("app") if (parts := list(private_parts(path)))}
    assert {name: parts for name, parts in found.items() if name not in INTERNALS} == {}
    assert set(found) == INTERNALS


def test_modules_of_private_parts_name_version_and_removal() -> None:
    for name in INTERNALS:
        about = ast.get_docstring(tree(ROOT / name)) or ""
        assert about.startswith("Everything that leans on private parts of"), name
        assert re.search(r"\d\.\d", about), f"{name} names no version"
        assert about.count("\n- ") <= about.count("Remove it "), f"{name} does not say when each part can go"


def late_constants(module: ast.Module) -> Iterator[str]:
    """The numbers and texts, and tuples of them, that stand after the first class or function and need neither."""
    known: set[str] = set()
    late = False
    for node in module.body:
        late = late or isinstance(node, ast.ClassDef | Function)
        if isinstance(node, ast.Import | ast.ImportFrom):
            known |= {(alias.asname or alias.name).partition(".")[0] for alias in node.names}
        elif isinstance(node, Constant) and node.value is not None:
            target = node.target if isinstance(node, ast.AnnAssign) else node.targets[0]
            names = {part.id for part in ast.walk(node.value) if isinstance(part, ast.Name)}
            plain = all(isinstance(part, PLAIN) for part in ast.walk(node.value))
            if isinstance(target, ast.Name) and target.id.isupper() and names <= known and plain:
                known.add(target.id)
                if late:
                    yield target.id
            elif isinstance(target, ast.Name) and not late:
                known.add(target.id)


def test_constants_stand_at_the_top_of_their_module() -> None:
    """Except texts of SQL, which stand with the functions that build them."""
    late = {
        place(path): names
        for path in sources("app")
        if path.name not in {"sql.py", "queries.py", "tables.py"}
        if (names := list(late_constants(tree(path))))
    }
    assert late == {}


def test_every_module_has_a_name_that_says_what_it_holds() -> None:
    empty = [
        place(path)
        for path in sources("agent_service_graphs", "app", "bench", "tests")
        if NAMES_THAT_SAY_NOTHING & {path.stem, *path.relative_to(ROOT).parts[:-1]}
    ]
    assert empty == []


def test_first_party_imports_stand_at_the_top_but_for_named_exceptions() -> None:
    hidden = [
        f"{place(path)}:{node.lineno} {name}"
        for path in sources("app")
        if not place(path).startswith(tuple(DEFERRED_IMPORTS))
        for function in functions(path)
        for node in ast.walk(function)
        if isinstance(node, ast.Import | ast.ImportFrom)
        for name in imported_names(node)
        if name.startswith("app.")
    ]
    assert hidden == []


def test_imports_are_absolute() -> None:
    relative = [
        f"{place(path)}:{node.lineno}"
        for path in sources("app")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ImportFrom) and node.level
    ]
    assert relative == []


def test_the_environment_is_read_in_the_settings_only() -> None:
    readers = {
        place(path)
        for path in sources("app")
        for node in ast.walk(tree(path))
        if is_attribute(node, "os", "environ", "environb", "getenv", "putenv")
        or {"os.environ", "os.environb", "os.getenv"} & set(imported_names(node))
    }
    assert readers == {SETTINGS}


def test_tasks_are_made_by_their_owners_only() -> None:
    makers = {
        place(path)
        for path in sources("app")
        for node in ast.walk(tree(path))
        if (isinstance(node, ast.Attribute) and node.attr in {"create_task", "ensure_future"})
        or {"asyncio.create_task", "asyncio.ensure_future"} & set(imported_names(node))
    }
    assert makers == {TASKS}


class MethodAliases:
    """Finds attributes that are set to a bound method (``self.stop = self._tasks.stop``), by the types as annotated."""

    def __init__(self) -> None:
        self._types: dict[str, dict[str, str]] = {}
        self._methods: dict[str, set[str]] = {}
        for node in (node for path in sources("app") for node in ast.walk(tree(path))):
            if isinstance(node, ast.ClassDef):
                self._read(node)

    def _read(self, kind: ast.ClassDef) -> None:
        types = self._types.setdefault(kind.name, {})
        methods = self._methods.setdefault(kind.name, set())
        for member in kind.body:
            if isinstance(member, Function):
                is_property = any("property" in ast.unparse(one) for one in member.decorator_list)
                methods |= set() if is_property else {member.name}
            elif isinstance(member, ast.AnnAssign):
                types[ast.unparse(member.target)] = self._name(member.annotation)
        for method, target, value in self._settings(kind):
            types.setdefault(target, self._type(value, kind.name, method))

    @staticmethod
    def _settings(kind: ast.ClassDef) -> Iterator[tuple[Function, str, ast.expr]]:
        """Each ``self.target = value`` of a class, with its method; for an annotated one the annotation."""
        for method in (member for member in kind.body if isinstance(member, Function)):
            for node in ast.walk(method):
                if isinstance(node, ast.Assign | ast.AnnAssign):
                    value = node.annotation if isinstance(node, ast.AnnAssign) else node.value
                    for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                        if isinstance(target, ast.Attribute) and ast.unparse(target.value) == "self":
                            yield method, target.attr, value

    @staticmethod
    def _name(annotation: ast.expr | None) -> str:
        return "" if annotation is None else re.split(r"[\[ ]", ast.unparse(annotation).strip("'"))[0]

    def _type(self, value: ast.expr, kind: str, method: Function) -> str:
        """The name of the class of ``value``, as far as annotations and constructors tell; else nothing."""
        match value:
            case ast.Name(id="self"):
                return kind
            case ast.Name(id=name):
                arguments = [*method.args.posonlyargs, *method.args.args, *method.args.kwonlyargs]
                return next((self._name(one.annotation) for one in arguments if one.arg == name), name)
            case ast.Attribute(value=owner, attr=name):
                return self._types.get(self._type(owner, kind, method), {}).get(name, "")
            case ast.Call(func=ast.Name(id=name)) | ast.Subscript(value=ast.Name(id=name)):
                return name
        return ""

    def found(self) -> list[str]:
        return [
            f"{place(path)} {kind.name}.{target} = {ast.unparse(value)}"
            for path in sources("app")
            for kind in ast.walk(tree(path))
            if isinstance(kind, ast.ClassDef)
            for method, target, value in self._settings(kind)
            if isinstance(value, ast.Attribute)
            and value.attr in self._methods.get(self._type(value.value, kind.name, method), set())
        ]


def test_no_attribute_is_an_alias_of_a_method() -> None:
    """Write a method: "go to definition" must lead to it."""
    assert MethodAliases().found() == []


def test_only_an_execution_and_its_parts_set_their_attributes() -> None:
    """Of a live run's ``execution``, ``context`` and ``writer``: others call methods."""
    found = [
        f"{place(path)}:{node.lineno}"
        for path in sources("app/engine", "app/agents")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Attribute) and isinstance(node.ctx, ast.Store)
        if ast.unparse(node.value).split(".")[-1].lstrip("_") in {"execution", "context", "writer"}
    ]
    assert found == []


def is_broad(node: ast.expr | None) -> bool:
    kinds = node.elts if isinstance(node, ast.Tuple) else [node]
    return any(
        kind is None or (isinstance(kind, ast.Name) and kind.id in {"Exception", "BaseException"}) for kind in kinds
    )


def broad_excepts(path: Path) -> int:
    """How often ``path`` swallows whatever comes: a handler that ends by raising it again does not."""
    found = 0
    for node in ast.walk(tree(path)):
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type):
            last = node.body[-1]
            found += not (isinstance(last, ast.Raise) and last.exc is None)
        elif isinstance(node, ast.Call) and is_attribute(node.func, "contextlib", "suppress"):
            found += any(is_broad(kind) for kind in node.args)
    return found


def test_broad_excepts_stand_at_named_edges_and_each_is_counted() -> None:
    found = {place(path): count for path in sources("app") if (count := broad_excepts(path))}
    assert found == BROAD_EXCEPTS


def test_few_broad_excepts_swallow_the_error() -> None:
    """Those that raise another error in its place do not count."""
    swallowed = [
        f"{place(path)}:{node.lineno}"
        for path in sources("app")
        for node in ast.walk(tree(path))
        if isinstance(node, ast.ExceptHandler) and is_broad(node.type) and not isinstance(node.body[-1], ast.Raise)
    ]
    lines = sum(len(path.read_text().splitlines()) for path in sources("app"))
    assert len(swallowed) / lines * 1000 <= SWALLOWED_A_THOUSAND_LINES, swallowed


def imported_modules(path: Path, modules: Container[str]) -> Iterator[str]:
    """The modules of the program that a module imports, also inside of functions; imports for types alone aside."""
    types_only = {
        id(part)
        for node in ast.walk(tree(path))
        if isinstance(node, ast.If) and ast.unparse(node.test) == "TYPE_CHECKING"
        for part in ast.walk(node)
    }
    for node in ast.walk(tree(path)):
        for name in imported_names(node) if id(node) not in types_only else ():
            yield name if name in modules else name.rpartition(".")[0]


def test_modules_import_each_other_without_cycles() -> None:
    modules = {
        place(path).removesuffix(".py").removesuffix("/__init__").replace("/", "."): path for path in sources("app")
    }
    graph = {name: set(imported_modules(path, modules)) - {name} for name, path in modules.items()}
    graphlib.TopologicalSorter(graph).prepare()  # raises CycleError, which names the modules


def contract(kind: str, name: str) -> dict[str, Any]:
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    return next(one for one in contracts if one["type"] == kind and name in one["name"])


def test_every_package_has_a_place_in_the_import_order() -> None:
    """lint-imports fails for a package that has none, and for a place without its package."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["importlinter"]["contracts"]
    orders = [one for one in contracts if one["type"] == "layers"]
    assert {order["containers"][0] for order in orders} >= {"app", "app.features", "app.engine", "app.agents"}
    assert all(order["exhaustive"] for order in orders)
    assert [layer for order in orders for layer in order["layers"] if layer.startswith("(")] == []


def test_the_pure_rooms_are_held_to_it() -> None:
    assert {"app.agents.tool_loop", "app.domain", "app.**.port"} <= set(contract("forbidden", "pure")["source_modules"])


def test_the_import_contracts_hold() -> None:
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    linted = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert linted.returncode == 0, linted.stdout


@pytest.mark.parametrize("feature", FEATURES)
def test_a_feature_has_the_five_files(feature: str) -> None:
    there = {path.name for path in (APP / "features" / feature).glob("*.py")}
    assert THE_FIVE - SHARED.get(feature, set()) <= there


def test_no_feature_has_a_second_file_for_one_of_the_five_roles() -> None:
    second = [
        place(path)
        for feature in FEATURES
        for path in (APP / "features" / feature).rglob("*.py")
        if path.name not in THE_FIVE and path.stem.endswith(ROLES)
    ]
    assert second == []


def test_every_package_of_the_program_has_an_init_file() -> None:
    bare = [
        place(folder) for folder in {path.parent for path in sources("app")} if not (folder / "__init__.py").exists()
    ]
    assert bare == []


def test_the_settings_import_without_heavy_libraries() -> None:
    """What decides how quick a command answers: none of these comes along with the settings."""
    heavy = ("aiohttp", "asyncpg", "granian", "litestar", "opentelemetry", "sqlalchemy")
    script = f"import sys, app.infra.settings.environment; print([name for name in {heavy!r} if name in sys.modules])"
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, check=True)
    assert done.stdout.strip() == "[]"


SQL = re.compile(
    r"\s*(?:select|insert into|update|delete from|with \w+ as|listen|notify|lock table|truncate)\s", re.IGNORECASE
)
WITHOUT_SQL_FILE: dict[str, str] = {}
"""Files that may hold SQL text of their own, and why."""


def sql_literals(path: Path) -> list[int]:
    """The lines of the string literals that are SQL; docstrings are not."""
    prose = {id(node.value) for node in ast.walk(tree(path)) if isinstance(node, ast.Expr)}
    return [
        node.lineno
        for node in ast.walk(tree(path))
        if isinstance(node, ast.Constant) and isinstance(node.value, str) and id(node) not in prose
        if SQL.match(node.value) and re.search(r"\b(?:from|set|values|into|\()", node.value, re.IGNORECASE)
    ]


def test_sql_stands_in_queries_and_sql_files_only() -> None:
    elsewhere = {
        place(path): lines
        for path in sources("app")
        if path.name not in {"queries.py", "sql.py"} and (lines := sql_literals(path))
    }
    assert {name: lines for name, lines in elsewhere.items() if name not in WITHOUT_SQL_FILE} == {}


@pytest.mark.parametrize("package", sorted({place(path.parent) for path in sources("agent_service_graphs", "app")}))
def test_the_docstring_of_a_package_is_its_map(package: str) -> None:
    """It names every module and package in it."""
    folder = ROOT / package
    names = {path.stem for path in folder.glob("*.py")} | {path.parent.name for path in folder.glob("*/__init__.py")}
    docstring = ast.get_docstring(tree(folder / "__init__.py")) or ""
    assert [name for name in sorted(names - {"__init__", "__main__"}) if f"``{name}``" not in docstring] == []
