"""Compares exported models with PyTorch in accuracy, size and speed: python -m benchmarks.export --help.

Trained weights are exported to each format and validated in it, on whole images and with `slice`. All formats get
square inputs of one size (`rect=False`), one image or tile at a time. Built-in NMS has a confidence of 0.001, as in
validation, since `conf` can't be lowered after an export. INT8 is calibrated with the training images.

Latency is the time of a prediction from an image in memory to its boxes. The formats take turns on each image, in an
order that rotates; the ratio is the median over all turns of a format's time divided by PyTorch's. Each runtime uses
its default number of threads; PyTorch uses all cores.
"""

import argparse
import shutil
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch
from ultralytics import YOLO
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.patches import imread

from benchmarks import common
from benchmarks.speed import Call, measure, summary
from benchmarks.training import validate
from small_object.errors import UserError
from small_object.files import write_file
from small_object.slicing.tiling import MIN_TILE

NMS = {"nms": True, "conf": 0.001, "iou": 0.7}
MAX_DET = 1000
REFERENCE = "PyTorch"
KINDS = "", "sliced "  # prefixes of the columns of whole images and of slicing


@dataclass(frozen=True)
class Format:
    """A format to export to.

    Args:
        arguments: Arguments of the export.
        needs: Packages that export and run it.
        tolerance: Allowed difference from PyTorch in AP points.
        gpu: Whether it needs a GPU.
    """

    arguments: dict[str, Any] = field(default_factory=dict)
    needs: tuple[str, ...] = ()
    tolerance: float = 0.5
    gpu: bool = False


OPENVINO, NCNN = ("openvino",), ("ncnn", "pnnx")
FORMATS = {
    REFERENCE: Format(),
    "TorchScript": Format({"format": "torchscript"}),
    "TorchScript, NMS": Format({"format": "torchscript", **NMS}),
    "ONNX": Format({"format": "onnx"}, common.ONNX),
    "ONNX, NMS": Format({"format": "onnx", **NMS}, common.ONNX),
    "ONNX dynamic": Format({"format": "onnx", "dynamic": True}, common.ONNX),
    "ONNX dynamic, NMS": Format({"format": "onnx", "dynamic": True, **NMS}, common.ONNX),
    "OpenVINO": Format({"format": "openvino"}, OPENVINO),
    "OpenVINO, NMS": Format({"format": "openvino", **NMS}, OPENVINO),
    "OpenVINO INT8": Format({"format": "openvino", "quantize": 8, "split": "train"}, (*OPENVINO, "nncf"), 2.0),
    "NCNN": Format({"format": "ncnn"}, NCNN),
    "TensorRT": Format({"format": "engine"}, (*common.ONNX, "tensorrt"), gpu=True),
    "TensorRT FP16": Format({"format": "engine", "quantize": 16}, (*common.ONNX, "tensorrt"), gpu=True),
}
COLUMNS = [
    "format", "MB", *(kind + name for kind in KINDS for name in ("AP", "AP50", "AP_small", "ms", "ratio")), "tolerance",
    "within", "error",
]  # fmt: skip


def unavailable(kind: Format, device: str) -> str:
    """Return why a format can't be measured here, or an empty string."""
    if kind.gpu and device == "cpu":
        return "needs a GPU"
    missing = common.find_missing(kind.needs)
    return f"not installed: {', '.join(missing)}" if missing else ""


def export(args: argparse.Namespace, kind: Format, folder: Path) -> Path:
    """Export the weights into a separate folder; return the file or folder of the exported model."""
    folder.mkdir()
    weights = Path(shutil.copy(args.model, folder / "model.pt"))
    if not kind.arguments:
        return weights
    options = {"data": args.data} if kind.arguments.get("quantize") == 8 else {}
    options |= {"imgsz": args.imgsz, "device": args.device, "max_det": MAX_DET, "verbose": False}
    return Path(YOLO(weights).export(**options, **kind.arguments))


def megabytes(path: Path) -> float:
    """Return the size of a file, or of all files in a folder, in MB (10^6 bytes)."""
    files = [path] if path.is_file() else [file for file in path.rglob("*") if file.is_file()]
    return sum(file.stat().st_size for file in files) / 1e6


def accuracy(args: argparse.Namespace, path: Path, folder: Path) -> dict[str, float]:
    """Return AP, AP50 and AP_small of an exported model, on whole images and with slicing, by column."""
    row = {}
    for kind, tile in zip(KINDS, (0, args.tile), strict=True):
        options = {"data": args.data, "imgsz": args.imgsz, "device": args.device, "single_cls": args.single_cls}
        options |= {"rect": False, "batch": 1, "workers": 0, "max_det": MAX_DET, "plots": False, "verbose": False}
        found = validate(path, options | {"slice": tile, "project": str(folder), "name": "val", "exist_ok": True})
        row |= {kind + name: found[name] for name in ("AP", "AP50", "AP_small")}
    return row


def latency(args: argparse.Namespace, paths: dict[str, Path], images: list[np.ndarray]) -> dict[str, dict[str, float]]:
    """Return the median milliseconds per prediction and the median ratio to PyTorch of each format, by column."""
    options = {"imgsz": args.imgsz, "device": args.device, "rect": False, "max_det": MAX_DET, "verbose": False}
    calls: dict[str, dict[str, Call]] = {label: {} for label in paths}
    for label, path in paths.items():
        for kind, more in zip(KINDS, ({}, {"slice": args.tile, "slice_batch": 1}), strict=True):
            model = YOLO(path, task="detect")
            calls[label][kind] = lambda image, model=model, more=more: model.predict(image, **options, **more)
    torch.set_num_threads(common.cores())
    inputs = [images[0], *(images * args.rounds)]  # the first call is slower
    rows: dict[str, dict[str, float]] = {label: {} for label in paths}
    for (label, kind), found in summary(measure(calls, inputs, warm_up=1), REFERENCE).items():
        rows[label] |= {f"{kind}ms": found["median_ms"], f"{kind}ratio": found["ratio"]}
    return rows


