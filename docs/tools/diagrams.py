"""Draws how the blocks, the models, the loss, the slicing and the size groups work: python docs/tools/diagrams.py.

The drawings go to docs/pictures/*.svg. Kernel sizes, channels, groups, dilations, rows, strides, curves and tiles are
read off the modules, model YAMLs and functions that they show, so a drawing changes with the code. The same code and
the same version of matplotlib give the same bytes.
"""

from __future__ import annotations

import io
import sys
from collections.abc import Callable
from fractions import Fraction
from pathlib import Path

import matplotlib as mpl
import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Circle, FancyBboxPatch, Polygon, Rectangle
from torch import nn
from ultralytics.nn.modules import DWR, C3k2DWR, Conv, DualConv, ScreeningFusion, ScreeningLateral
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import FADE_END, FADE_START, TaskAlignedAssigner, size_fade

from small_object.files import replacing
from small_object.nwd import DEFAULT_C, nwd
from small_object.sizes import COCO_SMALL_NAME, SIZE_GROUPS, area_limits
from small_object.slicing.merge import merge
from small_object.slicing.tiling import tile_grid

ROOT = Path(__file__).resolve().parents[2]
FOLDER = ROOT / "docs/pictures"
MODELS = ROOT / "ultralytics/cfg/models/11"
STYLE = {
    "svg.hashsalt": "docs",  # ids are the same each time
    "svg.fonttype": "none",  # text stays text
    "font.family": "sans-serif",
    "font.sans-serif": ["DejaVu Sans", "Verdana", "Arial", "Helvetica"],
    "font.size": 10,
    "axes.spines.top": False,
    "axes.spines.right": False,
    "axes.titlesize": 10.5,
    "axes.grid": True,
    "grid.alpha": 0.35,
    "path.simplify": False,
}
TIMES = "\N{MULTIPLICATION SIGN}"
INK, FAINT = "#22303c", "#8695a3"
FILL = {  # by what a box does
    "data": "#f1f3f5",
    "conv": "#d5e5f7",
    "new": "#fbdfc4",
    "gate": "#dcefd8",
    "op": "#ffffff",
    "head": "#e6dcf3",
}
BLUE, ORANGE, GREEN, PURPLE = "#2f6db3", "#d9731a", "#3f8f43", "#7a52a8"
TILE_COLOURS = (BLUE, ORANGE, GREEN, PURPLE)

Point = tuple[float, float]


class Box:
    """A labelled box of a drawing, with the points at which arrows end.

    Args:
        ax: Axes in units of drawing, y downward.
        x: Centre.
        y: Centre.
        text: Label, of one or more lines.
        kind: A key of `FILL`.
        width: Width.
        height: Height; None: as the lines need.
        size: Font size in points.
    """

    def __init__(
        self, ax: Axes, x: float, y: float, text: str, kind: str = "conv", width: float = 2.6,
        height: float | None = None, size: float = 9,
    ) -> None:  # fmt: skip
        height = height or 0.32 + 0.34 * (text.count("\n") + 1)
        self.x, self.y, self.width, self.height = x, y, width, height
        look = {"fc": FILL[kind], "ec": INK, "lw": 0.9, "zorder": 3}
        if kind == "op" and width == height:
            ax.add_patch(Circle((x, y), width / 2, **look))
        else:
            corners = f"round,pad=0,rounding_size={height / 2 if kind == 'op' else 0.12}"
            ax.add_patch(FancyBboxPatch((x - width / 2, y - height / 2), width, height, boxstyle=corners, **look))
        ax.text(x, y, text, ha="center", va="center", fontsize=size, color=INK, zorder=4, linespacing=1.25)

    @property
    def top(self) -> Point:
        """Middle of the upper side."""
        return self.x, self.y - self.height / 2

    @property
    def bottom(self) -> Point:
        """Middle of the lower side."""
        return self.x, self.y + self.height / 2

    @property
    def left(self) -> Point:
        """Middle of the left side."""
        return self.x - self.width / 2, self.y

    @property
    def right(self) -> Point:
        """Middle of the right side."""
        return self.x + self.width / 2, self.y


