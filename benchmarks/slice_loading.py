"""Measures the cost of training on tiles besides the network: python -m benchmarks.slice_loading --help.

For each cache (none, `cache=ram`, `cache=disk`), one process loads samples as in training with `slice`: random tiles,
mosaics of four and upstream's augmentations. Memory and disk are those of the images, which the caches hold at full
size; figures for more images are multiples. An epoch takes as long as loading its samples, divided by the number of
loader workers, or as long as the network, whichever is longer.
"""

import argparse
import statistics
import sys
import time
from collections.abc import Sequence
from pathlib import Path

from ultralytics.cfg import get_cfg
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils import LOGGER

from benchmarks.common import RESULTS, build_parser, describe_setup, execute, markdown_table
from small_object.files import write_file
from small_object.slicing.dataset import SlicedDataset

COUNTS = 100, 400, 2000  # images of the table


def load_samples(data: dict, args: argparse.Namespace, cache: str | None) -> tuple[float, int, int]:
    """Return the median seconds per sample, and the mean bytes per image in memory and on disk."""
    dataset = SlicedDataset(
        img_path=data["train"], imgsz=args.imgsz, batch_size=16, augment=True, cache=cache, data=data, rect=False,
        hyp=get_cfg(overrides={"slice": args.tile, "slice_samples": args.samples}),
    )  # fmt: skip
    seconds = []
    for index in range(min(args.limit, len(dataset))):
        started = time.perf_counter()
        dataset[index]
        seconds.append(time.perf_counter() - started)
    memory = sum(image.nbytes for image in dataset.ims if image is not None)
    disk = sum(file.stat().st_size for file in dataset.npy_files if file.exists())
    for file in dataset.npy_files if cache == "disk" else ():
        file.unlink(missing_ok=True)
    return statistics.median(seconds), memory // dataset.ni, disk // dataset.ni


def run(args: argparse.Namespace) -> None:
    """Load samples with each cache and write the table."""
    data = check_det_dataset(args.data)
    rows = []
    for cache in (None, "ram", "disk"):
        seconds, memory, disk = load_samples(data, args, cache)
        sizes = (f"{count * size / 1e9:.1f}" for count in COUNTS for size in (memory, disk))
        rows.append([f"`cache={cache}`" if cache else "none", f"{1e3 * seconds:.0f}", *sizes])
    head = "cache", "ms a sample", *(f"{n} images, GB {kind}" for n in COUNTS for kind in ("in memory", "on disk"))
    text = [
        "# Loading samples for training on tiles", "", f"`{args.command}`", "",
        f"{Path(args.data).stem}, tiles of {args.tile} px, input {args.imgsz} px; one process, median per sample. "
        f"Commit {describe_setup()}.", "",
        *markdown_table(head, rows), "",
    ]  # fmt: skip
    write_file(args.out / "report.md", "\n".join(text))
    LOGGER.info("\n".join(text))


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = build_parser(__doc__)
    add = parser.add_argument
    add("--data", required=True, metavar="YAML", help="data YAML whose training images are loaded")
    add("--tile", type=int, default=640, help="side of a tile in pixels, default 640")
    add("--imgsz", type=int, default=640, help="size of the network's input, default 640")
    add("--samples", type=int, default=1, help="samples per image and epoch, default 1")
    add("--limit", type=int, default=64, help="samples to load, default 64")
    add("--out", type=Path, default=RESULTS / "slice-loading", metavar="DIR", help="folder of the result")
    return execute("benchmarks.slice_loading", parser.parse_args, run, argv)


if __name__ == "__main__":
    sys.exit(main())
