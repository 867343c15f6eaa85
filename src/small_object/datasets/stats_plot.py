"""Draws how small the objects of a data set are, on one picture."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from small_object.datasets.counts import STRIDE, Stats, shorten
from small_object.sizes import SIZE_GROUPS

if TYPE_CHECKING:
    from matplotlib.axes import Axes

ORIGINAL, AT_IMGSZ = "#33597f", "#e0813a"
SPLIT_COLOURS = {"train": "#3f7f75", "val": "#8fc1b5", "test": "#c9cf9a"}


def draw_stats(found: Stats, file: Path) -> None:
    """Draw `stats.png`: objects by class and split, and by size before and after resizing.

    Args:
        found: The numbers.
        file: Where to save the picture.
    """
    from matplotlib.figure import Figure  # here, as it is slow to import

    figure = Figure(figsize=(14, 6), dpi=100, layout="constrained")
    title = f"{found.title()}; at imgsz {found.imgsz} {found.total.thin:.1%} are thinner than {STRIDE} px"
    figure.suptitle(title, size=14, weight="bold", parse_math=False)
    axes = figure.subplots(1, 2)
    for ax in axes:
        ax.spines[["top", "right"]].set_visible(False)
    _draw_classes(axes[0], found)
    _draw_sizes(axes[1], found)
    figure.savefig(file, format="png")


def _draw_classes(ax: Axes, found: Stats) -> None:
    """Draw bars of the objects by class, one colour per split."""
    shown, total = found.total.shown_classes(), found.total
    rows, left = np.arange(len(shown)), np.zeros(len(shown))
    for split, part in found.splits.items():
        counts = [part.classes[i].objects for i in shown]
        bars = ax.barh(rows, counts, 0.75, left, color=SPLIT_COLOURS[split], label=f"{split} ({part.objects:,})")
        left += counts
    texts = [f"{n:,.0f} ({n / max(total.objects, 1):.1%})" for n in left]
    ax.bar_label(bars, texts, padding=4)
    ax.set(title="Objects by class and split", xlim=(0, max(1, left.max() * 1.35)))
    ax.set_ylim(max(len(shown), 2) - 0.4, -0.6)  # the first class is on top
    ax.set_yticks(rows, [shorten(total.classes[i].name, 14) for i in shown], parse_math=False)
    ax.legend(loc="upper center", bbox_to_anchor=(0.5, -0.08), ncols=3, frameon=False)


def _draw_sizes(ax: Axes, found: Stats) -> None:
    """Draw bars of the objects by size group, before and after resizing."""
    total, columns = found.total, np.arange(len(SIZE_GROUPS))
    for shift, colour, label, sizes in (
        (-0.21, ORIGINAL, "original pixels", total.sizes),
        (0.21, AT_IMGSZ, f"at imgsz {found.imgsz}", total.sizes_at_imgsz),
    ):
        bars = ax.bar(columns + shift, list(sizes.values()), 0.4, color=colour, label=label)
        ax.bar_label(bars, [f"{n / max(total.objects, 1):.0%}" for n in sizes.values()], padding=2)
    limits = ("< 8²", "8² to 16²", "16² to 32²", "32² to 96²", "≥ 96² px")
    ax.set_xticks(columns, [f"{name}\n{limit}" for name, limit in zip(SIZE_GROUPS, limits, strict=True)])
    ax.set(title="Objects by size (box area)", ylabel="objects")
    ax.margins(y=0.2)  # room for the legend
    ax.legend(loc="upper center", ncols=2, frameon=False)