def canvas(width: float, height: float, scale: float = 0.5) -> tuple[Figure, Axes]:
    """Return a figure and axes without frame, `width` x `height` units of `scale` inches, y downward."""
    figure = Figure((width * scale, height * scale), facecolor="white")
    ax = figure.add_axes((0, 0, 1, 1))
    ax.set(xlim=(0, width), ylim=(height, 0))
    ax.axis("off")
    return figure, ax


def arrow(ax: Axes, *points: Point, colour: str = INK, dashed: bool = False) -> None:
    """Draw a line through points with a head at its end."""
    line = {"color": colour, "lw": 1.1, "ls": (0, (4, 2)) if dashed else "-"}
    if len(points) > 2:
        ax.plot(*zip(*points[:-1], strict=True), **line, zorder=2, solid_joinstyle="round")
    style = {"arrowstyle": "-|>,head_width=0.22,head_length=0.42", "shrinkA": 0, "shrinkB": 0, "mutation_scale": 10}
    ax.annotate("", points[-1], points[-2], arrowprops=style | line, zorder=2)


def note(ax: Axes, x: float, y: float, text: str, **options: object) -> None:
    """Write a text beside what it explains."""
    ax.text(x, y, text, **({"ha": "left", "va": "center", "fontsize": 8.5, "color": INK, "linespacing": 1.3} | options))


def title(ax: Axes, x: float, y: float, text: str) -> None:
    """Write the name of a part of a drawing."""
    ax.text(x, y, text, ha="left", va="center", fontsize=11, color=INK, fontweight="bold")


def share(channels: int, of: int) -> str:
    """Write channels as a share of `c`, e.g. `c/2`."""
    ratio = Fraction(channels, of)
    top = "c" if ratio.numerator == 1 else f"{ratio.numerator}c"
    return top if ratio.denominator == 1 else f"{top}/{ratio.denominator}"


def describe(module: nn.Module, of: int | None = None, dilation: bool = False) -> str:
    """Say what a convolution is, from its own attributes, its channels as shares of `of`; its dilation where asked."""
    conv = getattr(module, "conv", None) or getattr(module, "conv_transpose", module)
    lines = [f"{conv.kernel_size[0]}x{conv.kernel_size[1]} conv"]
    if isinstance(conv, nn.ConvTranspose2d):
        lines = [f"{conv.kernel_size[0]}x{conv.kernel_size[1]} transposed", f"conv, stride {conv.stride[0]}"]
    elif conv.stride[0] > 1:
        lines[0] += f", stride {conv.stride[0]}"
    if dilation:
        lines.append(f"dilation {conv.dilation[0]}")
    if conv.groups > 1:
        lines.append(f"{conv.groups} groups")
    if of:
        lines.append(f"{share(conv.in_channels, of)} → {share(conv.out_channels, of)}")
    return "\n".join(lines)


# The blocks -----------------------------------------------------------------------------------------------------------


def grid(ax: Axes, x: float, y: float, cell: float, cells: int, filled: dict[tuple[int, int, int], str]) -> None:
    """Draw `cells` x `cells` cells from the upper left corner (x, y), with squares of them filled.

    Args:
        ax: See `Box`.
        x: Left side.
        y: Upper side.
        cell: Side of a cell.
        cells: Cells a side.
        filled: Colours by (row, column, side in cells) of the squares.
    """
    for (row, column, side), colour in filled.items():
        place, size = (x + column * cell, y + row * cell), side * cell
        ax.add_patch(Rectangle(place, size, size, fc=colour, ec="none", zorder=2))
    ends = np.linspace(0, cells * cell, cells + 1)
    across, along = np.repeat(ends, 3), np.tile([0, cells * cell, np.nan], cells + 1)
    lines = np.concatenate((x + across, x + along)), np.concatenate((y + along, y + across))
    ax.plot(*lines, color="#c5ccd3", lw=0.4, zorder=3)


