"""Trains, fine-tunes, validates and predicts on the demo sets with the published commands: python -m benchmarks.demo.

Training is short enough for a CPU: small images without padding (rect=True), then tiles, in small batches give the most
steps in a few minutes. It starts from `benchmarks/models/demo.pt`, which `python -m benchmarks.demo_weights` trained on
other synthetic images. Upstream leaves one core idle; the demo uses all.

`--scratch` starts from random weights, as the published command does, and takes longer.

At the end the demo prints recall and precision for objects of more than 16 px, and names the pictures of the images
with the most objects.
"""

import argparse
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
from ultralytics import YOLO
from ultralytics.cfg import entrypoint
from ultralytics.utils import LOGGER, torch_utils
from ultralytics.utils.ops import xywhn2xyxy

from benchmarks.common import ROOT, read_labels
from small_object.compare.kinds import Kind, Matches, classify, find_pairs

MODEL = "ultralytics/cfg/models/11/yolo11.yaml"
WEIGHTS = "benchmarks/models/demo.pt"
MIN_SIZE, NUM_NAMED = 16, 2  # pixels; pictures of each set
SHORT = "optimizer=AdamW warmup_epochs=1 scale=0.3 val=False cache=ram device=cpu exist_ok=True"
TILES = "imgsz=640 slice=640"


def commands(scratch: bool) -> tuple[str, ...]:
    """Return the commands that train, fine-tune and validate the model, from random weights if `scratch`."""
    start = "pretrained=False epochs=14 lr0=0.002" if scratch else f"pretrained={WEIGHTS} epochs=4 lr0=0.001"
    return (
        f"yolo detect train model={MODEL} data=datasets/ASS1-demo/ASS1-demo.yaml imgsz=384 batch=2 nbs=2 "
        f"rect=True {SHORT} {start} project=runs/ASS1 name=demo",
        f"yolo detect train model={MODEL} data=datasets/ASS2-demo/ASS2-demo.yaml {TILES} slice_samples=4 "
        f"slice_full_ratio=0.1 batch=2 nbs=2 epochs={5 if scratch else 4} lr0=0.001 {SHORT} "
        "pretrained=runs/ASS1/demo/weights/best.pt project=runs/ASS2 name=demo",
        f"yolo detect val model=runs/ASS2/demo/weights/best.pt data=datasets/ASS2-demo/ASS2-demo.yaml {TILES} "
        "device=cpu project=runs/val name=ASS2-demo exist_ok=True",
    )


def judge(model: YOLO, label: dict[str, Any], **options: Any) -> tuple[np.ndarray, np.ndarray, Matches]:
    """Compare a model's detections in an image with its objects, at an IoU of 0.5.

    Args:
        model: The model.
        label: Item of a data set's labels: `im_file`, `shape`, `cls` and `bboxes` (xywh, relative to the image).
        **options: Arguments of the prediction.

    Returns:
        The M objects and N detections, xyxy in pixels, shapes (M, 4) and (N, 4), and their outcomes.
    """
    height, width = label["shape"]
    targets = xywhn2xyxy(label["bboxes"].astype(np.float64), width, height)
    boxes = model.predict(label["im_file"], verbose=False, **options)[0].boxes.cpu().numpy()
    boxes = boxes[np.argsort(-boxes.conf, kind="stable")]
    pairs, classes = find_pairs(boxes.xyxy, targets), label["cls"][:, 0].astype(int)
    return targets, boxes.xyxy, classify(pairs, boxes.cls.astype(int), classes, np.zeros(len(boxes), bool))


def score(weights: Path, data: str, **options: Any) -> tuple[float, float, list[Path]]:
    """Return how well a model finds the validation objects of more than `MIN_SIZE` px at its default confidence.

    Args:
        weights: Its weights.
        data: Data YAML.
        **options: Arguments of the prediction.

    Returns:
        Recall and precision, 0..1, at an IoU of 0.5, and the images by falling number of their objects.
    """
    model, labels = YOLO(weights), read_labels(data)[0]
    found, objects, right, detections = 0, 0, 0, 0
    for label in labels:
        targets, boxes, matches = judge(model, label, **options)
        is_large, counts = (np.sqrt((x[:, 2:] - x[:, :2]).prod(1)) > MIN_SIZE for x in (targets, boxes))
        found, objects = found + int((is_large & (matches.found_by >= 0)).sum()), objects + int(is_large.sum())
        right, detections = right + int((counts & (matches.kinds == Kind.FOUND)).sum()), detections + int(counts.sum())
    labels = sorted(labels, key=lambda label: -len(label["cls"]))
    return found / max(1, objects), right / max(1, detections), [Path(label["im_file"]) for label in labels]


def main() -> None:
    """Run the commands and list the resulting pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--scratch", action="store_true", help="start from random weights")
    args = parser.parse_args()
    os.chdir(ROOT)
    torch_utils.NUM_THREADS = os.cpu_count() or 1
    start = time.time()
    for command in commands(args.scratch):
        LOGGER.info(f"\n$ {command}\n")
        entrypoint(command)
    for script in ("predict1.py", "predict2.py"):
        LOGGER.info(f"\n$ python {script} --models demo\n")
        subprocess.run([sys.executable, script, "--models", "demo"], check=True)
    lines = []
    for data, options in (("ASS1", {}), ("ASS2", {"slice": "auto"})):  # as in the predict scripts
        options |= {"iou": 0.5}
        folder = ROOT / "runs/predict" / data
        weights = ROOT / f"runs/{data}/demo/weights/best.pt"
        recall, precision, images = score(weights, str(ROOT / f"datasets/{data}-demo/{data}-demo.yaml"), **options)
        above = f"objects over {MIN_SIZE} px at the default confidence"
        lines.append(f"{data}-demo: recall {recall:.0%}, precision {precision:.0%} of {above}")
        lines += [f"  {folder / 'demo' / image.with_suffix('.jpg').name}" for image in images[:NUM_NAMED]]
        lines.append(f"  {folder / 'index.html'} shows all, in a browser")
    minutes = (time.time() - start) / 60
    LOGGER.info("\n".join((f"\nDone in {minutes:.1f} minutes. The detections, to open and look at:", *lines)))


if __name__ == "__main__":
    main()
