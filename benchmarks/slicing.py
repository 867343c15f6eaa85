"""Compares sliced prediction with SAHI in one run: python -m benchmarks.slicing --help.

| variant           | what is timed, from an image in memory to boxes                                              |
| ----------------- | -------------------------------------------------------------------------------------------- |
| plain             | the whole image alone                                                                        |
| plain, N px       | the same with `imgsz=N`                                                                      |
| this fork         | `slice`: tiles in batches and the whole image, merged                                        |
| this fork, skip X | the same with `slice_skip=X`                                                                 |
| this fork, iou X  | the same with `slice_iou=X`                                                                  |
| SAHI              | `get_sliced_prediction` with the same weights, tiles, overlap, batch, input size, confidence |
| SAHI, defaults    | the same with SAHI's own tiles, batch and merging                                            |

All variants take turns on each image, in an order that rotates. The network alone is also timed, on the inputs that
this fork gives it; the overhead is the additional time of this fork and of SAHI, relative to that. Accuracy is measured
in pixels of the whole images. `DATA.yaml@2` joins validation images of equal size to mosaics of 2x2 at native
resolution, which turns small images into large ones; incomplete mosaics are left out. Peak memory is that of a process
that runs one variant on the largest image. Below a confidence of 0.1, SAHI itself switches to merging by NMS.

Only this benchmark needs SAHI: pip install sahi
"""

import argparse
import math
import re
import statistics
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from importlib.metadata import version
from pathlib import Path
from typing import NamedTuple

import numpy as np
import torch
from matplotlib.figure import Figure
from ultralytics import YOLO
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.ops import xywhn2xyxy
from ultralytics.utils.patches import imread

from benchmarks import common
from small_object.arguments import MAX_OVERLAP, MIN_TILE
from small_object.errors import UserError
from small_object.files import replacing, write_file
from small_object.sizes import COCO_SMALL_NAME, SizeRecords
from small_object.slicing.tiling import tile_grid, tiles_over

MAX_DET = 1000
ALL_SIZES = {"all": (0.0, math.inf)}
Run = Callable[[np.ndarray], np.ndarray]  # an image (H, W, 3), BGR, to rows x1, y1, x2, y2, score, class
COLUMNS = [
    "data", "variant", "AP", "AP50", "AR", "AP_small", "AR_small", "AP_medium", "AP_large", "seconds", "bare seconds",
    "tiles", "skipped", "images", "with objects", "least", "peak MiB",
]  # fmt: skip
SHOWN = "AP", "AP50", "AP_small", "AR_small", "AP_medium", "AP_large"  # scores in the report


@dataclass
class Sample:
    """An image (H, W, 3), BGR, with its objects: xyxy in pixels, shape (N, 4), and classes, shape (N,)."""

    image: np.ndarray
    boxes: np.ndarray
    classes: np.ndarray


class Variant(NamedTuple):
    """A way to predict: its function, this fork's model if it has one, and the tiles run and skipped in each image."""

    run: Run
    model: YOLO | None
    tiles: list[tuple[int, int]]


def load_samples(data: str, mosaic: int, max_samples: int) -> tuple[list[Sample], dict[int, str]]:
    """Return the validation images of a data YAML, as mosaics of `mosaic` x `mosaic` images, and its class names."""
    labels, names = common.read_labels(data)
    sizes: dict[tuple[int, int], list[dict]] = {}
    for label in labels:
        sizes.setdefault(label["shape"] if mosaic > 1 else None, []).append(label)
    groups = [
        group[i : i + mosaic**2] for group in sizes.values() for i in range(0, len(group) - mosaic**2 + 1, mosaic**2)
    ]
    if not groups:
        raise UserError(f"{data}: has too few validation images of one size for mosaics of {mosaic}x{mosaic}")
    return [join([read(label) for label in group], mosaic) for group in groups[:max_samples]], names


def read(label: dict) -> Sample:
    """Read an image with its objects."""
    image = imread(label["im_file"])
    boxes = xywhn2xyxy(label["bboxes"].astype(np.float64), image.shape[1], image.shape[0])
    return Sample(image, boxes, label["cls"][:, 0])


