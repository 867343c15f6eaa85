"""Measures the time that accuracy by object size adds to validation: python -m benchmarks.size_metrics_cost --help.

Validations with and without it alternate in one run; each round gives the ratio of their times.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time

from ultralytics import YOLO
from ultralytics.utils import LOGGER, TQDM
from ultralytics.utils.torch_utils import get_cpu_info

from small_object.errors import UserError


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


def main(argv: list[str] | None = None) -> int:
    """Measure at each size; return the exit status."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--model", default="runs/ASS1/demo/weights/best.pt", help="weights, default those of the demo")
    parser.add_argument("--data", default="datasets/ASS1-demo/ASS1-demo.yaml", help="data YAML, default ASS1-demo")
    parser.add_argument("--imgsz", type=int, nargs="+", default=[640, 320], help="sizes in pixels, default 640 320")
    parser.add_argument("--rounds", type=int, default=5, help="validations of each kind, default 5")
    parser.add_argument("--device", default="cpu", help="as for yolo, default cpu")
    args = parser.parse_args(argv)
    try:
        if args.rounds < 1:
            raise UserError("--rounds must be at least 1")
        for imgsz in args.imgsz:
            without, with_ = measure(args.model, args.data, imgsz, args.rounds, args.device)
            ratios = [b / a for a, b in zip(without, with_, strict=True)]
            LOGGER.info(
                f"{imgsz} px: {statistics.median(without):.2f} s without, {statistics.median(with_):.2f} s with; ratio "
                f"{statistics.median(ratios):.3f} ({min(ratios):.3f} to {max(ratios):.3f}), medians of {args.rounds} "
                f"rounds; {get_cpu_info()}, {os.cpu_count()} cores"
            )
    except (UserError, OSError, RuntimeError) as error:
        sys.exit(f"size_metrics_cost: {' '.join(str(error).split())}")
    return 0


if __name__ == "__main__":
    sys.exit(main())
