"""Compares models at equal time per image, each at several input sizes: python -m benchmarks.pareto --help.

Trains every model at every size with `benchmarks.compare` (`--preset q` or `c`), measures the latency of all of them,
interleaved in one run like `benchmarks.speed`, and compares each model of this fork with the stock front: the best
stock score at any input size that takes no more time per image.

`--out` gets a folder for each size with `results.csv` (the same command resumes after an interruption), `pareto.csv`
(one row per model, size and runtime), `pareto.md` with the tables, and `pareto.png`. `--only-report` trains nothing and
measures the speed of the models in the folders.
"""

import argparse
import json
import os
import statistics
import sys
from collections import defaultdict
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch
from matplotlib.figure import Figure
from ultralytics.nn.tasks import DetectionModel
from ultralytics.utils import DEFAULT_CFG_DICT, LOGGER, YAML

from benchmarks import common, compare, speed
from benchmarks.report import Entry, read_rows
from small_object.errors import UserError
from small_object.files import replacing, write_file

SCORES = {"AP_small": "AP_small", "AP": "AP", "AP50": "AP50"}
COLUMNS = [
    "model", "yaml", "imgsz", "runtime", "ms", "stock", "parameters", "GFLOPs", "seeds",
    *(f"{score}{suffix}" for score in SCORES for suffix in ("", "_sd", "_ratio")), "threads", "machine", "commit",
]  # fmt: skip


@dataclass(frozen=True)
class Point:
    """A model at an input size, with its scores over the seeds and its median latency in one runtime.

    Attributes:
        entry: Its runs.
        imgsz: Side of the input in pixels.
        runtime: Where the latency was measured, such as `PyTorch CPU`.
        ms: Milliseconds of a forward pass on one image.
    """

    entry: Entry
    imgsz: int
    runtime: str
    ms: float


def front(points: Sequence[Point], score: str) -> list[Point]:
    """Return the points whose score no other point beats without taking more time, the fastest first."""
    best: list[Point] = []
    for point in sorted(points, key=lambda point: (point.ms, -point.entry.mean(score))):
        if not best or point.entry.mean(score) > best[-1].entry.mean(score):
            best.append(point)
    return best


def ratio_to_front(point: Point, stock: Sequence[Point], score: str) -> float:
    """Return a score divided by the best stock score that takes no more time; NaN if there is none."""
    reached = [other.entry.mean(score) for other in stock if other.ms <= point.ms]
    return point.entry.mean(score) / max(reached) if reached and max(reached) > 0 else float("nan")


def read_entries(folders: Sequence[Path], **wanted: str | None) -> dict[tuple[str, int], Entry]:
    """Return the runs on whole images in result folders by model and input size.

    With `data` or `epochs`, only those on this data set or of this length.

    Raises:
        UserError: If there are none, or they differ in data set or number of epochs.
    """
    rows = [row for folder in folders for row in read_rows(folder / "results.csv")]
    rows = [row for row in rows if all(value in (None, row[column]) for column, value in wanted.items())]
    rows = [row for row in rows if "slice" not in json.loads(row["overrides"])]  # several passes per image
    if not rows:
        raise UserError(f"no such results in {', '.join(map(str, folders))}")
    for column in ("data", "epochs"):
        if len(values := {row[column] for row in rows}) > 1:
            raise UserError(f"the results differ in {column} ({', '.join(sorted(values))}): give each its own --out")
    groups: dict[tuple[str, int], list[dict[str, str]]] = defaultdict(list)
    for row in rows:
        groups[row["model"], int(row["imgsz"])].append(row)
    return {key: Entry(group) for key, group in groups.items()}


def measure(
    entries: dict[tuple[str, int], Entry], args: argparse.Namespace, devices: list[torch.device]
) -> list[Point]:
    """Measure the latency of every model at its size, all interleaved; return a point for each runtime.

    The models have as many classes as in training.
    """
    contenders, keys = [], {}
    row = next(iter(entries.values())).rows[0]
    is_one = json.loads(row["settings"] or "{}").get("single_cls")
    num_classes = 1 if is_one else len(YAML.load(common.ROOT / row["data"])["names"])
    for (label, imgsz), entry in entries.items():
        path = entry.yaml if Path(entry.yaml).name == entry.yaml else str(common.ROOT / entry.yaml)
        name = f"{label} {imgsz}"
        model = compare.Model(name, path, {})
        try:
            is_old = any(row["version"] != model.version for row in entry.rows)
        except FileNotFoundError:
            is_old = True
        if is_old:
            LOGGER.warning(f"{name} px is left out: {entry.yaml} has changed or gone since its training")
            continue
        network = DetectionModel(path, nc=num_classes, verbose=False)
        network.args, network.task = dict(DEFAULT_CFG_DICT), "detect"  # which `YOLO` sets
        contender = speed.Contender(model, network, 0.0)
        speed.add_forward_passes(contender, imgsz, devices, args.threads)
        contenders.append(contender)
        keys[name] = entry, imgsz
    torch.set_num_threads(args.threads)
    calls = {contender.model.label: contender.calls for contender in contenders}
    times = speed.measure(calls, range(speed.WARM_UP + args.rounds), speed.WARM_UP)
    return [Point(*keys[name], what, statistics.median(values)) for (name, what), values in times.items()]


