"""Trains, fine-tunes, validates and predicts on the demo sets with the published commands: python benchmarks/demo.py.

The trainings are as short as a CPU needs them to be: small images without padding (rect=True) in small batches, which
make the most steps of a few minutes. Upstream leaves one processor idle; the demo uses all.
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from ultralytics.cfg import entrypoint
from ultralytics.utils import LOGGER, torch_utils

ROOT = Path(__file__).resolve().parents[1]
MODEL = "model=ultralytics/cfg/models/11/yolo11.yaml"
SHORT = "rect=True optimizer=AdamW warmup_epochs=1 scale=0.3 val=False cache=ram device=cpu exist_ok=True"
COMMANDS = (
    f"yolo detect train {MODEL} data=datasets/ASS1-demo/ASS1-demo.yaml imgsz=384 batch=2 nbs=2 epochs=18 "
    f"lr0=0.002 {SHORT} pretrained=False project=runs/ASS1 name=demo",
    f"yolo detect train {MODEL} data=datasets/ASS2-demo/ASS2-demo.yaml imgsz=1280 batch=1 nbs=1 epochs=9 "
    f"lr0=0.001 {SHORT} pretrained=runs/ASS1/demo/weights/best.pt project=runs/ASS2 name=demo",
    "yolo detect val model=runs/ASS2/demo/weights/best.pt data=datasets/ASS2-demo/ASS2-demo.yaml imgsz=1280 "
    "device=cpu project=runs/val name=ASS2-demo exist_ok=True",
)


def main() -> None:
    """Run the commands one after the other and name the pictures to open."""
    os.chdir(ROOT)
    torch_utils.NUM_THREADS = os.cpu_count() or 1
    start = time.time()
    for command in COMMANDS:
        LOGGER.info(f"\n$ {command}\n")
        entrypoint(command)
    for script in ("predict1.py", "predict2.py"):
        LOGGER.info(f"\n$ python {script} --models demo\n")
        subprocess.run([sys.executable, script, "--models", "demo"], check=True)
    minutes = (time.time() - start) / 60
    LOGGER.info(f"\nDone in {minutes:.1f} minutes. What the models found, to open and look at:")
    for data in ("ASS1", "ASS2"):
        pictures = sorted((ROOT / "runs/predict" / data / "demo").glob("*.jpg"))
        for picture in pictures[:2]:
            LOGGER.info(f"  {picture}")
        LOGGER.info(f"  ... and {len(pictures) - 2} more in {pictures[0].parent}")


if __name__ == "__main__":
    main()
