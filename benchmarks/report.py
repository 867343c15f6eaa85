"""Keeps the results of comparisons in CSV files and writes their report: tables and plots."""

import csv
import json
import re
import statistics
from math import isnan, nan
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.figure import Figure

from benchmarks.common import markdown_table, write_csv
from small_object.errors import UserError
from small_object.files import replacing, write_file
from small_object.sizes import SIZE_GROUPS

GROUP_COLUMNS = [f"{what} {group}" for group in SIZE_GROUPS for what in ("AP", "AP50", "AR", "objects")]
COLUMNS = [
    "key", "model", "yaml", "version", "overrides", "data", "seed", "epochs", "imgsz", "batch", "settings", "commit",
    "machine", "threads", "torch", "ultralytics", "AP", "AP50", "AP_small", "AP_small by object", "AR_small",
    "AP_last", "AP50_last", *GROUP_COLUMNS, "parameters", "GFLOPs", "strides", "stock", "nwd", "nwd_assign", "train_s",
    "inference_ms", "postprocess_ms", "finished", "command",
]  # fmt: skip
CURVE_COLUMNS = ["key", "model", "data", "seed", "epoch", "seconds", "AP50", "AP", "AP_small"]
PROGRESS = [(score, share) for score in ("AP", "AP_small") for share in (0.1, 0.2, 0.5, 1)]  # of the epochs
AP_BY_SIZE = [f"AP {group}" for group in SIZE_GROUPS]
SCORES = ["AP", "AP50", "AP_small", "AP_small by object", "AR_small", *AP_BY_SIZE, "AP50_last"]
TITLES = {f"AP {group}": f"AP {low**0.5:g}²-{high**0.5:g}²" for group, (low, high) in SIZE_GROUPS.items()}
TITLES = {column: title.replace(" 0²-", " <").replace("-inf²", "+") for column, title in TITLES.items()}
TITLES |= {"AP50_last": "AP50 last", "parameters": "M parameters", "train_s": "training s"}
TITLES |= {"inference_ms": "inference ms"}
COSTS = {"parameters": (1e-6, 2), "GFLOPs": (1, 2), "train_s": (1, 1), "inference_ms": (1, 1)}  # factor, decimals
RATIOS = ("AP", "AP50", "AP_small", "GFLOPs", "train_s")
ABOUT = """\
Scores are in percent, for the weights with the best AP during training (AP50 last: for the last weights). AP is the
mean over IoU 0.50:0.95; AP_small and AR_small are for COCO's small objects, below 32² px, and "by object" weights each
class by its number of objects; then AP by size, in pixels.
± gives the standard deviation over the seeds (n - 1). The best of each column is bold. Training time excludes
validation, inference time excludes NMS; both are of the fastest seed, since other load only adds to them.
"""

Row = dict[str, str]


def read_rows(file: Path) -> list[Row]:
    """Return the rows of a CSV file; none if there is no file."""
    if not file.is_file():
        return []
    with file.open(encoding="utf-8", newline="") as lines:
        return list(csv.DictReader(lines))


def add_rows(file: Path, columns: list[str], key: str, rows: list[dict[str, Any]]) -> None:
    """Write rows to a CSV file in one step, replacing those with the same key."""
    kept = [row for row in read_rows(file) if row["key"] != key]
    write_csv(file, columns, [*kept, *rows])


class Entry:
    """A model's runs on one data set with one setting, which differ only in the seed.

    Args:
        rows: Their rows of `results.csv`.
    """

    def __init__(self, rows: list[Row]) -> None:
        self.rows, self.label, self.yaml = rows, rows[0]["model"], rows[0]["yaml"]
        self.own = rows[0]["overrides"] != "{}"
        self.stock = rows[0]["stock"] == "yes"
        self.p2 = self.stock and rows[0]["strides"].split()[:1] == ["4"]

    def mean(self, column: str) -> float:
        """Return the mean of a column over the seeds, or the smallest of a time; NaN if a value is missing."""
        values = self._values(column)
        return float(np.min(values)) if column in {"train_s", "inference_ms"} else statistics.fmean(values)

    def deviation(self, column: str) -> float:
        """Return the standard deviation of a column over the seeds; NaN for a single one."""
        return float(np.std(self._values(column), ddof=1)) if len(self.rows) > 1 else nan

    def _values(self, column: str) -> list[float]:
        return [float(row.get(column) or nan) for row in self.rows]