def build_rows(points: Sequence[Point]) -> list[dict[str, Any]]:
    """Return the rows of `pareto.csv`, sorted by runtime and time."""
    rows = []
    for point in sorted(points, key=lambda point: (point.runtime, point.ms)):
        stock = [other for other in points if other.runtime == point.runtime and other.entry.stock]
        entry = point.entry
        scores = {score: (entry.mean(score), entry.deviation(score)) for score in SCORES}
        rows.append(
            {
                "model": entry.label, "yaml": entry.yaml, "imgsz": point.imgsz, "runtime": point.runtime,
                "ms": round(point.ms, 3), "stock": "yes" if entry.stock else "no",
                "parameters": entry.rows[0]["parameters"], "GFLOPs": entry.rows[0]["GFLOPs"], "seeds": len(entry.rows),
                **{score: round(mean, 5) for score, (mean, _) in scores.items()},
                **{f"{score}_sd": round(deviation, 5) for score, (_, deviation) in scores.items()},
                **{f"{score}_ratio": round(ratio_to_front(point, stock, score), 3) for score in SCORES},
            }
        )  # fmt: skip
    return rows


def build_report(rows: Sequence[dict[str, Any]], head: str) -> str:
    """Return `pareto.md`: a table for each runtime."""
    text = (
        f"# Accuracy at equal time\n\n{head}\n\nScores in percent, mean ± standard deviation over the seeds. Ratio: "
        "score divided by the best stock score that takes no more time per image; stock models on the front have 1. "
        "Latency: a forward pass on one image, decoded boxes without NMS, median.\n\n![The front](pareto.png)\n"
    )
    for runtime in dict.fromkeys(row["runtime"] for row in rows):
        header = ["model", "input, px", "ms", "seeds", "M parameters"]
        header += [text for title in SCORES.values() for text in (title, "ratio")]
        lines = []
        for row in (row for row in rows if row["runtime"] == runtime):
            name = row["model"] if row["stock"] == "yes" else f"**{row['model']}**"
            parameters = f"{float(row['parameters']) / 1e6:.2f}"
            cells = [name, str(row["imgsz"]), f"{row['ms']:.1f}", str(row["seeds"]), parameters]
            for score in SCORES:
                spread = f" ± {100 * row[f'{score}_sd']:.1f}" if row["seeds"] > 1 else ""
                cells += [f"{100 * row[score]:.1f}{spread}", f"{row[f'{score}_ratio']:.2f}"]
            lines.append(cells)
        text += f"\n## {runtime}\n\n" + "\n".join(common.markdown_table(header, lines)) + "\n"
    return text


def draw(points: Sequence[Point], file: Path) -> None:
    """Draw AP_small and AP against time for each runtime, with the stock front as a line."""
    runtimes, scores = sorted({point.runtime for point in points}), ("AP_small", "AP")
    figure = Figure(figsize=(6.5 * len(scores), 4.5 * len(runtimes)), layout="constrained")
    axes = figure.subplots(len(runtimes), len(scores), squeeze=False)
    for runtime, row in zip(runtimes, axes, strict=True):
        here = [point for point in points if point.runtime == runtime]
        for score, ax in zip(scores, row, strict=True):
            for point in here:
                color, mean = "#888888" if point.entry.stock else "#d1495b", 100 * point.entry.mean(score)
                spread = 100 * point.entry.deviation(score)
                ax.errorbar(point.ms, mean, spread if spread > 0 else 0, fmt="o", color=color, capsize=2)
                ax.annotate(f"{point.entry.label.removeprefix('stock ')} {point.imgsz}", (point.ms, mean), fontsize=7,
                            xytext=(4, 3), textcoords="offset points")  # fmt: skip
            stock = front([point for point in here if point.entry.stock], score)
            ends = [point.ms for point in stock] + [max(point.ms for point in here)]
            values = [100 * point.entry.mean(score) for point in stock]
            ax.step(ends, [*values, values[-1]] if values else [], where="post", color="#888888", label="stock front")
            ax.set(title=f"{score}, {runtime}", xlabel="ms per image", ylabel=f"{score}, %", xscale="log")
            for set_formatter in (ax.xaxis.set_major_formatter, ax.xaxis.set_minor_formatter):
                set_formatter("{x:g}")
            low, high = min(point.ms for point in here), max(point.ms for point in here)
            ax.set_xlim(low / 1.15, high * max(1.5, (high / low) ** 0.5))  # with space for the last points' labels
            ax.grid(alpha=0.3)
            ax.legend(loc="lower right", fontsize=8)
    with replacing(file) as new:
        figure.savefig(new, dpi=150)


