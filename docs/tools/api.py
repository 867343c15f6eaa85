"""Writes docs/api.md, the public Python names of this fork, from their docstrings: python docs/tools/api.py.

A class or function under `ultralytics/` is public if its docstring has an example, if it takes the place of an upstream
class, or if the signature of a public one names it; a constant, if a public name of its module mentions it. So what a
docstring offers decides, and no list of names has to be kept; `INTERNAL` has the exceptions.
"""

from __future__ import annotations

import ast
import importlib
import re
import sys
from dataclasses import dataclass, field
from pathlib import Path

from small_object.files import replacing

ROOT = Path(__file__).resolve().parents[2]
DOCUMENT = ROOT / "docs/api.md"
PACKAGES = {  # of the overlay, with their titles, in the order of the document
    "ultralytics.nn.modules": "Blocks",
    "ultralytics.nn": "Model files",
    "ultralytics.utils": "Loss, assignment, accuracy by size",
    "ultralytics.engine": "Slicing, prediction, training",
    "ultralytics.models.yolo.detect": "What `yolo detect` runs",
    "ultralytics.data": "Data sets",
    "ultralytics.cfg": "Arguments",
    "ultralytics": "Others",
}
INTERNAL = {  # modules left out, with the reason
    "ultralytics.utils.files": "serves all that writes files",
    "small_object.slicing.groups": "serves the merging of tiles and the grouping of frames",
}
SECTIONS = ("Args", "Attributes", "Shape", "Returns", "Yields", "Raises", "Example", "Examples")
TITLES = {"Args": "Arguments", "Examples": "Example"}
ITEMS = {"Args", "Attributes", "Raises"}  # sections of `name: text`
WIDTH = 90  # of a signature
BEGIN = "<!-- written by: python docs/tools/api.py -->\n"

Definition = ast.FunctionDef | ast.ClassDef


@dataclass
class Docstring:
    """A Google-style docstring.

    Attributes:
        summary: First paragraph.
        text: The other paragraphs before the first section, as lines.
        sections: Lines by the name of the section.
    """

    summary: str
    text: list[str] = field(default_factory=list)
    sections: dict[str, list[str]] = field(default_factory=dict)


def parse(docstring: str) -> Docstring:
    """Take a docstring apart, which `ast.get_docstring` has freed of its indent."""
    first, *others = docstring.split("\n\n", 1)
    found = Docstring(" ".join(first.split()))
    lines = found.text
    for line in "".join(others).splitlines():
        title = line.removesuffix(":")
        if line.endswith(":") and title in SECTIONS:
            lines = found.sections.setdefault(title, [])
        else:
            lines.append(line.removeprefix("    ") if lines is not found.text else line)
    return found


def signature(node: Definition, name: str, method: bool = False) -> str:
    """Return how a function or class is called: on one line, or an argument a line where that is too long."""
    if isinstance(node, ast.ClassDef):
        made = next((n for n in node.body if isinstance(n, ast.FunctionDef) and n.name == "__init__"), None)
        if made is None:
            fields = [n for n in node.body if isinstance(n, ast.AnnAssign)] if node.decorator_list else []
            return called(name, [ast.unparse(field) for field in fields], "") if fields else f"class {name}"
        node, method = made, True
        result = ""
    else:
        result = f" -> {ast.unparse(node.returns)}" if node.returns and node.name != "__init__" else ""
    arguments = node.args
    plain = ast.arguments(
        posonlyargs=[], args=arguments.posonlyargs + arguments.args, vararg=arguments.vararg, kw_defaults=[],
        kwonlyargs=[], kwarg=None, defaults=[],
    )  # fmt: skip
    texts = []
    defaults = [None] * (len(plain.args) - len(arguments.defaults)) + arguments.defaults
    pairs = list(zip(plain.args, defaults, strict=True))[1 if method else 0 :]
    for argument, default in pairs:
        texts.append(with_default(argument, default))
    if arguments.vararg:
        texts.append(f"*{ast.unparse(arguments.vararg)}")
    elif arguments.kwonlyargs:
        texts.append("*")
    texts += [with_default(a, d) for a, d in zip(arguments.kwonlyargs, arguments.kw_defaults, strict=True)]
    if arguments.kwarg:
        texts.append(f"**{ast.unparse(arguments.kwarg)}")
    return called(name, texts, result)


def with_default(argument: ast.arg, default: ast.expr | None) -> str:
    """Write an argument with its type and default."""
    equals = " = " if argument.annotation else "="
    return ast.unparse(argument) + (equals + ast.unparse(default).replace("'", '"') if default else "")


def called(name: str, arguments: list[str], result: str) -> str:
    """Write a call on one line, or an argument a line where that is too long."""
    line = f"{name}({', '.join(arguments)}){result}"
    return line if len(line) <= WIDTH else f"{name}(\n" + "".join(f"    {a},\n" for a in arguments) + f"){result}"


def items(lines: list[str]) -> list[str]:
    """Turn `name: text` and `name (type): text`, with indented further lines, into a Markdown list."""
    found: list[str] = []
    for line in lines:
        if match := re.match(r"(\S+?)( \(.+?\))?: (.*)", line):
            found.append(f"- `{match[1]}`{match[2] or ''}: {match[3]}")
        elif line.strip():
            found.append(f"  {line.strip()}" if found else line)
    return found


