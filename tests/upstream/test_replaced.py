"""What an overlay file replaces must exist upstream: a name that moved would stay as it is, without an error."""

from __future__ import annotations

import ast
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import ultralytics

from tests.helpers.common import Run

ROOT = Path(__file__).resolve().parents[2]
UPSTREAM = Path(ultralytics.__file__).parents[1]
ADDED = {"ultralytics.utils.metrics DetMetrics.size"}  # new by intent; the file requires that upstream has none


def imported(tree: ast.Module, module: str) -> dict[str, str]:
    """Return what an overlay file takes from upstream's version of itself: upstream's names by those in the file."""
    parts = [node for node in tree.body if isinstance(node, ast.ImportFrom) and node.module == module]
    return {name.asname or name.name: name.name for node in parts for name in node.names}


def defined(tree: ast.Module) -> Iterator[str]:
    """Yield the names of functions, classes and values of a file, and the attributes that it sets, as `Class.name`."""
    for node in tree.body:
        if isinstance(node, (ast.FunctionDef, ast.ClassDef)):
            yield node.name
        elif isinstance(node, (ast.Assign, ast.AnnAssign, ast.AugAssign)):
            for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
                yield ast.unparse(target)


def is_property(function: ast.FunctionDef) -> bool:
    """Return whether a method stands for an attribute, which upstream sets on its instances."""
    return any(ast.unparse(each).endswith(("property", ".setter")) for each in function.decorator_list)


def methods(tree: ast.Module, names: dict[str, str]) -> Iterator[str]:
    """Yield the methods that classes with a parent among `names` replace: public ones and those that ask `super()`."""
    for node in tree.body:
        parents = [base.id for base in getattr(node, "bases", ()) if isinstance(base, ast.Name) and base.id in names]
        for method in getattr(node, "body", ()) if parents else ():
            asks = {ast.unparse(part) for part in ast.walk(method) if isinstance(part, ast.Attribute)}
            if not isinstance(method, ast.FunctionDef) or is_property(method):
                continue
            if not method.name.startswith("_") or f"super().{method.name}" in asks:
                yield f"{names[parents[0]]}.{method.name}"


def replaced(tree: ast.Module, module: str) -> tuple[set[str], set[str]]:
    """Return the names that a file replaces in upstream's version of itself, and those that it defines besides."""
    taken = imported(tree, module)
    every = set(defined(tree))
    ours = {name for name in every if name in taken.values() or name.partition(".")[0] in taken}
    return ours | set(methods(tree, taken)), {name for name in every - ours if "." not in name}


FILES = {
    ".".join(path.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__"): path
    for path in sorted((ROOT / "ultralytics").rglob("*.py"))
    if (UPSTREAM / path.relative_to(ROOT)).is_file()
}
FOUND = """
import importlib, json, sys
def has(module, name):
    value = importlib.import_module(module)
    for part in name.split("."):
        if not hasattr(value, part):
            return False
        value = getattr(value, part)
    return True
assert not any(type(finder).__name__ == "OverlayFinder" for finder in sys.meta_path)
print(json.dumps({asked: has(*asked.split()) for asked in json.loads(sys.argv[1])}))
"""


@pytest.fixture(scope="module")
def files() -> dict[str, tuple[set[str], set[str]]]:
    found = {module: replaced(ast.parse(path.read_text(encoding="utf-8")), module) for module, path in FILES.items()}
    assert sum(len(ours) for ours, _ in found.values()) > 40
    return found


@pytest.fixture(scope="module")
def upstream(files: dict[str, tuple[set[str], set[str]]], run: Run, tmp_path_factory: pytest.TempPathFactory) -> dict:
    """Return whether upstream without the overlay has each of the names."""
    asked = [f"{module} {name}" for module, parts in files.items() for part in parts for name in part]
    folder = tmp_path_factory.mktemp("upstream")
    done = run("-c", FOUND, json.dumps(asked), cwd=folder, ULTRALYTICS_OVERLAY="0")
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout.splitlines()[-1])


@pytest.mark.parametrize("module", FILES)
def test_what_is_replaced_exists_upstream(files: dict, upstream: dict[str, bool], module: str) -> None:
    names = {f"{module} {name}" for name in files[module][0]}
    assert {name for name in names if not upstream[name]} == ADDED & names
    others = {name for name in files[module][1] if upstream[f"{module} {name}"]}  # an import of it would name a move
    assert not others - {"__doc__"}, "import it first"
