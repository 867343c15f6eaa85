"""Names that overlay files replace must exist upstream: a moved name would stay unchanged without an error."""

import ast
from pathlib import Path

import pytest
import ultralytics

from benchmarks.common import ROOT

UPSTREAM = Path(ultralytics.__file__).parents[1]
FILES = [path for path in sorted((ROOT / "ultralytics").rglob("*.py")) if (UPSTREAM / path.relative_to(ROOT)).is_file()]
ADDED = "DetMetrics.size"  # new by intent; the file requires that upstream has none


def defined(tree: ast.Module) -> set[str]:
    """Return the names of functions, classes and values of a file, and the attributes that it sets, as `Class.name`."""
    names = {node.name for node in tree.body if isinstance(node, ast.FunctionDef | ast.ClassDef)}
    for node in tree.body:
        if isinstance(node, ast.Assign | ast.AnnAssign):
            names |= {ast.unparse(name) for name in (node.targets if isinstance(node, ast.Assign) else [node.target])}
    return names


@pytest.mark.parametrize("file", FILES, ids=lambda file: str(file.relative_to(ROOT)))
def test_what_is_replaced_exists_upstream(file: Path) -> None:
    module = ".".join(file.relative_to(ROOT).with_suffix("").parts).removesuffix(".__init__")
    places = file, UPSTREAM / file.relative_to(ROOT)
    ours, stock = (ast.parse(place.read_text(encoding="utf-8")) for place in places)
    imports = [node for node in ours.body if isinstance(node, ast.ImportFrom) and node.module == module]
    taken = {name.asname or name.name: name.name for node in imports for name in node.names}
    assert defined(ours) & defined(stock) <= {*taken.values()}, "import it first: that fails where a name has moved"

    classes = [node for node in stock.body if isinstance(node, ast.ClassDef)]
    members = {getattr(part, "name", "") for node in classes for part in node.body}
    for name, _, attribute in (each.partition(".") for each in defined(ours) - {ADDED}):
        if attribute and name in taken:
            assert attribute in members, f"{name}.{attribute}"
