"""Keeps the columns of accuracy by object size out of `results.png`, which they would make too wide to read."""

import shutil
from collections.abc import Callable
from pathlib import Path
from tempfile import TemporaryDirectory
from typing import Any

from ultralytics.utils.plotting import plot_results as stock_plot_results

from small_object.sizes import drop_size_columns


def plot_results(file: str | Path = "", dir: str | Path = "", on_plot: Callable[[Path], Any] | None = None) -> None:
    """Draw the losses and upstream's results of a training in `results.png`; see upstream's `plot_results`.

    Args:
        file: The `results.csv`; all `results*.csv` of its folder are drawn.
        dir: Their folder, if `file` is not given.
        on_plot: Called with the picture's path at the end.
    """
    folder = Path(file).parent if file else Path(dir)
    tables = {path.name: path.read_text(encoding="utf-8") for path in folder.glob("results*.csv")}
    narrow = {name: drop_size_columns(text) for name, text in tables.items()}
    if narrow == tables:
        stock_plot_results(file, dir, on_plot)
        return
    with TemporaryDirectory() as temporary:
        for name, text in narrow.items():
            Path(temporary, name).write_text(text, encoding="utf-8")
        stock_plot_results("", temporary)
        picture = folder / "results.png"
        shutil.copyfile(Path(temporary, picture.name), picture)
    if on_plot:
        on_plot(picture)