def draw_dualconv() -> Figure:
    """DualConv, and which input channels each output channel of its two convolutions sees."""
    c1, c2, stride = 128, 256, 2
    block = DualConv(c1, c2, stride)
    stock = Conv(c1, c2, 3, stride)
    groups = block.conv.groups
    figure, ax = canvas(16, 7.6)
    title(ax, 0.4, 0.6, "DualConv")
    x = Box(ax, 3.6, 1.6, f"input, {c1} channels", "data", 3.4)
    grouped = Box(ax, 1.9, 3.3, describe(block.conv), "new")
    dense = Box(ax, 5.3, 3.3, describe(block.cv2) + "\nall channels", "new")
    plus = Box(ax, 3.6, 4.9, "+", "op", 0.66, 0.66, 12)
    norm = Box(ax, 3.6, 5.9, f"BatchNorm, {type(block.act).__name__}", "conv", 3.4)
    out = Box(ax, 3.6, 7.0, f"output, {c2} channels, half the size", "data", 4.8)
    for branch in (grouped, dense):
        arrow(ax, x.bottom, (x.x, 2.35), (branch.x, 2.35), branch.top)
        arrow(ax, branch.bottom, (branch.x, plus.y), plus.left if branch is grouped else plus.right)
    arrow(ax, plus.bottom, norm.top)
    arrow(ax, norm.bottom, out.top)

    for left, conv, name in (
        (8.1, block.conv, f"3x3 kernels: {groups} groups"),
        (12.1, block.cv2, "1x1 kernels: dense"),
    ):
        note(ax, left + 1.6, 1.3, name, ha="center")
        side = 16 // conv.groups
        colours = TILE_COLOURS if conv.groups > 1 else (FAINT,)
        grid(ax, left, 1.75, 0.2, 16, {(i * side, i * side, side): colours[i] for i in range(conv.groups)})
        note(ax, left + 1.6, 5.2, "input channels →", ha="center", color=FAINT)
        note(ax, left - 0.22, 3.35, "output channels", ha="center", rotation=90, color=FAINT)
    mine, theirs = (block.conv.weight.numel() + block.cv2.weight.numel()), stock.conv.weight.numel()
    note(
        ax, 8.1, 6.35,
        f"weights of the kernels: {block.conv.weight.numel():,} + {block.cv2.weight.numel():,} = {mine:,}\n"
        f"a 3x3 Conv of these widths: {theirs:,}, {theirs / mine:.1f} times as many",
    )  # fmt: skip
    return figure


def draw_dwr() -> Figure:
    """DWR, what its three dilated convolutions see, and C3k2DWR around it."""
    c = 64
    block = DWR(c, c)
    figure, ax = canvas(17, 11.9)
    title(ax, 0.4, 0.6, "DWR")
    x = Box(ax, 4.6, 1.3, "input, c channels", "data", 3.2)
    region = Box(ax, 4.6, 2.75, describe(block.region, c), "new")
    joined = block.merge.conv.in_channels
    concat = Box(ax, 4.6, 7.5, f"concatenate, {share(joined, c)}", "op", 3.4)
    merged = Box(ax, 4.6, 8.65, describe(block.merge, c), "new")
    plus = Box(ax, 4.6, 9.75, "+", "op", 0.66, 0.66, 12)
    out = Box(ax, 4.6, 10.7, "output, c channels", "data", 3.2)
    arrow(ax, x.bottom, region.top)
    for i, (conv, colour) in enumerate(zip((block.d1, block.d3, block.d5), TILE_COLOURS, strict=False)):
        branch = Box(ax, region.x + (i - 1) * 2.9, 4.7, describe(conv, c, dilation=True), "new", 2.4)
        taps = [5 + tap * conv.conv.dilation[0] for tap in (-1, 0, 1)]
        grid(ax, branch.x + 0.12, 5.5, 0.1, 11, {(row, column, 1): colour for row in taps for column in taps})
        into = ((region.x, 3.7), (branch.x, 3.7)) if branch.x != region.x else ()
        arrow(ax, region.bottom, *into, branch.top)
        onto = ((branch.x, 6.85), (concat.x, 6.85)) if branch.x != concat.x else ()
        arrow(ax, branch.bottom, *onto, concat.top)
    arrow(ax, concat.bottom, merged.top)
    arrow(ax, merged.bottom, plus.top)
    arrow(ax, plus.bottom, out.top)
    arrow(ax, (x.x, 1.9), (9.2, 1.9), (9.2, plus.y), plus.right)
    note(ax, 9.05, 9.5, "the input is added", ha="right", fontsize=8)

    outer = C3k2DWR(c, c, n=2)
    title(ax, 11.2, 0.6, f"C3k2DWR with {len(outer.m)} blocks")
    x = Box(ax, 13.9, 1.3, "input, c channels", "data", 3.2)
    first = Box(ax, 13.9, 2.6, describe(outer.cv1, c))
    inner = [
        Box(ax, 15.4, 4.75 + 1.3 * i, f"{type(m).__name__}, {share(outer.c, c)}", "new") for i, m in enumerate(outer.m)
    ]
    concat = Box(ax, 13.9, 7.5, f"concatenate, {share(outer.cv2.conv.in_channels, c)}", "op", 4.4)
    last = Box(ax, 13.9, 9.0, describe(outer.cv2, c))
    out = Box(ax, 13.9, 10.7, "output, c channels", "data", 3.2)
    arrow(ax, x.bottom, first.top)
    fork = 3.5
    ax.plot((first.x, first.x), (first.bottom[1], fork), color=INK, lw=1.1, zorder=2)
    arrow(ax, (first.x, fork), (12.1, fork), (12.1, concat.top[1]))
    arrow(ax, (first.x, fork), (inner[0].x, fork), inner[0].top)
    note(ax, 12.2, 3.28, f"one half, {share(outer.c, c)}", fontsize=8, ha="right")
    for number, box in enumerate(inner):
        above, at = (box.top[1] - 0.45 if number == 0 else box.top[1] - 0.3), 12.75 + 0.65 * number
        arrow(ax, (box.x, above), (at, above), (at, concat.top[1]))
        if number:
            arrow(ax, inner[number - 1].bottom, box.top)
    arrow(ax, inner[-1].bottom, (inner[-1].x, concat.top[1]))
    arrow(ax, concat.bottom, last.top)
    arrow(ax, last.bottom, out.top)
    note(
        ax, 0.4, 11.6, f"Every convolution is followed by BatchNorm and {type(block.merge.act).__name__}. "
        "The grids show which places a 3x3 convolution sees at its dilation.", color=FAINT,
    )  # fmt: skip
    return figure


