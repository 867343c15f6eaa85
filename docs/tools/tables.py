"""Writes the tables of docs/models.md and docs/arguments.md: python -m docs.tools.tables."""

import re
import sys
from collections.abc import Callable
from pathlib import Path

from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import get_flops, get_num_params

from benchmarks.common import ROOT
from small_object.arguments import DEFAULTS_PATH
from small_object.files import write_file

BEGIN, END = "<!-- written by: python -m docs.tools.tables -->\n", "<!-- end of the table -->\n"
OURS = (
    "yolo11n-light-smallob.yaml", "yolo11n-smallob.yaml", "yolo11n-dwr-smallob.yaml", "yolo11n-hsfpn-smallob.yaml",
    "yolo11n-hsfpn-dwr-smallob.yaml", "yolo26n-hsfpn-smallob.yaml",
)  # fmt: skip
STOCK = ("yolo11n.yaml", "yolov8n-p2.yaml", "yolo26n-p2.yaml")
ARGUMENT = re.compile(r"^(\w+): *(\S*) *# \((.+?)\) (?:(train|predict, track, val|val): )?(.+)$")


def model_table() -> str:
    """Return a table of all models at scale n with 80 classes: parameters and GFLOPs."""
    lines = ["| model, scale n, 80 classes | M parameters | GFLOPs at 640 px |", "| --- | ---: | ---: |"]
    for label, name in [(f"`{name}`", name) for name in OURS] + [(f"stock `{name}`", name) for name in STOCK]:
        model = DetectionModel(name, verbose=False)
        lines.append(f"| {label} | {get_num_params(model) / 1e6:.2f} | {get_flops(model, 640):.1f} |")
    return "\n".join(lines) + "\n"


def argument_table() -> str:
    """Return a table of the arguments that the fork adds to `yolo`, from the comments of their defaults."""
    lines = ["| argument | default | modes | meaning |", "| --- | --- | --- | --- |"]
    for line in DEFAULTS_PATH.read_text(encoding="utf-8").splitlines():
        if match := ARGUMENT.match(line):
            name, default, _, modes, meaning = match.groups()
            lines.append(f"| `{name}` | {default or 'unset'} | {modes or 'all'} | {meaning} |")
    return "\n".join(lines) + "\n"


TABLES: dict[Path, Callable[[], str]] = {
    ROOT / "docs/models.md": model_table, ROOT / "docs/arguments.md": argument_table
}  # fmt: skip


def main() -> int:
    """Write the tables, or print an error if a document has no place for its table."""
    for document, table in TABLES.items():
        text = document.read_text(encoding="utf-8")
        if BEGIN not in text or END not in text:
            print(f"{document}: lacks the lines '{BEGIN.strip()}' and '{END.strip()}'", file=sys.stderr)
            return 1
        before, after = text.split(BEGIN)[0], text.split(END)[1]
        write_file(document, before + BEGIN + table() + END + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
