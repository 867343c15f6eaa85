"""Draws accuracy by object size, and keeps its columns out of `results.png`, which would be too wide to read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

import numpy as np
from ultralytics.utils import plt_settings
from ultralytics.utils.plotting import plot_results as stock_plot_results
from ultralytics.utils.size_groups import SIZE_GROUPS
from ultralytics.utils.size_metrics import SIZE_KEYS, SizeMetrics, area_limits
from ultralytics_overlay import require_parameters

# Upstream's decorator hides the signature; what it decorates lies in its closure.
_inside = [cell.cell_contents for cell in getattr(stock_plot_results, "__closure__", None) or ()]
_drawing = next((f for f in _inside if getattr(f, "__name__", "") == "plot_results"), stock_plot_results)
require_parameters(_drawing, "file", "dir", "on_plot")


def plot_results(file: str | Path = "", dir: str | Path = "", on_plot: Callable[[Path], Any] | None = None) -> None:
    """Draw the losses and upstream's results of a training in `results.png`; see upstream's `plot_results`.

    Args:
        file: The `results.csv`; all `results*.csv` of its folder are drawn.
        dir: Their folder, where `file` is not given.
        on_plot: Called with the picture's path at the end.
    """
    folder = Path(file).parent if file else Path(dir)
    tables = {path.name: path.read_text(encoding="utf-8").splitlines() for path in folder.glob("results*.csv")}
    left_out = set(SIZE_KEYS.values())
    if not any(lines and left_out & set(lines[0].split(",")) for lines in tables.values()):
        stock_plot_results(file, dir, on_plot)
        return
    with TemporaryDirectory() as temporary:
        for name, lines in tables.items():
            rows = [line.split(",") for line in lines]
            kept = [i for i, column in enumerate(rows[0]) if column not in left_out] if rows else []
            text = "\n".join(",".join(row[i] for i in kept if i < len(row)) for row in rows)
            Path(temporary, name).write_text(text, encoding="utf-8")
        stock_plot_results("", temporary)  # older versions have a default for `file`, which is missing
        picture = folder / "results.png"
        shutil.copyfile(Path(temporary, picture.name), picture)
    if on_plot:
        on_plot(picture)


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