def write_report(folder: Path) -> None:
    """Write `report.md` and its pictures next to the `results.csv` and `curves.csv` of a folder.

    Raises:
        UserError: If there are no results.
    """
    rows = read_rows(folder / "results.csv")
    if not rows:
        raise UserError(f"{folder}/results.csv: has no results; run benchmarks.compare with --out {folder} first")
    curves = read_rows(folder / "curves.csv")
    text = f"# Comparison of models\n\n{ABOUT}"
    settings: dict[tuple[str, ...], list[Row]] = {}
    for row in rows:
        settings.setdefault(tuple(row[k] for k in ("data", "epochs", "imgsz", "batch", "settings")), []).append(row)
    for number, (setting, members) in enumerate(settings.items(), 1):
        models: dict[str, list[Row]] = {}
        newest = {row["model"]: row["version"] for row in members}  # a YAML may have changed since
        for row in members:
            if row["version"] == newest[row["model"]]:
                models.setdefault(row["model"], []).append(row)
        entries = sorted(map(Entry, models.values()), key=lambda entry: -entry.mean("AP"))
        name = re.sub(r"[^\w-]+", "_", f"{number}-{Path(setting[0]).stem}-{setting[1]}x{setting[2]}")
        drawn = [_draw_curves(entries, curves, folder / f"{name}-AP50-over-time.png")]
        drawn.append(_draw_costs(entries, folder / f"{name}-AP-against-GFLOPs.png"))
        text += _section(setting, entries) + _progress(entries, curves)
        text += "".join(f"\n![{picture.stem}]({picture.name})\n" for picture in drawn)
    commands = "\n".join(dict.fromkeys(row["command"] for row in rows))
    write_file(folder / "report.md", f"{text}\n## Made by\n\n```\n{commands}\n```\n")


def _section(setting: tuple[str, ...], entries: list[Entry]) -> str:
    """Return the text and the tables of one data set and setting."""
    data, epochs, imgsz, batch, common = setting
    rows = [row for entry in entries for row in entry.rows]
    counts = sorted({len(entry.rows) for entry in entries})
    objects = {group: rows[0][f"objects {group}"] for group in SIZE_GROUPS}
    counted = ", ".join(f"{count} {group}" for group, count in objects.items() if count not in "0")
    text = f"\n## {Path(data).stem}: {epochs} epochs at {imgsz} px, batch {batch}\n\n"
    text += f"`{data}`; validation objects: {counted or 'not counted by size'}. "
    text += f"Seeds of each model: {' to '.join(map(str, counts[:: len(counts) - 1 or 1]))} "
    text += f"({', '.join(_distinct(rows, 'seed'))}). Training arguments of all: "
    text += f"`{' '.join(f'{k}={v}' for k, v in json.loads(common).items())}`.\n"
    text += f"Commit {', '.join(_distinct(rows, 'commit'))}, torch {', '.join(_distinct(rows, 'torch'))}, Ultralytics "
    machines = dict.fromkeys(f"{row['machine']}, threads of a run: {row['threads']}" for row in rows)
    text += f"{', '.join(_distinct(rows, 'ultralytics'))} on: {'; '.join(machines)}."
    text += " **Times of different machines can't be compared.**" if len(machines) > 1 else ""
    scores = [column for column in SCORES if any(not isnan(entry.mean(column)) for entry in entries)]
    best = {column: _best(entries, column, max) for column in scores}
    cells = [[str(len(entry.rows)), *(_score(entry, c, best[c]) for c in scores)] for entry in entries]
    header = ["model", "seeds", *(TITLES.get(column, column) for column in scores)]
    labelled = [[entry.label, *line] for entry, line in zip(entries, cells, strict=True)]
    text += "\n\n" + "\n".join(markdown_table(header, labelled)) + "\n"
    references = {
        "stock yolo11n": next((e for e in entries if e.yaml == "yolo11n.yaml" and e.stock and not e.own), None),
        "the best stock P2 model": max((e for e in entries if e.p2), key=lambda e: e.mean("AP"), default=None),
    }
    header = ["model", *(TITLES.get(column, column) for column in COSTS)]
    lines = [[entry.label, *(_cost(entry, c, _best(entries, c, min)) for c in COSTS)] for entry in entries]
    for which, (name, reference) in enumerate(references.items()):
        if reference is None:
            text += f"\nNo ratios to {name}, which is not among the models.\n"
            continue
        text += f"\nRatios {'¹²'[which]} are to {name}" + (f" by AP, {reference.label}.\n" if which else ".\n")
        header += [f"{TITLES.get(column, column).split(',')[0]} {'¹²'[which]}" for column in RATIOS]
        for entry, line in zip(entries, lines, strict=True):
            line += [_ratio(entry.mean(column), reference.mean(column)) for column in RATIOS]
    return text + "\n" + "\n".join(markdown_table(header, lines)) + "\n"


def _progress(entries: list[Entry], curves: list[Row]) -> str:
    """Return the table of the scores after shares of the epochs; empty if nothing was validated then."""
    points = {(row["key"], int(row["epoch"])): row for row in curves}
    columns = [["model", *(entry.label for entry in entries)]]
    for score, share in PROGRESS:
        column = [f"{score} at {share:.0%}"]
        for entry in entries:
            then = [points.get((row["key"], round(share * int(row["epochs"]))), {}) for row in entry.rows]
            column.append(_score(Entry([entry.rows[0] | {score: row.get(score, "")} for row in then]), score, nan))
        if any(cell != "-" for cell in column[1:]):
            columns.append(column)
    header, *lines = map(list, zip(*columns, strict=True))
    return "\nAfter shares of the epochs:\n\n" + "\n".join(markdown_table(header, lines)) + "\n" if columns[1:] else ""