def draw_hsfpn() -> Figure:
    """HS-FPN's parts: the channel attention, the screening lateral and the screening fusion."""
    c, width = 128, 64
    lateral, fusion = ScreeningLateral(c, width), ScreeningFusion([c, c])
    squeeze, rectify, expand = fusion.gate.bottleneck
    figure, ax = canvas(17, 9.4)

    title(ax, 0.4, 0.6, "channel attention")
    x = Box(ax, 2.7, 1.5, "level, c channels", "data", 3.2)
    pools = [
        Box(ax, 2.7 + side * 1.25, 2.75, text, "gate", 2.2)
        for side, text in ((-1, "mean of\neach channel"), (1, "maximum of\neach channel"))
    ]
    layers = describe(squeeze, c), type(rectify).__name__, describe(expand, c)
    shared = Box(ax, 2.7, 4.8, "\n".join(("shared bottleneck", *layers)), "gate", 3.6)
    plus = Box(ax, 2.7, 6.75, "+", "op", 0.66, 0.66, 12)
    sigmoid = Box(ax, 2.7, 7.65, "sigmoid", "gate", 2.2)
    out = Box(ax, 2.7, 8.6, "c weights, 0 to 1", "data", 3.2)
    for pool in pools:
        arrow(ax, x.bottom, (x.x, 2.08), (pool.x, 2.08), pool.top)
        arrow(ax, pool.bottom, (pool.x, shared.top[1]))
        arrow(ax, (pool.x, shared.bottom[1]), (pool.x, plus.y), plus.left if pool.x < plus.x else plus.right)
    arrow(ax, plus.bottom, sigmoid.top)
    arrow(ax, sigmoid.bottom, out.top)

    title(ax, 6.0, 0.6, "ScreeningLateral")
    x = Box(ax, 8.0, 1.5, "backbone level, c", "data", 3.2)
    gate = Box(ax, 9.1, 3.2, "channel\nattention", "gate", 2.2)
    times = Box(ax, 7.0, 4.8, TIMES, "op", 0.66, 0.66, 12)
    project = Box(ax, 7.0, 6.4, f"{describe(lateral.project)}\nc → width", "new", 2.4)
    out = Box(ax, 8.0, 8.6, "level of the pyramid", "data", 3.6)
    arrow(ax, (7.0, x.bottom[1]), times.top)
    arrow(ax, (9.1, x.bottom[1]), gate.top)
    arrow(ax, gate.bottom, (gate.x, times.y), times.right)
    arrow(ax, times.bottom, project.top)
    arrow(ax, project.bottom, (7.0, out.top[1]))

    title(ax, 11.2, 0.6, "ScreeningFusion")
    low = Box(ax, 12.4, 1.5, "low level\n2H x 2W", "data", 2.2)
    high = Box(ax, 15.4, 1.5, "high level\nH x W", "data", 2.2)
    up = Box(ax, 15.4, 3.2, describe(fusion.up, c).replace("\nc → c", ""), "new", 2.7)
    gate = Box(ax, 13.9, 4.9, "channel\nattention", "gate", 1.9)
    times = Box(ax, 12.4, 6.1, TIMES, "op", 0.66, 0.66, 12)
    plus = Box(ax, 12.4, 7.3, "+", "op", 0.66, 0.66, 12)
    out = Box(ax, 13.4, 8.6, "fused level, 2H x 2W", "data", 3.8)
    arrow(ax, high.bottom, up.top)
    arrow(ax, low.bottom, times.top)
    arrow(ax, up.bottom, (up.x, plus.y), plus.right)
    arrow(ax, (up.x, 4.05), (gate.x, 4.05), gate.top)
    arrow(ax, gate.bottom, (gate.x, times.y), times.right)
    arrow(ax, times.bottom, plus.top)
    arrow(ax, plus.bottom, (12.4, out.top[1]))
    return figure