def run(args: argparse.Namespace) -> None:
    """Train the missing runs, measure and write the results."""
    made_by = common.commit()
    folders = [args.out / str(size) for size in args.sizes]
    if not args.only_report:
        for size, folder in zip(args.sizes, folders, strict=True):
            options = ["--preset", args.preset, "--imgsz", str(size), "--out", str(folder), "--jobs", str(args.jobs)]
            options += ["--device", args.device] if args.device else []
            options += ["--data", args.data] if args.data else []
            seeds = map(str, args.seeds)
            if compare.main([*options, "--seeds", *seeds, "--models", *args.models, *args.ours]):
                raise UserError(f"some runs at {size} px did not finish; the same command resumes")
    elif missing := [str(folder) for folder in args.results or [args.out] if not folder.is_dir()]:
        raise UserError(f"no such folder: {', '.join(missing)}")
    else:
        folders = sorted({file.parent for file in args.out.rglob("results.csv")} | {*args.results})
    entries = read_entries(folders, **({"data": args.data, "epochs": args.epochs} if args.only_report else {}))
    gpu = args.device or ("0" if torch.cuda.is_available() else "cpu")
    devices = [torch.device("cpu"), *([torch.device("cuda", int(gpu))] if gpu != "cpu" else [])]
    points = measure(entries, args, devices)
    machine = common.describe_machine(devices[-1])
    rows = [row | {"threads": args.threads, "machine": machine, "commit": made_by} for row in build_rows(points)]
    first = next(iter(entries.values())).rows[0]
    head = (
        f"`{args.command}`\n\n{first['data']}, {first['epochs']} epochs. Latency: {args.rounds} rounds, interleaved, "
        f"CPU threads: {args.threads}; {machine}; load {os.getloadavg()[0]:.1f}; torch {torch.__version__}, {made_by}."
    )
    args.out.mkdir(parents=True, exist_ok=True)
    draw(points, args.out / "pareto.png")
    common.write_csv(args.out / "pareto.csv", COLUMNS, rows)
    text = build_report(rows, head)
    write_file(args.out / "pareto.md", text)
    LOGGER.info(f"{text}\npareto.csv, pareto.md and pareto.png are in {args.out}")


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = common.build_parser(__doc__)
    add = parser.add_argument
    add("--preset", choices=("q", "c"), default="q", help="training protocol, see benchmarks.compare")
    add("--data", metavar="YAML", help="data YAML (default: hit-uav; with --only-report: every row counts)")
    add("--epochs", metavar="N", help="with --only-report: rows of trainings of N epochs only")
    add("--models", nargs="+", default=[*common.STOCK, "yolo11s.yaml"], metavar="MODEL", help="stock models")
    add("--ours", nargs="+", default=common.OURS[:1], metavar="MODEL", help="models of this fork")
    add("--sizes", nargs="+", type=int, default=[320, 448, 640], metavar="PIXELS", help="default: 320 448 640")
    add("--seeds", nargs="+", type=int, default=[0, 1, 2], metavar="SEED", help="default: 0 1 2")
    add("--jobs", type=int, default=2, help="parallel runs, default 2")
    add("--device", help="cpu or the number of a GPU; default: a GPU if there is one")
    add("--rounds", type=int, default=15, help="rounds of the latency measurement, default 15")
    add("--threads", type=int, default=1, help="CPU threads of the latency measurement, default 1")
    add("--only-report", action="store_true", help="train nothing; read every results.csv under --out and --results")
    add("--results", nargs="+", type=Path, default=[], metavar="DIR", help="further results for --only-report")
    add("--out", type=Path, default=Path("runs/pareto"), metavar="DIR", help="default: runs/pareto")
    return common.execute("benchmarks.pareto", parser.parse_args, run, argv, "; the same command resumes")


if __name__ == "__main__":
    sys.exit(main())
