"""Draws how the blocks, the models, the loss, the slicing and the size groups work: python -m docs.tools.diagrams.

The drawings go to docs/pictures/*.svg. Kernel sizes, channels, groups, dilations, rows, strides, curves and tiles come
from the modules, model YAML files and functions that they show, so a drawing changes with the code. The same code with
the same version of matplotlib gives the same bytes.
"""

import sys
from collections.abc import Callable

from matplotlib.figure import Figure

from benchmarks.common import ROOT
from docs.tools import block_diagrams, method_diagrams
from docs.tools.drawing import svg
from small_object.files import write_file

FOLDER = ROOT / "docs/pictures"
MODELS = ROOT / "ultralytics/cfg/models/11"
DRAWINGS: dict[str, Callable[[], Figure]] = {
    "dualconv.svg": block_diagrams.draw_dualconv,
    "dwr.svg": block_diagrams.draw_dwr,
    "hsfpn.svg": block_diagrams.draw_hsfpn,
    "model.svg": lambda: block_diagrams.draw_model(MODELS / "yolo11.yaml"),
    "nwd.svg": method_diagrams.draw_nwd,
    "assignment.svg": method_diagrams.draw_assignment,
    "tiles.svg": method_diagrams.draw_slicing,
    "sizes.svg": method_diagrams.draw_sizes,
}
"""The drawings by file name in docs/pictures."""


def main() -> int:
    """Write all drawings to docs/pictures."""
    for name, draw in DRAWINGS.items():
        write_file(FOLDER / name, svg(draw))
    return 0


if __name__ == "__main__":
    sys.exit(main())