# The models -----------------------------------------------------------------------------------------------------------


def read_rows(file: Path, imgsz: int = 64) -> list[dict]:
    """Return what each row of a model YAML is at scale n: `name`, `sources`, `repeats`, `stride` and `channels`."""
    name = file.name.replace("yolo11", "yolo11n", 1)
    model = DetectionModel(str(file.with_name(name)), verbose=False).eval()
    shapes: dict[int, torch.Size] = {}

    def remember(module: nn.Module, inputs: object, output: object) -> None:
        if isinstance(output, torch.Tensor):
            shapes[module.i] = output.shape

    for module in model.model:
        module.register_forward_hook(remember)
    with torch.no_grad():
        model(torch.zeros(1, 3, imgsz, imgsz))
    rows, written = [], model.yaml["backbone"] + model.yaml["head"]
    for i, (module, (source, *_)) in enumerate(zip(model.model, written, strict=True)):
        sources = [i + s if s < 0 else s for s in (source if isinstance(source, list) else [source])]
        shape = shapes.get(i)
        rows.append(
            {
                "i": i,
                "name": type(module).__name__,
                "sources": [s for s in sources if s >= 0],
                "repeats": len(module.m) if isinstance(getattr(module, "m", None), nn.ModuleList) else 1,
                "stride": imgsz // shape[2] if shape else 0,
                "channels": shape[1] if shape else 0,
                "backbone": i < len(model.yaml["backbone"]),
            }
        )
    return rows


OURS = {"DualConv", "DWR", "C3k2DWR", "ScreeningLateral", "ScreeningFusion", "LightDetect"}
COLUMNS = (4.0, 7.3, 10.15, 12.75, 15.35)  # backbone, lateral, fusion, block, head


