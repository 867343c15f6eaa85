"""Draws accuracy by object size."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics.utils import plt_settings

from small_object.sizes import SIZE_GROUPS, SizeMetrics, area_limits


@plt_settings()
def plot_size_metrics(size: SizeMetrics, path: Path, on_plot: Callable[[Path], Any] | None = None) -> None:
    """Draw AP50 and recall of all classes by size group.

    Args:
        size: What to draw.
        path: Picture to write.
        on_plot: Called with `path` at the end.
    """
    import matplotlib.pyplot as plt  # slow to import

    figure, ax = plt.subplots(figsize=(9, 5), tight_layout=True)
    at = np.arange(len(SIZE_GROUPS))
    for shift, scores, label, colour in (
        (-0.2, size.ap50, "AP50 (average precision at IoU 0.50)", "#0b6fb8"),
        (0.2, size.ar, "AR (recall, mean over IoU 0.50 to 0.95)", "#f0a030"),
    ):
        heights = [scores[name] for name in SIZE_GROUPS]
        bars = ax.bar(at + shift, np.nan_to_num(heights), 0.38, label=label, color=colour)
        ax.bar_label(bars, ["" if np.isnan(height) else f"{height:.3f}" for height in heights], padding=2)
    ticks = []
    for x, name in enumerate(SIZE_GROUPS):
        ticks.append(f"{name}\n{area_limits(name, '²').replace('>=', '≥')} px\nn = {size.counts[name]:,}")
        if not size.counts[name]:
            ax.text(x, 0.02, "no objects", ha="center", color="gray")
    ax.set_xticks(at, ticks)
    ax.set(ylim=(0, 1.25), yticks=np.linspace(0, 1, 6))  # the legend stands above the bars
    ax.set_xlabel("box area in the original image, and number of objects")
    ax.set_title("Accuracy by object size, all classes")
    ax.grid(axis="y", alpha=0.3)
    ax.set_axisbelow(True)
    ax.legend(loc="upper center", ncols=2, frameon=False)
    figure.savefig(path, dpi=200)
    plt.close(figure)
    if on_plot:
        on_plot(path)
