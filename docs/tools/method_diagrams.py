"""Draws the loss, the assignment, the slicing and the size groups."""

import numpy as np
import torch
from matplotlib.figure import Figure
from matplotlib.patches import Polygon, Rectangle
from ultralytics.utils.metrics import bbox_iou
from ultralytics.utils.tal import FADE_END, FADE_START, TaskAlignedAssigner, size_fade

from docs.tools.drawing import BLUE, FAINT, INK, ORANGE, PURPLE, TILE_COLOURS, canvas, note
from small_object.nwd import DEFAULT_C, nwd
from small_object.sizes import COCO_SMALL_NAME, SIZE_GROUPS, area_limits
from small_object.slicing.merge import merge
from small_object.slicing.tiling import tile_grid


def squares(side: float, offsets: np.ndarray) -> tuple[torch.Tensor, torch.Tensor]:
    """Return a square of `side` pixels and its copies moved right by `offsets`, xyxy, shapes (1, 4) and (N, 4)."""
    box = torch.tensor([[0.0, 0, side, side]], dtype=torch.float64)
    moved = box.repeat(len(offsets), 1)
    moved[:, ::2] += torch.from_numpy(offsets)[:, None]
    return box, moved


def draw_nwd() -> Figure:
    """Draw IoU and NWD of a square and its copy moved to the side."""
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
    """Draw the share of the NWD by object size, and the overlap by which a small object is assigned."""
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


def outline(box: np.ndarray, shape: str) -> np.ndarray:
    """Return the outline of an aircraft from the side or a truck that fills a box, xyxy, shape (N, 2)."""
    aircraft = [
        (0, 0.55), (0.06, 0.42), (0.16, 0.36), (0.8, 0.36), (0.9, 0), (1, 0), (0.955, 0.42), (0.99, 0.5), (0.9, 0.56),
        (0.62, 0.64), (0.7, 1), (0.62, 1), (0.4, 0.7), (0.1, 0.7),
    ]  # fmt: skip
    truck = [(0, 0.35), (0.22, 0), (0.3, 0), (0.3, 0.2), (1, 0.2), (1, 1), (0, 1)]
    points = np.array(aircraft if shape == "aircraft" else truck)
    return box[:2] + points * (box[2:] - box[:2])


def draw_slicing() -> Figure:
    """Draw the tiles of an image, and how the parts of a cut object become one box."""
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
    """Draw the size groups to scale, and COCO's names for them."""
    figure, ax = canvas(17, 6.0)
    pixel, ground = 0.034, 4.1  # units per pixel; the squares' lower side
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