def draw_model(file: Path) -> Figure:
    """A model with an HS-FPN from its YAML: a band for each stride; from left to right backbone, neck and heads."""
    rows = read_rows(file)
    *body, detect = rows
    strides = sorted({row["stride"] for row in body})
    stacks = {s: [row for row in body if row["backbone"] and row["stride"] == s] for s in strides}
    step, pad = 0.95, 0.42
    figure, ax = canvas(17, 2.75 + sum(step * len(stack) + pad for stack in stacks.values()))
    for x, text in zip(COLUMNS, ("backbone", "lateral", "fusion", "block", detect["name"]), strict=True):
        note(ax, x, 0.6, text, ha="center", va="baseline", fontsize=10.5, fontweight="bold")
    image = Box(ax, COLUMNS[0], 1.25, "image, 3", "data", 2.7, 0.62, 8.5)
    boxes: dict[int, Box] = {}
    y = 1.75
    for stride in strides:
        stack = stacks[stride]
        band = step * len(stack) + pad
        ax.add_patch(Rectangle((0.25, y), 16.5, band - 0.12, fc="#f4f6f8", ec="none", zorder=0))
        place = f"P{stride.bit_length() - 1}, stride {stride}\n{640 // stride} x {640 // stride}"
        note(ax, 0.45, y + band / 2 - 0.06, place)
        for number, row in enumerate(stack):
            boxes[row["i"]] = row_box(ax, COLUMNS[0], y + pad / 2 - 0.06 + step * (number + 0.5), row)
        for row in body:
            if not row["backbone"] and row["stride"] == stride:
                column = {"ScreeningLateral": 1, "ScreeningFusion": 2}.get(row["name"], 3)
                boxes[row["i"]] = row_box(ax, COLUMNS[column], boxes[stack[-1]["i"]].y, row)
        y += band
    for row in body:
        box = boxes[row["i"]]
        for source in [boxes[i] for i in row["sources"]] or [image]:
            if source.x == box.x:
                arrow(ax, source.bottom, box.top)
            elif source.y == box.y:
                arrow(ax, source.right, box.left)
            elif box.x < source.x:  # a block to the fusion of the level above
                gap = (source.top[1] + box.bottom[1]) / 2
                arrow(ax, source.top, (source.x, gap), (box.x, gap), box.bottom)
            else:  # the highest lateral to the first fusion
                arrow(ax, source.right, (box.x, source.y), box.bottom)
    for source in detect["sources"]:
        level = f"P{body[source]['stride'].bit_length() - 1}"
        head = Box(ax, COLUMNS[4], boxes[source].y, f"{level}: boxes\nand classes", "head", 2.0, size=8.5)
        arrow(ax, boxes[source].right, head.left)
    note(
        ax, 0.25, y + 0.42, "A box names its module and its channels at scale n; sizes are those of a 640 px input.\n"
        "Orange: blocks that YOLO11 does not have.", color=FAINT,
    )  # fmt: skip
    return figure


def row_box(ax: Axes, x: float, y: float, row: dict) -> Box:
    """Draw the box of a row."""
    name = row["name"].removeprefix("Screening")
    text = name + (f" x{row['repeats']}" if row["repeats"] > 1 else "") + f", {row['channels']}"
    return Box(ax, x, y, text, "new" if row["name"] in OURS else "conv", 2.7 if row["backbone"] else 2.0, 0.62, 8.5)


# The loss -------------------------------------------------------------------------------------------------------------


