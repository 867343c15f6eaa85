"""Draws the blocks and a model."""

from pathlib import Path

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle
from torch import nn
from ultralytics.nn.modules import DWR, C3k2DWR, Conv, DualConv, ScreeningFusion, ScreeningLateral
from ultralytics.nn.tasks import DetectionModel

from docs.tools.drawing import FAINT, INK, TILE_COLOURS, TIMES, Box, arrow, canvas, describe, note, share, title
from small_object.transfer import PROBE, find_shapes


def grid(ax: Axes, x: float, y: float, cell: float, cells: int, filled: dict[tuple[int, int, int], str]) -> None:
    """Draw `cells` x `cells` cells from the upper left corner (x, y), with some squares filled.

    Args:
        ax: See `Box`.
        x: Left side.
        y: Upper side.
        cell: Side of a cell.
        cells: Cells per side.
        filled: Colours of the squares by (row, column, side in cells).
    """
    for (row, column, side), colour in filled.items():
        place, size = (x + column * cell, y + row * cell), side * cell
        ax.add_patch(Rectangle(place, size, size, fc=colour, ec="none", zorder=2))
    ends = np.linspace(0, cells * cell, cells + 1)
    across, along = np.repeat(ends, 3), np.tile([0, cells * cell, np.nan], cells + 1)
    lines = np.concatenate((x + across, x + along)), np.concatenate((y + along, y + across))
    ax.plot(*lines, color="#c5ccd3", lw=0.4, zorder=3)


def draw_dualconv() -> Figure:
    """Draw DualConv, and the input channels that each output channel of its two convolutions sees."""
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
    """Draw DWR, the receptive fields of its three dilated convolutions, and C3k2DWR around it."""
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
    """Draw HS-FPN's parts: the channel attention, the screening lateral and the screening fusion."""
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


def read_rows(file: Path) -> list[dict]:
    """Return `name`, `sources`, `repeats`, `stride` and `channels` of each row of a model YAML at scale n."""
    name = file.name.replace("yolo11", "yolo11n", 1)
    model = DetectionModel(str(file.with_name(name)), verbose=False).eval()
    shapes = find_shapes(model)
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
                "stride": PROBE // shape[2] if shape else 0,
                "channels": shape[1] if shape else 0,
                "backbone": i < len(model.yaml["backbone"]),
            }
        )
    return rows


COLUMNS = (4.0, 8.2, 11.6, 15.0)  # backbone, fusion, block, head


def draw_model(file: Path) -> Figure:
    """Draw a model with a top-down neck from its YAML: a band per stride; from left to right backbone, neck, heads."""
    rows = read_rows(file)
    *body, detect = rows
    upsampled = {row["i"]: row["sources"][0] for row in body if row["name"] == "Upsample"}  # drawn with the next row
    body = [row for row in body if row["i"] not in upsampled]
    strides = sorted({row["stride"] for row in body})
    stacks = {s: [row for row in body if row["backbone"] and row["stride"] == s] for s in strides}
    step, pad = 0.95, 0.42
    figure, ax = canvas(17, 2.75 + sum(step * len(stack) + pad for stack in stacks.values()))
    for x, text in zip(COLUMNS, ("backbone", "upsample, fuse", "block", detect["name"]), strict=True):
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
                column = 1 if row["name"] == "Concat" else 2
                boxes[row["i"]] = row_box(ax, COLUMNS[column], boxes[stack[-1]["i"]].y, row)
        y += band
    for row in body:
        box = boxes[row["i"]]
        for source in [boxes[upsampled.get(i, i)] for i in row["sources"]] or [image]:
            if source.x == box.x:
                arrow(ax, source.bottom, box.top)
            elif source.y == box.y:
                arrow(ax, source.right, box.left)
            elif box.x < source.x:  # a block to the fusion of the level above
                gap = (source.top[1] + box.bottom[1]) / 2
                arrow(ax, source.top, (source.x, gap), (box.x, gap), box.bottom)
            else:  # the coarsest level to the first fusion
                arrow(ax, source.right, (box.x, source.y), box.bottom)
    for source in detect["sources"]:
        level = f"P{rows[source]['stride'].bit_length() - 1}"
        head = Box(ax, COLUMNS[3], boxes[source].y, f"{level}: boxes\nand classes", "new", 2.0, size=8.5)
        arrow(ax, boxes[source].right, head.left)
    note(
        ax, 0.25, y + 0.42, "A box names its module and its channels at scale n; sizes are those of a 640 px input.\n"
        "Orange: what YOLO11 does not have.", color=FAINT,
    )  # fmt: skip
    return figure


def row_box(ax: Axes, x: float, y: float, row: dict) -> Box:
    """Draw the box of a row."""
    text = row["name"] + (f" x{row['repeats']}" if row["repeats"] > 1 else "") + f", {row['channels']}"
    kind = "conv" if row["backbone"] or row["stride"] > 4 else "new"
    return Box(ax, x, y, text, kind, 2.7 if row["backbone"] else 2.0, 0.62, 8.5)
