"""Draws accuracy by object size, and keeps its columns out of `results.png`, which would be too wide to read."""

from __future__ import annotations

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ultralytics.utils.plotting import plot_results as stock_plot_results

from small_object.sizes import SIZE_KEYS


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
        stock_plot_results("", temporary)
        picture = folder / "results.png"
        shutil.copyfile(Path(temporary, picture.name), picture)
    if on_plot:
        on_plot(picture)