def measure_all(args: argparse.Namespace) -> tuple[list[dict[str, Any]], dict[str, str]]:
    """Export and measure all formats; return one row each, and why formats were left out."""
    out = {label: why for label, kind in FORMATS.items() if (why := unavailable(kind, args.device))}
    images = [imread(label["im_file"]) for label in common.read_labels(args.data)[0][: args.images]]
    rows, paths = [], {}
    with tempfile.TemporaryDirectory(prefix="export-") as temporary:
        for label in TQDM([label for label in FORMATS if label not in out], desc="formats"):
            kind, folder = FORMATS[label], Path(temporary) / str(len(rows))
            row: dict[str, Any] = {"format": label, "tolerance": kind.tolerance, "within": "no", "error": ""}
            rows.append(row)
            try:
                path = export(args, kind, folder)
                row |= {"MB": megabytes(path), **accuracy(args, path, folder)}
            except Exception as error:  # any error of a runtime: the other formats are still measured
                if label == REFERENCE:
                    raise
                row["error"] = " ".join(f"{type(error).__name__}: {error}".split())
                continue
            paths[label] = path
            differences = (abs(row[f"{each}AP"] - rows[0][f"{each}AP"]) for each in KINDS)
            row["within"] = "yes" if 100 * max(differences) <= kind.tolerance else "no"
        times = latency(args, paths, images)
    return [row | times.get(row["format"], {}) for row in rows], out


def report(args: argparse.Namespace, rows: list[dict[str, Any]], left_out: dict[str, str]) -> str:
    """Return the table as Markdown."""
    needed = dict.fromkeys(name for row in rows if not row["error"] for name in FORMATS[row["format"]].needs)
    about = f"Weights `{common.relative_path(args.model)}`, `{common.relative_path(args.data)}`, "
    about += f"input {args.imgsz} px, tiles of {args.tile} px."
    made = f"Commit {common.describe_setup(args.device)}, "
    made += ", ".join(f"{name} {version(name)}" for name in ("ultralytics", *needed))
    lines = ["# Exported models", "", about, "", f"{made}.", "", "```", args.command, "```", ""]
    lines += [
        "AP, AP50 and AP_small (below 32² px) in percent; ms: median latency; ratio: median of its ratio to PyTorch's "
        f"in the same turn; {args.images} images, {args.rounds} rounds. Within: whether both APs are within the "
        "tolerance, in points, of PyTorch's.", "",
    ]  # fmt: skip
    head = "format", "MB", "AP", "AP50", "AP_small", "ms", "ratio", "sliced AP", "AP50", "AP_small", "ms", "ratio"
    head += "tolerance", "within"
    table = []
    for row in rows:
        if row["error"]:
            table.append([row["format"], f"failed: {row['error']}", *[""] * (len(head) - 2)])
            continue
        cells = [row["format"], f"{row['MB']:.1f}"]
        for kind in KINDS:
            cells += [f"{100 * row[kind + name]:.2f}" for name in ("AP", "AP50", "AP_small")]
            cells += [f"{row[kind + 'ms']:.0f}", f"{row[kind + 'ratio']:.2f}"]
        table.append([*cells, f"{row['tolerance']:g}", row["within"]])
    lines += common.markdown_table(head, table)
    if left_out:
        lines += ["", "Left out: " + "; ".join(f"{label} ({why})" for label, why in left_out.items()) + "."]
    return "\n".join(lines) + "\n"


def run(args: argparse.Namespace) -> int:
    """Measure, and write the results; return 1 if a format failed or is outside its tolerance."""
    common.check_minimums(args, tile=MIN_TILE, imgsz=32, rounds=1, images=1)
    if not Path(args.model).is_file() or Path(args.model).suffix != ".pt":
        raise UserError(f"--model {args.model}: must be a .pt file that exists")
    rows, left_out = measure_all(args)
    text = report(args, rows, left_out)
    common.write_csv(args.out / "export.csv", COLUMNS, rows)
    write_file(args.out / "export.md", text)
    LOGGER.info(text)
    return int(any(row["within"] == "no" for row in rows))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = common.build_parser(__doc__)
    add = parser.add_argument
    add("--model", required=True, metavar="WEIGHTS", help="trained weights, a .pt file")
    add("--data", required=True, metavar="YAML", help="data YAML whose validation images are run")
    add("--imgsz", type=int, default=640, help="size of the network's input, default 640")
    add("--tile", type=int, default=640, help="side of a tile in pixels, default 640")
    add("--single-cls", action="store_true", help="treat all classes as one, for weights trained that way")
    add("--images", type=int, default=8, help="validation images to time, default 8")
    add("--rounds", type=int, default=3, help="how often each image is timed, default 3")
    add("--device", default="0" if torch.cuda.is_available() else "cpu", help="cpu or the number of a GPU")
    add("--out", type=Path, default=common.RESULTS / "export", metavar="DIR", help="folder of the results")
    return common.execute("benchmarks.export", parser.parse_args, run, argv)


if __name__ == "__main__":
    sys.exit(main())