def join(group: list[Sample], side: int) -> Sample:
    """Join `side` x `side` images of equal size into one."""
    height, width = group[0].image.shape[:2]
    rows = [np.concatenate([sample.image for sample in group[i : i + side]], 1) for i in range(0, len(group), side)]
    boxes = [each.boxes + np.tile((i % side * width, i // side * height), 2) for i, each in enumerate(group)]
    return Sample(np.concatenate(rows), np.concatenate(boxes), np.concatenate([sample.classes for sample in group]))


def build_sliced(args: argparse.Namespace, **more: object) -> Variant:
    """Build this fork's prediction, with more arguments."""
    model, tiles = YOLO(args.model), []
    if model.task != "detect":
        raise UserError(f"--model {args.model}: is of the task {model.task}; only detect can be compared")
    options = {"imgsz": args.imgsz, "conf": args.conf, "device": args.device, "max_det": MAX_DET, "verbose": False}
    options |= more

    def run(image: np.ndarray) -> np.ndarray:
        result = model.predict(image, **options)[0]
        tiles.append(result.tiles or (0, 0))
        return result.boxes.data.cpu().numpy()

    return Variant(run, model, tiles)


def build_sahi(args: argparse.Namespace, with_defaults: bool = False) -> Variant:
    """Build SAHI's prediction, with its own merging and, optionally, its own tiles."""
    from sahi import AutoDetectionModel
    from sahi.predict import get_sliced_prediction

    model = AutoDetectionModel.from_pretrained(
        "ultralytics", args.model, confidence_threshold=args.conf, device=args.device, image_size=args.imgsz
    )
    tiles = {"slice_height": args.tile, "slice_width": args.tile, "batch_size": args.batch, "verbose": 0}
    tiles |= {"overlap_height_ratio": args.overlap, "overlap_width_ratio": args.overlap}
    if with_defaults:
        tiles = {"verbose": 0}

    def run(image: np.ndarray) -> np.ndarray:
        found = get_sliced_prediction(np.ascontiguousarray(image[..., ::-1]), model, **tiles).object_prediction_list
        rows = [(*item.bbox.to_xyxy(), item.score.value, item.category.id) for item in found]
        return np.array(rows, np.float64).reshape(-1, 6)

    return Variant(run, None, [])


def time_network(args: argparse.Namespace, model: YOLO, image: np.ndarray) -> float:
    """Return the seconds of the network alone on this fork's inputs: all tiles and the whole image."""
    predictor = model.predictor
    tiles = [image[y1:y2, x1:x2] for x1, y1, x2, y2 in tile_grid(*image.shape[:2], args.tile, args.overlap)]
    batches = [tiles[i : i + args.batch] for i in range(0, len(tiles), args.batch)]
    inputs = [predictor.preprocess(batch) for batch in ([image], *batches)]
    with torch.inference_mode():
        start = time.perf_counter()
        for x in inputs:
            predictor.model(x)
        if x.device.type == "cuda":
            torch.cuda.synchronize()
        return time.perf_counter() - start


def build_variants(args: argparse.Namespace) -> dict[str, Variant]:
    """Build the variants by name."""
    sliced = {"slice": args.tile, "slice_overlap": args.overlap, "slice_batch": args.batch}
    options = {"plain": {}, "this fork": sliced}
    options |= {f"this fork, skip {skip:g}": sliced | {"slice_skip": skip} for skip in args.skip if skip}
    options |= {f"this fork, iou {iou:g}": sliced | {"slice_iou": iou} for iou in args.iou}
    options |= {f"plain, {size} px": {"imgsz": size} for size in args.whole}
    found = {name: build_sliced(args, **more) for name, more in options.items()}
    if not args.no_sahi:
        found |= {"SAHI": build_sahi(args), "SAHI, defaults": build_sahi(args, with_defaults=True)}
    return found


def compare(args: argparse.Namespace, data: str, images: list[Sample], names: dict[int, str]) -> list[dict]:
    """Run all variants on all images in turn; return a row for each."""
    variants = build_variants(args)
    records = {name: SizeRecords() for name in variants}
    seconds: dict[str, list[float]] = {name: [] for name in variants}
    bares, order = [], list(variants)
    for variant in variants.values():
        variant.run(images[0].image)  # the first call is slower
        variant.tiles.clear()
    for turn, sample in enumerate(TQDM(images * args.rounds, desc=data)):
        at = turn % len(order)
        for name in order[at:] + order[:at]:
            if name == "this fork":
                bares.append(time_network(args, variants[name].model, sample.image))
            start = time.perf_counter()
            rows = variants[name].run(sample.image)
            seconds[name].append(time.perf_counter() - start)
            if turn < len(images):
                rows = rows[np.argsort(-rows[:, 4], kind="stable")[:MAX_DET]]
                found = rows[:, :4], rows[:, 4], rows[:, 5]
                records[name].add(sample.image.shape[:2], sample.boxes, sample.classes, *found)
    table = []
    for name, found in records.items():
        size, overall = found.evaluate(names, MAX_DET), found.evaluate(names, MAX_DET, ALL_SIZES)
        tiles = variants[name].tiles
        table.append({
            "data": data, "variant": name, "AP": overall.ap["all"], "AP50": overall.ap50["all"],
            "AR": overall.ar["all"],
            "AP_small": size.ap[COCO_SMALL_NAME], "AR_small": size.ar[COCO_SMALL_NAME],
            "AP_medium": size.ap["medium"], "AP_large": size.ap["large"],
            "seconds": statistics.mean(seconds[name]), "bare seconds": statistics.mean(bares),
            "tiles": statistics.mean(run for run, _ in tiles) if tiles else "",
            "skipped": statistics.mean(skipped for _, skipped in tiles) if tiles else "",
        })  # fmt: skip
    return table


def print_peak(args: argparse.Namespace) -> None:
    """Run one variant on the largest image; print the peak memory of this process in MiB."""
    variant, data = args.peak
    images, _ = load(data, args)
    image = max((sample.image for sample in images), key=lambda image: image.size)
    args.skip = [0.0]
    args.no_sahi = not variant.startswith("SAHI")
    build_variants(args)[variant].run(image)
    status = Path("/proc/self/status").read_text(encoding="utf-8")  # getrusage would include the parent's memory
    print(int(re.search(r"VmHWM:\s*(\d+) kB", status)[1]) / 1024)


def load(data: str, args: argparse.Namespace) -> tuple[list[Sample], dict[int, str]]:
    """Return the images and class names of `DATA.yaml` or `DATA.yaml@K`."""
    file, _, mosaic = data.partition("@")
    if mosaic and not (mosaic.isdecimal() and 1 <= int(mosaic) <= 8):
        raise UserError(f"--data {data}: @ must be followed by a number from 1 to 8")
    found, names = load_samples(file, int(mosaic or 1), args.images)
    if args.single_cls:
        found, names = [replace(each, classes=np.zeros_like(each.classes)) for each in found], {0: "object"}
    return found, names


def min_tiles(args: argparse.Namespace, images: list[Sample]) -> dict[str, float]:
    """Return the fraction of tiles with objects, and the fraction that a perfect `slice_skip` would run."""
    total, reached, needed = 0, 0, 0
    for sample in images:
        size = *sample.image.shape[:2], args.tile, args.overlap
        grid, boxes = tile_grid(*size), sample.boxes
        total += len(grid)
        reached += sum(((boxes[:, :2] < t[2:]) & (boxes[:, 2:] > t[:2])).all(1).any() for t in grid)
        needed += len(tiles_over(boxes, *size))
    return {"with objects": reached / total, "least": needed / total}


def title(data: str) -> str:
    """Return a data set's name for the tables."""
    file, _, mosaic = data.partition("@")
    return Path(file).stem + (f", mosaics of {mosaic}x{mosaic}" if mosaic else "")


def report(args: argparse.Namespace, rows: list[dict]) -> str:
    """Return the tables as Markdown."""
    about = f"tiles of {args.tile} px, overlap {args.overlap:g}, batch {args.batch}, input {args.imgsz} px, confidence "
    about += f"{args.conf:g}, weights `{common.relative_path(args.model)}`"
    lines = [
        "# Sliced prediction", "", f"{about}. AP in percent; seconds per image, mean.", "",
        f"Commit {common.describe_setup(args.device)}, "
        f"Ultralytics {version('ultralytics')}{'' if args.no_sahi else ', SAHI ' + version('sahi')}.", "",
        "```", args.command, "```",
    ]  # fmt: skip
    for name in dict.fromkeys(row["data"] for row in rows):
        part = [row for row in rows if row["data"] == name]
        first, reference = part[0], next((row["seconds"] for row in part if row["variant"] == "SAHI"), None)
        text = f"{first['images']} images. Bare forward passes of all tiles and the whole image: "
        text += f"{first['bare seconds']:.2f} s per image. {100 * first['with objects']:.0f} % of the tiles contain "
        text += f"objects; a perfect `slice_skip` would run {100 * first['least']:.0f} % of all tiles."
        head = ["variant", *SHOWN, "seconds", "speed against SAHI", "overhead", "tiles run", "skipped", "peak MiB"]
        lines += ["", f"## {name}", "", text, ""]
        table = []
        for row in part:
            scores = ("-" if np.isnan(row[key]) else f"{100 * row[key]:.2f}" for key in SHOWN)
            speed = f"{reference / row['seconds']:.2f}" if reference else "-"
            all_tiles = row["variant"] in {"SAHI", "this fork"}
            over = f"{100 * (row['seconds'] / row['bare seconds'] - 1):.1f} %" if all_tiles else "-"
            counts = (f"{row[key]:.1f}" if row[key] != "" else "-" for key in ("tiles", "skipped"))
            memory = f"{row['peak MiB']:.0f}" if row.get("peak MiB") else "-"
            table.append([row["variant"], *scores, f"{row['seconds']:.2f}", speed, over, *counts, memory])
        lines += [*common.markdown_table(head, table), "", f"![AP and AP_small against time]({picture_name(name)})"]
    return "\n".join(lines) + "\n"


def picture_name(name: str) -> str:
    """Return the file name of a data set's picture."""
    return f"skip-{name.replace(', ', '-').replace(' ', '-')}.png"


def draw(rows: list[dict], picture: Path) -> None:
    """Plot AP and AP of small objects over seconds per image, one point per variant of a data set."""
    figure = Figure(figsize=(12, 4.5), layout="constrained")
    panels = figure.subplots(1, 2, sharex=True)
    own = sorted((row for row in rows if row["variant"].startswith("this fork")), key=lambda row: row["seconds"])
    for ax, key in zip(panels, ("AP", "AP_small"), strict=True):
        ax.plot([row["seconds"] for row in own], [100 * row[key] for row in own], "-", color="#888888")
        for i, row in enumerate(rows):
            style = f"C{i}" + ("o" if row in own else "s" if row["variant"].startswith("SAHI") else "^")
            ax.plot(row["seconds"], 100 * row[key], style, label=row["variant"], markersize=8)
        ax.set(title=f"{rows[0]['data']}: {key}", xlabel="seconds per image", ylabel="%")
        ax.set(xlim=(0, None), ylim=(0, None))
        ax.grid(alpha=0.3)
    figure.legend(*panels[0].get_legend_handles_labels(), loc="outside right center", fontsize=9)
    with replacing(picture) as new:
        figure.savefig(new, dpi=100)


def parse_arguments(argv: Sequence[str]) -> argparse.Namespace:
    """Read and check the command line."""
    parser = common.build_parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="WEIGHTS", help="weights that Ultralytics and SAHI can load")
    add("--data", nargs="+", required=True, metavar="YAML[@K]", help="data YAMLs; @K: in mosaics of K x K images")
    add("--tile", type=int, default=640, help="side of a tile in pixels, default 640")
    add("--overlap", type=float, default=0.2, help="overlap of tiles, default 0.2")
    add("--batch", type=int, default=8, help="tiles per batch, default 8")
    add("--imgsz", type=int, default=640, help="size of the network's input, default 640")
    add("--conf", type=float, default=0.01, help="minimum confidence, default 0.01")
    add("--skip", nargs="+", type=float, default=[0, 0.001, 0.01, 0.1], metavar="SCORE", help="values of slice_skip")
    add("--iou", nargs="+", type=float, default=[], metavar="IOU", help="more values of slice_iou")
    add("--whole", nargs="+", type=int, default=[], metavar="PX", help="more input sizes for whole images")
    add("--single-cls", action="store_true", help="treat all classes as one, for weights trained that way")
    add("--images", type=int, default=sys.maxsize, help="number of images per data set, default: all")
    add("--rounds", type=int, default=1, help="how often each image is timed, default 1")
    add("--device", default="0" if torch.cuda.is_available() else "cpu", help="cpu or the number of a GPU")
    add("--no-sahi", action="store_true", help="leave out SAHI")
    add("--no-peak", action="store_true", help="leave out the memory measurement")
    add("--out", type=Path, default=common.RESULTS / "slicing", metavar="DIR", help="folder of the results")
    add("--peak", nargs=2, help=argparse.SUPPRESS)
    args = parser.parse_args(argv)
    common.check_minimums(args, tile=MIN_TILE, batch=1, rounds=1, images=1)
    if not 0 <= args.overlap <= MAX_OVERLAP:
        raise UserError(f"--overlap must be 0 to {MAX_OVERLAP}, not {args.overlap}")
    if not Path(args.model).is_file():
        raise UserError(f"--model {args.model}: no such file")
    args.skip = sorted({0.0, *args.skip})
    if not args.no_sahi and common.find_missing(["sahi"]):
        raise UserError("SAHI is not installed; run: pip install sahi, or give --no-sahi")
    return args


def run(args: argparse.Namespace) -> None:
    """Measure all data sets and write the results."""
    if args.peak:
        print_peak(args)
        return
    rows = []
    for data in args.data:
        images, names = load(data, args)
        part = compare(args, title(data), images, names)
        needed = min_tiles(args, images)
        for row in part:
            row |= {"images": len(images), **needed}
            if not args.no_peak and "fork, " not in row["variant"]:
                printed = common.run_module("benchmarks.slicing", *args.given, "--peak", row["variant"], data)
                row["peak MiB"] = float(printed)
        rows += part
    text = report(args, rows)
    common.write_csv(args.out / "slicing.csv", COLUMNS, rows)
    write_file(args.out / "slicing.md", text)
    for name in dict.fromkeys(row["data"] for row in rows):
        draw([row for row in rows if row["data"] == name], args.out / picture_name(name))
    LOGGER.info(text)


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    return common.execute("benchmarks.slicing", parse_arguments, run, argv)


if __name__ == "__main__":
    sys.exit(main())