def _distinct(rows: list[Row], column: str) -> list[str]:
    return list(dict.fromkeys(row[column] for row in rows))


def _best(entries: list[Entry], column: str, choose: Any) -> float:
    return choose((value for entry in entries if (value := entry.mean(column)) > 0), default=nan)


def _score(entry: Entry, column: str, best: float) -> str:
    mean, deviation = entry.mean(column), entry.deviation(column)
    if isnan(mean):
        return "-"
    text = f"**{100 * mean:.2f}**" if mean == best else f"{100 * mean:.2f}"
    return text if isnan(deviation) else f"{text} ± {100 * deviation:.2f}"


def _cost(entry: Entry, column: str, best: float) -> str:
    factor, decimals = COSTS[column]
    text = f"{entry.mean(column) * factor:.{decimals}f}"
    return f"**{text}**" if entry.mean(column) == best else text


def _ratio(value: float, reference: float) -> str:
    return "-" if isnan(value) or not reference > 0 else f"{value / reference:.2f}"


def _styles(entries: list[Entry]) -> dict[str, dict[str, Any]]:
    """Return colour, line and marker by label: a colour per YAML, squares for stock, dashes for variants."""
    yamls = sorted({entry.yaml for entry in entries})
    palette = colormaps["tab10" if len(yamls) <= 10 else "tab20"].colors
    return {
        entry.label: {
            "color": palette[yamls.index(entry.yaml) % len(palette)], "linestyle": "--" if entry.own else "-",
            "marker": "s" if entry.stock else "o", "markerfacecolor": "white" if entry.own else None,
        }
        for entry in entries
    }  # fmt: skip


def _draw_curves(entries: list[Entry], curves: list[Row], picture: Path) -> Path:
    """Draw AP50 over training time: for each model, the mean of its seeds as a line, their range as a band."""
    figure = Figure(figsize=(11, 6), layout="constrained")
    ax = figure.subplots()
    styles = _styles(entries)
    for entry in entries:
        keys = [row["key"] for row in entry.rows]
        points = {(row["key"], int(row["epoch"])): row for row in curves if row["key"] in keys}
        if not points:  # weights that were only validated again
            continue
        epochs = sorted({epoch for _, epoch in points if all((key, epoch) in points for key in keys)})
        seconds, ap50 = (
            np.array([[float(points[k, e][c]) for e in epochs] for k in keys]) for c in ("seconds", "AP50")
        )
        time, style = seconds.mean(0), styles[entry.label]
        ax.plot(time, 100 * ap50.mean(0), label=entry.label, markersize=4, linewidth=1.6, **style)
        ax.fill_between(time, 100 * ap50.min(0), 100 * ap50.max(0), color=style["color"], alpha=0.12, linewidth=0)
    ax.set(title="AP50 over training time: mean of the seeds, in the band of their range")
    ax.set(xlabel="seconds of training, without validation", ylabel="AP50, %", ylim=(0, None), xlim=(0, None))
    ax.grid(alpha=0.3)
    ax.legend(loc="upper left", bbox_to_anchor=(1.01, 1), frameon=False, fontsize=9)
    return _save(figure, picture)


def _draw_costs(entries: list[Entry], picture: Path) -> Path:
    """Draw AP_small, or AP if that was not measured, against GFLOPs, with the labels in a column on the right."""
    score = "AP_small" if not any(isnan(entry.mean("AP_small")) for entry in entries) else "AP"
    figure = Figure(figsize=(11, 6), layout="constrained")
    ax = figure.subplots()
    styles = _styles(entries)
    for entry in entries:
        style = {**styles[entry.label], "linestyle": "none"}
        spread = np.nan_to_num(entry.deviation(score)) * 100
        ax.errorbar(entry.mean("GFLOPs"), 100 * entry.mean(score), spread, markersize=8, capsize=3, **style)
    ax.set(title=f"{score} against GFLOPs: mean and standard deviation of the seeds", xlabel="GFLOPs at the input size")
    ax.set(ylabel=f"{score}, %")
    ax.margins(0.06)
    ax.grid(alpha=0.3)
    low, high = ax.get_ylim()
    ordered = sorted(entries, key=lambda entry: entry.mean(score))
    at = [(100 * entry.mean(score) - low) / (high - low) for entry in ordered]
    for i in range(1, len(at)):
        at[i] = max(at[i], at[i - 1] + 0.048)
    at = [y - max(0.0, at[-1] - 1) for y in at]
    for entry, y in zip(ordered, at, strict=True):
        arrow = {"arrowstyle": "-", "color": styles[entry.label]["color"], "alpha": 0.45, "linewidth": 0.8}
        ax.annotate(entry.label, (entry.mean("GFLOPs"), 100 * entry.mean(score)), (1.02, y), textcoords="axes fraction",
                    va="center", fontsize=9, color=styles[entry.label]["color"], arrowprops=arrow)  # fmt: skip
    return _save(figure, picture)


def _save(figure: Figure, picture: Path) -> Path:
    with replacing(picture) as new:
        figure.savefig(new, dpi=130)
    return picture
