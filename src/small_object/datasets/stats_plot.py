"""Draws how small the objects of a data set are, on one picture."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING

import cv2
import numpy as np

from small_object.datasets.counts import STRIDE, Objects, Stats, shorten
from small_object.datasets.images import read_pixels
from small_object.sizes import SIZE_GROUPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes
    from matplotlib.figure import Figure

ORIGINAL, AT_IMGSZ, GREY = "#33597f", "#e0813a", "#6b7280"
SPLIT_COLOURS = {"train": "#3f7f75", "val": "#8fc1b5", "test": "#c9cf9a"}
WIDTH, HEIGHT = 1600, 1000
NUM_CROPS = 9


def draw_stats(found: Stats, objects: Objects, file: Path) -> None:
    """Draw `stats.png`, 1600x1000 pixels.

    Args:
        found: The numbers.
        objects: What they count.
        file: Where to save the picture.
    """
    from matplotlib import rc_context  # here, as it is slow to import

    with rc_context({"font.size": 9.5}):
        _draw_figure(found, objects).savefig(file, format="png")


def _draw_figure(found: Stats, objects: Objects) -> Figure:
    from matplotlib.figure import Figure

    total, imgsz = found.total, found.imgsz
    figure = Figure(figsize=(WIDTH / 100, HEIGHT / 100), dpi=100, facecolor="white")
    figure.text(0.03, 0.965, _escape(found.title(60)), size=18, weight="bold", va="center")
    if total.objects:
        text = (
            f"Resized to {imgsz} px, half of the objects have a side (√area) under {total.side_at_imgsz[50]:.1f} px; "
            f"in the original images under {total.side[50]:.1f} px.\nAt {imgsz} px, {total.thin:.1%} are thinner than "
            f"{STRIDE} px, one cell of a head at stride {STRIDE}{total.advice()}."
        )
        figure.text(0.03, 0.945, text, size=11, color=GREY, va="top", linespacing=1.4)
    grid = {"left": 0.075, "right": 0.975, "top": 0.85, "bottom": 0.325, "hspace": 0.48, "wspace": 0.24}
    axes = figure.subplots(2, 3, gridspec_kw=grid).flat
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
        ax.locator_params(axis="y", integer=True)
    _draw_classes(axes[0], found)
    _draw_sizes(axes[1], found)
    _draw_sides(axes[2], objects, imgsz)
    _draw_density(axes[3], objects)
    _draw_aspect(axes[4], objects)
    _draw_centres(axes[5], objects)
    _draw_crops(figure, found, objects)
    return figure


def _escape(text: str) -> str:
    """Keep matplotlib from reading `$` in a name as a formula."""
    return text.replace("$", r"\$")


def _draw_classes(ax: Axes, found: Stats) -> None:
    """Draw bars of the objects by class, one colour per split."""
    shown, total = found.total.shown_classes(), found.total
    rows, left = np.arange(len(shown)), np.zeros(len(shown))
    for split, part in found.splits.items():
        counts = [sum(part.classes[i].objects for i in indices) for _, indices in shown]
        ax.barh(rows, counts, 0.75, left, color=SPLIT_COLOURS[split], label=f"{split} ({part.objects:,})")
        left += counts
    for row, (_, indices) in enumerate(shown):
        count = sum(total.classes[i].objects for i in indices)
        text = f"{count:,} ({count / max(total.objects, 1):.1%})"
        ax.annotate(text, (left[row], row), (4, 0), textcoords="offset points", va="center")
    ax.set(title="Objects by class and split", xlim=(0, max(1, left.max() * 1.3)))
    ax.set_ylim(max(len(shown), 2) - 0.4, -0.6)  # the first class is on top
    ax.locator_params(axis="x", integer=True)
    ax.set_yticks(rows, [_escape(shorten(name, 14)) for name, _ in shown])
    ax.tick_params(axis="y", length=0)
    ax.legend(loc="upper left", bbox_to_anchor=(0, -0.1), ncols=3, frameon=False, borderaxespad=0.2)


def _draw_sizes(ax: Axes, found: Stats) -> None:
    """Draw bars of the objects by size group, before and after resizing."""
    total, columns = found.total, np.arange(len(SIZE_GROUPS))
    for shift, colour, label, sizes in (
        (-0.21, ORIGINAL, "original pixels", total.sizes),
        (0.21, AT_IMGSZ, f"at imgsz {found.imgsz}", total.sizes_at_imgsz),
    ):
        counts = list(sizes.values())
        bars = ax.bar(columns + shift, counts, 0.4, color=colour, label=label)
        texts = [f"{n if n < 10_000 else f'{n / 1000:.0f}k'}\n{n / max(total.objects, 1):.0%}" for n in counts]
        ax.bar_label(bars, texts, padding=2, size=8, linespacing=0.95)
    limits = ("< 8²", "8² to 16²", "16² to 32²", "32² to 96²", "≥ 96² px")
    ax.set_xticks(columns, [f"{name}\n{limit}" for name, limit in zip(SIZE_GROUPS, limits, strict=True)])
    ax.set(title="Objects by size (box area)", ylabel="objects")
    ax.set_ylim(0, max(*total.sizes.values(), *total.sizes_at_imgsz.values(), 1) * 1.45)
    ax.tick_params(axis="x", length=0)
    ax.legend(loc="upper center", ncols=2, frameon=False)


def _draw_sides(ax: Axes, objects: Objects, imgsz: int) -> None:
    """Draw the distribution of √area, before and after resizing."""
    sides = np.sqrt(objects.box[:, 2:].prod(1))
    pair = np.maximum([sides, sides * imgsz / objects.longest], 0.5)
    low, high = pair.min(initial=4.4) / 1.1, pair.max(initial=116) * 1.1
    for values, colour, label in zip(pair, (ORIGINAL, AT_IMGSZ), ("original", f"at imgsz {imgsz}"), strict=True):
        bins = np.geomspace(low, high, 45).tolist()
        ax.hist(values, bins, color=colour, alpha=0.25)
        ax.hist(values, bins, color=colour, histtype="step", linewidth=1.6, label=label)
    ax.set(title="Side of the objects, √area", xlabel="pixels (lines: limits of the size groups)", ylabel="objects")
    for limit, _ in list(SIZE_GROUPS.values())[1:]:
        ax.axvline(limit**0.5, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set_ylim(0, max(1, ax.get_ylim()[1] * 1.2))  # room for the legend
    _use_log_axis(ax, low, high)
    ax.legend(loc="upper center", ncols=2, framealpha=1, edgecolor="white")


def _draw_density(ax: Axes, objects: Objects) -> None:
    """Draw how many objects an image holds."""
    counts = np.bincount(objects.image, minlength=len(objects.files))
    most = int(counts.max(initial=0))
    step = math.ceil((most + 1) / 40)
    ax.hist(counts, [i - 0.5 for i in range(0, most + step + 1, step)], color=ORIGINAL, rwidth=0.9)
    title = "Objects in an image"
    if len(counts):
        ax.axvline(counts.mean(), color=AT_IMGSZ, linewidth=1.6)
        title += f" (mean {counts.mean():.1f}, median {np.median(counts):g})"
    ax.set(title=title, xlabel="objects in an image", ylabel="images", xlim=(-0.8, max(most, 4) + step))
    ax.locator_params(axis="x", integer=True)


def _draw_aspect(ax: Axes, objects: Objects) -> None:
    """Draw the distribution of width / height."""
    sides = objects.box[(objects.box[:, 2:] > 0).all(1), 2:]
    aspect = sides[:, 0] / sides[:, 1]
    high = max(aspect.max(initial=1.8), 1 / aspect.min(initial=0.55)) * 1.1
    ax.hist(aspect, np.geomspace(1 / high, high, 45).tolist(), color=ORIGINAL)
    ax.axvline(1, color=GREY, linewidth=0.8, linestyle=(0, (4, 3)))
    ax.set(title="Shape of the boxes", xlabel="width / height (left: upright, right: lying)", ylabel="objects")
    ax.set_ylim(0, max(1, ax.get_ylim()[1]))
    _use_log_axis(ax, 1 / high, high)


def _draw_centres(ax: Axes, objects: Objects) -> None:
    """Draw where in the images the objects are."""
    from matplotlib.ticker import MaxNLocator

    x, y = objects.box[:, :2].clip(0, 1).T * 100
    counts, _, _ = np.histogram2d(y, x, bins=(18, 32), range=((0, 100), (0, 100)))
    image = ax.imshow(counts, cmap="Blues", extent=(0, 100, 100, 0), aspect="auto", vmin=0, vmax=max(1, counts.max()))
    ticks = MaxNLocator(integer=True)
    ax.figure.colorbar(image, ax=ax, label="objects", fraction=0.05, pad=0.02, ticks=ticks)
    ax.set(title="Where the centres of the objects are", xlabel="% of the image's width", ylabel="% of its height")


def _use_log_axis(ax: Axes, low: float, high: float) -> None:
    """Give the x axis powers of two, as few as there is room for, in plain numbers."""
    powers = range(math.ceil(math.log2(low)), math.floor(math.log2(high)) + 1)
    shown = [power for power in powers if power % (1 + len(powers) // 12) == 0]
    ax.set_xscale("log", base=2)
    ax.set_xlim(low, high)
    ax.set_xticks([2.0**power for power in shown], [f"{2**k}" if k >= 0 else f"1/{2**-k}" for k in shown])
    ax.minorticks_off()


def _draw_crops(figure: Figure, found: Stats, objects: Objects) -> None:
    """Draw a row of objects of median size, pixel by pixel as they are after resizing."""
    from matplotlib.patches import Rectangle

    classes = [(name, i) for name, (i, *others) in found.total.shown_classes() if not others]
    num_each = max(1, NUM_CROPS // max(sum(found.total.classes[i].objects > 0 for _, i in classes), 1))
    crops = [(name, pick) for name, i in classes for pick in _choose_median_objects(objects, i, num_each)]
    head = "What the model sees: objects of median size, pixel by pixel" if crops else "No objects"
    figure.text(0.03, 0.24, head, size=13, weight="bold")
    if crops:
        text = f"pieces of images resized to {found.imgsz} px; 4x: a pixel is drawn as 4 by 4; framed: the label's box"
        figure.text(0.97, 0.24, text, color=GREY, ha="right")
    room = 0.948 / max(NUM_CROPS, len(crops))  # of a crop, as a share of the figure
    tile = int((room - 0.008) * WIDTH)
    for i, (name, pick) in enumerate(crops):
        w, h = objects.box[pick, 2:] * found.imgsz / objects.longest[pick]
        needed = max(16, 1.15 * w, 1.15 * h)
        zoom = int(tile / needed) or tile / needed  # whole, so that all pixels are drawn equally large
        window = int(tile / zoom)
        left, width = 0.03 + i * room, window * zoom / WIDTH
        figure.text(left, 0.212, _escape(shorten(name, max(8, tile // 10))), weight="bold")
        ax = figure.add_axes((left, 0.203 - width * 1.6, width, width * 1.6), xticks=[], yticks=[])
        crop, (x, y) = _crop_around(objects, pick, found.imgsz, window)
        ax.imshow(crop, interpolation="nearest" if zoom >= 1 else "antialiased")
        frame = (x - w / 2 - 1, y - h / 2 - 1), w + 1, h + 1  # around the box, so that all its pixels are seen
        ax.add_patch(Rectangle(*frame, fill=False, edgecolor=AT_IMGSZ, linewidth=1))
        ax.set_xlabel(f"{w:.0f} x {h:.0f} px\n{zoom:.2g}x", labelpad=3)


def _choose_median_objects(objects: Objects, cls: int, number: int) -> list[int]:
    """Return indices of objects of a class whose size is nearest to its median, from different images where it can."""
    mine = np.flatnonzero((objects.cls == cls) & (objects.box[:, 2:] > 0).all(1))
    if not len(mine):
        return []
    side = np.sqrt(objects.box[mine, 2:].prod(1)) / objects.longest[mine]
    mine = mine[np.argsort(abs(side - np.median(side)), kind="stable")]
    _, firsts = np.unique(objects.image[mine], return_index=True)
    others = np.setdiff1d(np.arange(len(mine)), firsts)
    chosen: list[int] = mine[np.concatenate([np.sort(firsts), others])][:number].tolist()
    return chosen


def _crop_around(objects: Objects, pick: int, imgsz: int, window: int) -> tuple[np.ndarray, np.ndarray]:
    """Return a square (window, window, 3) RGB of a resized image around an object, and the object's centre in it."""
    image = read_pixels(objects.files[objects.image[pick]])
    if image is None:  # the header could be read, but not the rest
        return np.full((window, window, 3), 114, np.uint8), np.full(2, window / 2)
    height, width = image.shape[:2]
    ratio = imgsz / max(height, width)
    size = min(math.ceil(width * ratio), imgsz), min(math.ceil(height * ratio), imgsz)
    image = cv2.resize(image, size, interpolation=cv2.INTER_LINEAR) if ratio != 1 else image
    image = np.pad(image, ((window, window), (window, window), (0, 0)), constant_values=114)  # as letterboxing does
    centre = objects.box[pick, :2] * size
    x, y = np.round(centre - window / 2).astype(int)
    return image[y + window : y + 2 * window, x + window : x + 2 * window, ::-1], centre - (x, y)
