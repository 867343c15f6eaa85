"""Writes the table of model sizes into docs/models.md: python -m docs.tools.model_table."""

from __future__ import annotations

import sys
from pathlib import Path

from ultralytics.nn.modules import DWR
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.torch_utils import get_flops, get_num_params

from benchmarks.common import ROOT, write_text

DOCUMENT = ROOT / "docs/models.md"
BEGIN, END = "<!-- written by: python -m docs.tools.model_table -->\n", "<!-- end of the table -->\n"
OURS = (
    "yolo11", "yolo11-smallob", "yolo11-dwr-smallob", "yolo11-hsfpn-smallob", "yolo11-hsfpn-dwr-smallob",
    "yolo26-hsfpn-smallob",
)  # fmt: skip
STOCK = ("yolo11n.yaml", "yolov8n-p2.yaml", "yolo26n-p2.yaml")


def at_scale_n(name: str) -> Path:
    """Return the path of one of this fork's models at scale n."""
    family = name[4:6]
    return ROOT / "ultralytics/cfg/models" / family / f"{name.replace(family, f'{family}n', 1)}.yaml"


def table() -> str:
    """Return the table: parameters, GFLOPs, DWR blocks and strides of every model at scale n with 80 classes."""
    lines = [
        "| model, scale n, 80 classes | M parameters | GFLOPs at 640 px | DWR blocks | strides of the heads |",
        "| --- | ---: | ---: | ---: | --- |",
    ]
    for label, path in [(f"`{name}.yaml`", at_scale_n(name)) for name in OURS] + [(f"stock `{n}`", n) for n in STOCK]:
        model = DetectionModel(str(path), verbose=False)
        blocks = sum(isinstance(module, DWR) for module in model.modules())
        strides = ", ".join(f"{int(stride)}" for stride in model.stride)
        size = f"{get_num_params(model) / 1e6:.2f} | {get_flops(model, 640):.1f}"
        lines.append(f"| {label} | {size} | {blocks} | {strides} |")
    return "\n".join(lines) + "\n"


def main() -> int:
    """Write the table, or report that the document has no place for it."""
    text = DOCUMENT.read_text(encoding="utf-8")
    if BEGIN not in text or END not in text:
        print(f"{DOCUMENT}: lacks the lines '{BEGIN.strip()}' and '{END.strip()}'", file=sys.stderr)
        return 1
    before, after = text.split(BEGIN)[0], text.split(END)[1]
    write_text(DOCUMENT, before + BEGIN + table() + END + after)
    return 0


if __name__ == "__main__":
    sys.exit(main())
