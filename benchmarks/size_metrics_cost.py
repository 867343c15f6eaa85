"""Measures the time that accuracy by object size adds to validation: python -m benchmarks.size_metrics_cost --help.

Validations with and without it alternate in one run; each round gives the ratio of their times.
"""

from __future__ import annotations

import argparse
import statistics
import sys
import time
from collections.abc import Sequence

from ultralytics import YOLO
from ultralytics.utils import LOGGER, TQDM

from benchmarks.common import build_parser, check_minimums, describe_machine, execute


def measure(model: str, data: str, imgsz: int, rounds: int, device: str) -> tuple[list[float], list[float]]:
    """Validate alternately without and with metrics by size.

    Args:
        model: Weights.
        data: Data YAML.
        imgsz: Size of the input in pixels.
        rounds: Number of validations of each kind, after a warm-up.
        device: As for yolo.

    Returns:
        Seconds of each validation without and with them.
    """
    network, seconds = YOLO(model), ([], [])
    options = {"data": data, "imgsz": imgsz, "batch": 8, "device": device, "plots": False, "verbose": False}
    for turn in TQDM(range(2 * rounds + 2), desc=f"validating at {imgsz} px", leave=False):
        start = time.perf_counter()
        network.val(**options, size_metrics=bool(turn % 2), workers=0)
        if turn > 1:
            seconds[turn % 2].append(time.perf_counter() - start)
    return seconds


def run(args: argparse.Namespace) -> None:
    """Measure at each size."""
    check_minimums(args, rounds=1)
    for imgsz in args.imgsz:
        without, with_ = measure(args.model, args.data, imgsz, args.rounds, args.device)
        ratios = [b / a for a, b in zip(without, with_, strict=True)]
        LOGGER.info(
            f"{imgsz} px: {statistics.median(without):.2f} s without, {statistics.median(with_):.2f} s with; ratio "
            f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), medians of {args.rounds} "
            f"rounds; {describe_machine()}"
        )


def main(argv: Sequence[str] | None = None) -> int:
    """Run the benchmark; return the exit status."""
    parser = build_parser(__doc__)
    add = parser.add_argument
    add("--model", default="runs/ASS1/demo/weights/best.pt", help="weights, default those of the demo")
    add("--data", default="datasets/ASS1-demo/ASS1-demo.yaml", help="data YAML, default ASS1-demo")
    add("--imgsz", type=int, nargs="+", default=[640, 320], help="sizes in pixels, default 640 320")
    add("--rounds", type=int, default=5, help="validations of each kind, default 5")
    add("--device", default="cpu", help="as for yolo, default cpu")
    return execute("benchmarks.size_metrics_cost", parser.parse_args, run, argv)


if __name__ == "__main__":
    sys.exit(main())