def render(docstring: Docstring) -> list[str]:
    """Return a docstring as lines of Markdown."""
    lines = [docstring.summary, "", *docstring.text]
    for name, content in docstring.sections.items():
        lines += ["", f"**{TITLES.get(name, name)}**", ""]
        if name.startswith("Example"):
            lines += ["```pycon", *"\n".join(content).strip().splitlines(), "```"]
        else:
            lines += items(content) if name in ITEMS else [line.strip() for line in content]
    return lines


def has(node: ast.AST, *sections: str) -> bool:
    """Return whether a docstring has one of some sections."""
    return not parse(ast.get_docstring(node) or "").sections.keys().isdisjoint(sections)


def bases(node: Definition, module: str) -> tuple[type, ...]:
    """Return the classes that a class derives from; none of a function, or of what a decorator made of a class."""
    made = getattr(importlib.import_module(module), node.name)
    return made.__mro__[1:] if isinstance(made, type) else ()


def replaces_upstream(node: Definition, module: str) -> bool:
    """Return whether a class derives from upstream's class of its name."""
    return any((base.__module__, base.__name__) == (module, node.name) for base in bases(node, module))


def methods(node: Definition, module: str) -> list[ast.FunctionDef]:
    """Return the public methods of a class: documented, and new or, in upstream's place, with arguments described."""
    if not isinstance(node, ast.ClassDef):
        return []
    theirs = {name for base in bases(node, module) for name in vars(base)}
    public = [m for m in node.body if isinstance(m, ast.FunctionDef) and not m.name.startswith("_")]
    if replaces_upstream(node, module):
        return [m for m in public if m.name in theirs and has(m, "Args")]
    return [m for m in public if m.name not in theirs and ast.get_docstring(m)]


def constants(tree: ast.Module, source: str) -> dict[str, tuple[str, str]]:
    """Return value and docstring, by name, of the public constants that have a docstring below them."""
    found = {}
    for node, after in zip(tree.body, tree.body[1:], strict=False):
        if isinstance(node, ast.Assign | ast.AnnAssign) and isinstance(after, ast.Expr) and node.value:
            name = ast.unparse(node.targets[0] if isinstance(node, ast.Assign) else node.target).strip("()")
            if isinstance(after.value, ast.Constant) and isinstance(after.value.value, str) and name[0] != "_":
                found[name] = ast.get_source_segment(source, node.value) or "", " ".join(after.value.value.split())
    return found


def signatures(node: Definition, module: str) -> str:
    """Return the signatures of a class or function and of its public methods."""
    return "\n".join(signature(each, each.name) for each in (node, *methods(node, module)))


def describe(file: Path, module: str) -> list[str]:
    """Return the part of the document on one file, empty where nothing in it is public."""
    source = file.read_text(encoding="utf-8")
    tree = ast.parse(source)
    own = [node for node in tree.body if isinstance(node, Definition) and not node.name.startswith("_")]
    public = [node for node in own if has(node, "Example", "Examples") or replaces_upstream(node, module)]
    for node in public:  # which grows on the way
        names = set(re.findall(r"\w+", signatures(node, module)))
        public += [each for each in own if each.name in names and each not in public]
    said = "".join(signatures(node, module) + ast.unparse(node.body[0]) for node in public)
    lines: list[str] = []
    for node in sorted(public, key=own.index):
        lines += ["", f"#### {node.name}", "", "```python", signature(node, node.name), "```", ""]
        lines += render(parse(ast.get_docstring(node) or ""))
        for method in methods(node, module):
            is_property = any("property" in ast.unparse(decorator) for decorator in method.decorator_list)
            name = f"{node.name}.{method.name}"
            result = f": {ast.unparse(method.returns)}" if method.returns else ""
            call = f"{name}{result}" if is_property else signature(method, name, method=True)
            lines += ["", f"##### {name}", "", "```python", call, "```", ""]
            lines += render(parse(ast.get_docstring(method) or ""))
    for name, (value, text) in constants(tree, source).items():
        if any(re.search(rf"\b{each}\b", said) for each in name.split(", ")):
            code = f"{name} = {value}"
            lines += ["", f"#### {name}", "", "```python", code, "```", "", text]
    if not lines:
        return []
    return ["", f"### {module}", "", *render(parse(ast.get_docstring(tree) or "")), *lines]


def document() -> str:
    """Return the document."""
    by_package: dict[str, list[str]] = {package: [] for package in PACKAGES}
    for file in sorted((ROOT / "ultralytics").rglob("*.py")):
        parts = file.relative_to(ROOT).with_suffix("").parts
        module = ".".join(part for part in parts if part != "__init__")
        package = max((each for each in PACKAGES if f"{module}.".startswith(f"{each}.")), key=len)
        if module not in INTERNAL:
            by_package[package] += describe(file, module)
    lines = [
        BEGIN + "# Python API", "",
        "The public names of this fork, from their docstrings. They stand beside Ultralytics' own, under its package",
        "name: `from small_object.nwd import nwd`. What is described as upstream's takes the place of the class",
        "of that name, and is used in the same way. The tests run the examples.",
    ]  # fmt: skip
    for package, part in by_package.items():
        if part:
            lines += ["", f"## {PACKAGES[package]}", *part]
    return re.sub(r"\n{3,}", "\n\n", "\n".join(lines)) + "\n"


def main() -> int:
    """Write the document."""
    with replacing(DOCUMENT) as new:
        new.write_text(document(), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