def squares(side: float, offsets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a square of `side` pixels and the same moved to the right by `offsets`, xyxy, shapes (1, 4) and (N, 4)."""
    box = torch.tensor([[0.0, 0, side, side]], dtype=torch.float64)
    moved = box.repeat(len(offsets), 1)
    moved[:, ::2] += torch.from_numpy(offsets)[:, None]
    return box, moved


def draw_nwd() -> Figure:
    """IoU and NWD of a square and the same square moved to the side."""
    figure = Figure((8, 3.5), facecolor="white", layout="constrained")
    axes = figure.subplots(1, 2, sharey=True)
    offsets = np.linspace(0, 40, 161)
    for ax, side in zip(axes, (8, 32), strict=True):
        box, moved = squares(side, offsets)
        ax.plot(offsets, bbox_iou(box, moved, xywh=False).squeeze(-1), color=BLUE, lw=2, label="IoU")
        for c, dashes in ((DEFAULT_C, "-"), (2 * DEFAULT_C, "--")):
            ax.plot(offsets, nwd(box, moved, c), color=ORANGE, lw=2, ls=dashes, label=f"NWD, C = {c:g} px")
        ax.axvline(side, color=INK, lw=1, ls=":", label="no overlap from here on")
        ax.set(title=f"a box of {side} x {side} px", xlabel="offset in pixels", xlim=(0, 40), ylim=(0, 1.02))
    axes[0].set_ylabel("similarity")
    axes[0].legend(loc="upper right", frameon=False, fontsize=9)
    return figure


def draw_assignment() -> Figure:
    """The share of the NWD by the size of an object, and the overlap by which a small one is assigned."""
    figure = Figure((8, 3.5), facecolor="white", layout="constrained")
    left, right = figure.subplots(1, 2)
    sizes = np.linspace(0, 48, 193)
    boxes = torch.from_numpy(np.column_stack((0 * sizes, 0 * sizes, sizes, sizes)))
    left.plot(sizes, size_fade(boxes), color=ORANGE, lw=2)
    left.set(title="how much of nwd_assign an object gets", xlabel="size of the object, √(w·h), in pixels")
    left.set(ylabel="factor", xlim=(0, 48), ylim=(0, 1.05), xticks=(0, 8, FADE_START, 24, FADE_END, 40, 48))
    offsets = np.linspace(0, 24, 97)
    box, moved = squares(8, offsets)
    for nwd_assign, colour, label in ((0, BLUE, "0 (stock)"), (0.5, ORANGE, "0.5"), (1, PURPLE, "1")):
        assigner = TaskAlignedAssigner()
        assigner.nwd_assign, assigner.nwd_c = nwd_assign, DEFAULT_C
        overlap = assigner.iou_calculation(box.expand_as(moved), moved)
        right.plot(offsets, overlap, color=colour, lw=2, label=f"nwd_assign={label}")
    right.set(title="overlap with an object of 8 x 8 px", xlabel="offset of the prediction in pixels")
    right.set(ylabel=f"overlap, C = {DEFAULT_C:g} px", xlim=(0, 24), ylim=(0, 1.05))
    right.legend(loc="upper right", frameon=False)
    return figure


# Slicing and sizes ----------------------------------------------------------------------------------------------------


def outline(box: np.ndarray, shape: str) -> np.ndarray:
    """Return the outline of a thing that fills a box, xyxy: an aircraft from the side or a truck, shape (N, 2)."""
    aircraft = [
        (0, 0.55), (0.06, 0.42), (0.16, 0.36), (0.8, 0.36), (0.9, 0), (1, 0), (0.955, 0.42), (0.99, 0.5), (0.9, 0.56),
        (0.62, 0.64), (0.7, 1), (0.62, 1), (0.4, 0.7), (0.1, 0.7),
    ]  # fmt: skip
    truck = [(0, 0.35), (0.22, 0), (0.3, 0), (0.3, 0.2), (1, 0.2), (1, 1), (0, 1)]
    points = np.array(aircraft if shape == "aircraft" else truck)
    return box[:2] + points * (box[2:] - box[:2])


def draw_slicing() -> Figure:
    """The tiles of an image, and how objects that their edges cut become one box each."""
    height, width = 1080, 1920
    tiles = tile_grid(height, width, 640, 0.2)
    things = {"aircraft": np.array([250.0, 290, 1270, 425]), "truck": np.array([600.0, 120, 680, 180])}
    rows, sources = [], []
    for number, tile in enumerate(tiles):
        for kind, thing in enumerate(things.values()):
            part = np.concatenate((np.maximum(thing[:2], tile[:2]), np.minimum(thing[2:], tile[2:])))
            if (part[2:] > part[:2]).all():
                rows.append([*part, 0.8, kind])
                sources.append(number)
    found = torch.tensor(rows)
    merged = merge(found[:, :4], found[:, 4], found[:, 5], torch.tensor(sources), tiles, (height, width))
    figure = Figure((8, 6.3), facecolor="white")
    whole = figure.add_axes((0.02, 0.42, 0.96, 0.53))
    zooms = [figure.add_axes((left, 0.04, 0.47, 0.33)) for left in (0.02, 0.51)]
    for ax in (whole, *zooms):
        ax.set(aspect="equal", xticks=(), yticks=())
        ax.grid(visible=False)
        ax.spines[:].set_visible(False)
        ax.add_patch(Rectangle((0, 0), width, height, fc="#f4f6f8", ec=INK, lw=0.8, zorder=0))
        for shape, thing in things.items():
            ax.add_patch(Polygon(outline(thing, shape), fc="#b9c3cc", ec="none", zorder=1))
    whole.set(xlim=(-5, width + 5), ylim=(height + 5, -5))
    columns = len(np.unique(tiles[:, 0]))
    whole.set_title(f"an image of {width} x {height} px and its {len(tiles)} tiles of 640 px", fontsize=10)
    for number, (x1, y1, x2, y2) in enumerate(tiles):
        inset = 5 * (number % columns) + 22 * (number // columns)  # so that edges do not hide each other
        colour = TILE_COLOURS[number % columns]
        corner = (x1 + inset, y1 + inset)
        whole.add_patch(
            Rectangle(corner, x2 - x1 - 2 * inset, y2 - y1 - 2 * inset, fill=False, ec=colour, lw=1.5, zorder=3)
        )
        label = (x1 + 40 + (number % columns) * 8, y1 + 60 if number < columns else y2 - 60)
        whole.text(*label, f"{number + 1}", color=colour, fontsize=11, fontweight="bold", va="center")
    titles = f"what tiles {min(sources) + 1} to {max(sources) + 1} show", f"merged: {len(merged.boxes)} objects"
    for ax, text in zip(zooms, titles, strict=True):
        ax.set(xlim=(190, 1350), ylim=(520, 60))
        ax.set_title(text, fontsize=10)
    for (x1, y1, x2, y2, *_), source in zip(rows, sources, strict=True):
        inset, colour = 7 * source, TILE_COLOURS[source % columns]
        zooms[0].add_patch(Rectangle((x1, y1 - inset), x2 - x1, y2 - y1 + 2 * inset, fill=False, ec=colour, lw=1.5))
        if y2 - y1 > 100:
            zooms[0].text((x1 + x2) / 2, y2 + 22 + inset, f"{source + 1}", color=colour, fontsize=10, va="top")
    for x1, y1, x2, y2 in merged.boxes.tolist():
        zooms[1].add_patch(Rectangle((x1, y1), x2 - x1, y2 - y1, fill=False, ec=INK, lw=1.8))
    zooms[1].text(770, 480, "parts that agree where tiles overlap are joined", ha="center", fontsize=8.5, color=INK)
    zooms[1].text(700, 150, "the cut part goes, the whole stays", va="center", fontsize=8.5, color=INK)
    return figure


def draw_sizes() -> Figure:
    """The size groups, to scale, and COCO's names for them."""
    figure, ax = canvas(17, 6.0)
    pixel, ground = 0.034, 4.1  # units a pixel; where the squares stand
    centres = (1.4, 4.1, 6.9, 10.4, 14.7)
    for x, (name, (low, high)), colour in zip(centres, SIZE_GROUPS.items(), (*TILE_COLOURS, INK), strict=True):
        small, large = low**0.5, high**0.5
        if np.isfinite(large):
            side = pixel * large
            ax.add_patch(Rectangle((x - side / 2, ground - side), side, side, fc=colour, alpha=0.3, ec=colour, lw=1.2))
        if small:
            side = pixel * small
            ax.add_patch(Rectangle((x - side / 2, ground - side), side, side, fc="white", ec=colour, lw=1.2, ls="--"))
        note(ax, x, ground + 0.42, name, ha="center", fontsize=10.5, fontweight="bold", color=colour)
        note(ax, x, ground + 0.84, f"{area_limits(name, '²')} px", ha="center")
    small = f"COCO's small, {area_limits(COCO_SMALL_NAME, '²')} px: AP_small"
    for left, right, margin, name in ((0, 2, 1.2, small), (3, 3, 1.7, "COCO's medium"), (4, 4, 1.7, "COCO's large")):
        x1, x2, y = centres[left] - margin, centres[right] + margin, ground + 1.25
        ax.plot((x1, x1, x2, x2), (y, y + 0.15, y + 0.15, y), color=FAINT, lw=1)
        note(ax, (x1 + x2) / 2, y + 0.42, name, ha="center", color=INK)
    note(ax, 0.3, 0.4, "To scale. Filled: the largest box of a group, dashed: the smallest.", color=FAINT)
    return figure


DRAWINGS: dict[str, Callable[[], Figure]] = {
    "dualconv.svg": draw_dualconv,
    "dwr.svg": draw_dwr,
    "hsfpn.svg": draw_hsfpn,
    "model.svg": lambda: draw_model(MODELS / "yolo11.yaml"),
    "nwd.svg": draw_nwd,
    "assignment.svg": draw_assignment,
    "tiles.svg": draw_slicing,
    "sizes.svg": draw_sizes,
}
"""The drawings by the names of their files in docs/pictures."""


def svg(draw: Callable[[], Figure]) -> str:
    """Return a drawing as SVG, the same text each time."""
    with mpl.rc_context(STYLE):
        out = io.StringIO()
        draw().savefig(out, format="svg", metadata={"Date": None})
    return "\n".join(line.rstrip() for line in out.getvalue().splitlines()) + "\n"


def main() -> int:
    """Write all drawings to docs/pictures."""
    FOLDER.mkdir(exist_ok=True)
    for name, draw in DRAWINGS.items():
        with replacing(FOLDER / name) as new:
            new.write_text(svg(draw), encoding="utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
