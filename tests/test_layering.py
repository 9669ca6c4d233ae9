"""The rooms of the package, and that every arrow between them points down.

A room is a module together with those that share the first word of its name (`file`, `file_writer`), or a
package. What stands on one level does not know its neighbours.
"""

import ast
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
PACKAGE = ROOT / "tusserve"
FLOORS = (
    ("protocol", "errors", "tasks"),
    ("contracts", "config", "mounting", "journal"),
    ("upload", "answering", "cors"),
    ("body", "digesting", "downloading", "hooks", "storage", "stores", "media"),
    ("lease", "endings"),
    ("joining",),
    ("finishing",),
    ("reception",),
    ("engine",),
    ("concatenating",),
    ("reaper",),
    ("lifetime", "serving"),
    ("asgi",),
    ("cli", "testing"),
    ("__main__",),
)
LEVELS = {room: level for level, rooms in enumerate(FLOORS) for room in rooms}
SHARED = {("storage", "budget")}
"""Rooms that their own neighbours may know: the one budget of bytes for all storages."""
PLUGINS = {"storage", "stores", "media"}
FORBIDDEN_NAMES = {"utils", "util", "base", "core", "manager", "helper", "helpers", "common", "misc"}
MODULES = sorted(PACKAGE.rglob("*.py"))
FRONT_DOOR = PACKAGE / "__init__.py"


def room_of(parts: tuple[str, ...]) -> tuple[str, ...]:
    """The room of a module inside the package: its level's name, and for a plug-in its own after it."""
    first = parts[0] if parts[0].startswith("__") else parts[0].split("_")[0]
    if first in PLUGINS and len(parts) > 1:
        return (first, parts[1].split("_")[0])
    return (first,)


def modules_named(node: ast.Import | ast.ImportFrom) -> list[tuple[str, ...]]:
    """The modules of the package that an import statement names, without the package's own name."""
    if isinstance(node, ast.Import):
        names = [alias.name for alias in node.names]
    elif node.level:
        raise AssertionError("relative imports hide where an arrow points")
    else:
        module = node.module or ""
        names = [module]
        if (ROOT / module.replace(".", "/")).is_dir():
            names = [f"{module}.{alias.name}" for alias in node.names]
    split = [tuple(name.split(".")) for name in names]
    return [parts[1:] or ("__init__",) for parts in split if parts[0] == "tusserve"]


def arrow_is_wrong(here: tuple[str, ...], there: tuple[str, ...]) -> str | None:
    """Why a module may not import another; None: it may."""
    mine, theirs = room_of(here), room_of(there)
    if mine == theirs or theirs in SHARED:
        return None
    if theirs[0] not in LEVELS:  # a public name, taken from the package itself
        return None if mine[0] in ("cli", "testing", "__main__") else "only the top may use the public door"
    if mine[0] == "testing":
        return "testing does not know the command line" if theirs[0] == "cli" else None
    if theirs[0] == "testing":
        return "nothing leans on testing"
    if LEVELS[theirs[0]] >= LEVELS[mine[0]]:
        return f"{mine[0]} (level {LEVELS[mine[0]]}) is not above {theirs[0]} (level {LEVELS[theirs[0]]})"
    return None


def wrong_arrows(source: str, here: tuple[str, ...]) -> list[str]:
    """Each import in `source` that module `here` may not make, with its reason."""
    found = []
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import | ast.ImportFrom):
            for there in modules_named(node):
                reason = arrow_is_wrong(here, there)
                found += [f"line {node.lineno} imports {'.'.join(there)}: {reason}"] if reason else []
    return found


def inside(module: Path) -> tuple[str, ...]:
    parts = module.relative_to(PACKAGE).with_suffix("").parts
    return parts[:-1] if parts[-1] == "__init__" and len(parts) > 1 else parts


@pytest.mark.parametrize(
    "module", [m for m in MODULES if m != FRONT_DOOR], ids=lambda path: ".".join(inside(path))
)
def test_arrows_point_down(module: Path) -> None:
    here = inside(module)
    assert room_of(here)[0] in LEVELS, f"{module} is in no room: give it a level here or another name"
    assert wrong_arrows(module.read_text(), here) == []


def test_the_front_door_is_lazy() -> None:
    body = ast.parse(FRONT_DOOR.read_text()).body
    eager = [node for node in body if isinstance(node, ast.Import | ast.ImportFrom)]
    assert [named for node in eager for named in modules_named(node)] == []


@pytest.mark.parametrize(
    ("source", "here"),
    [
        ("import tusserve.errors", ("protocol", "decide")),
        ("from tusserve import contracts", ("protocol", "records")),
        ("from tusserve.engine import Engine", ("lease",)),
        ("from tusserve.hooks import Hooks", ("body",)),
        ("from tusserve.storage.memory import MemoryStorage", ("storage", "file")),
        ("from tusserve.storage import memory", ("storage", "file_writer")),
        ("from tusserve.stores.sqlite import SQLiteStore", ("storage", "file")),
        ("from tusserve import TusApp", ("engine",)),
        ("from tusserve.testing import faults", ("asgi",)),
        ("from tusserve.cli import run", ("testing", "client")),
    ],
)
def test_a_wrong_arrow_is_seen(source: str, here: tuple[str, ...]) -> None:
    assert wrong_arrows(source, here)


@pytest.mark.parametrize("module", MODULES, ids=lambda path: ".".join(inside(path)))
def test_modules_and_functions_stay_small(module: Path) -> None:
    source = module.read_text()
    assert len(source.splitlines()) <= 400
    long = [
        f"{node.name}: {node.end_lineno - node.lineno + 1} lines"
        for node in ast.walk(ast.parse(source))
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef)
        and node.end_lineno is not None
        and node.end_lineno - node.lineno >= 60
    ]
    assert long == []
    assert not FORBIDDEN_NAMES & set(module.stem.split("_")), "a name that says nothing"


@pytest.mark.parametrize("module", MODULES, ids=lambda path: ".".join(inside(path)))
def test_a_module_says_what_it_is(module: Path) -> None:
    tree = ast.parse(module.read_text())
    assert ast.get_docstring(tree) or not tree.body
