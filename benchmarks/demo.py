"""Trains, fine-tunes, validates and predicts on the demo sets with the published commands: python -m benchmarks.demo.

Training is short enough for a CPU: small images without padding (rect=True) in small batches give the most steps in a
few minutes. Upstream leaves one core idle; the demo uses all.

`--compare` also trains stock YOLO11n and yolo11-smallob in the same way, so that the comparison pages show
three models.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import time

from ultralytics.cfg import entrypoint
from ultralytics.utils import LOGGER, torch_utils

from benchmarks.common import ROOT

MODELS = {
    "demo": "ultralytics/cfg/models/11/yolo11.yaml",
    "stock": "yolo11n.yaml",
    "smallob": "ultralytics/cfg/models/11/yolo11-smallob.yaml",
}
SHORT = "rect=True optimizer=AdamW warmup_epochs=1 scale=0.3 val=False cache=ram device=cpu exist_ok=True"


def commands(name: str) -> tuple[str, ...]:
    """Return the commands that train, fine-tune and validate one of `MODELS`."""
    return (
        f"yolo detect train model={MODELS[name]} data=datasets/ASS1-demo/ASS1-demo.yaml imgsz=384 batch=2 nbs=2 "
        f"epochs=18 lr0=0.002 {SHORT} pretrained=False project=runs/ASS1 name={name}",
        f"yolo detect train model={MODELS[name]} data=datasets/ASS2-demo/ASS2-demo.yaml imgsz=1280 batch=1 nbs=1 "
        f"epochs=9 lr0=0.001 {SHORT} pretrained=runs/ASS1/{name}/weights/best.pt project=runs/ASS2 name={name}",
        f"yolo detect val model=runs/ASS2/{name}/weights/best.pt data=datasets/ASS2-demo/ASS2-demo.yaml imgsz=1280 "
        f"device=cpu project=runs/val name=ASS2-{name} exist_ok=True",
    )


def main() -> None:
    """Run the commands and list the resulting pictures."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").partition("\n")[0])
    parser.add_argument("--compare", action="store_true", help="also train two more models in the same way")
    names = list(MODELS) if parser.parse_args().compare else ["demo"]
    os.chdir(ROOT)
    torch_utils.NUM_THREADS = os.cpu_count() or 1
    start = time.time()
    for command in [command for name in names for command in commands(name)]:
        LOGGER.info(f"\n$ {command}\n")
        entrypoint(command)
    for script in ("predict1.py", "predict2.py"):
        LOGGER.info(f"\n$ python {script} --models {' '.join(names)}\n")
        subprocess.run([sys.executable, script, "--models", *names], check=True)
    minutes = (time.time() - start) / 60
    LOGGER.info(f"\nDone in {minutes:.1f} minutes. Open the detections:")
    for data in ("ASS1", "ASS2"):
        pictures = sorted((ROOT / "runs/predict" / data / "demo").glob("*.jpg"))
        for picture in pictures[:2]:
            LOGGER.info(f"  {picture}")
        LOGGER.info(f"  ... and {len(pictures) - 2} more in {pictures[0].parent}")
        LOGGER.info(f"  {pictures[0].parents[1] / 'index.html'} shows all of them in a browser")


if __name__ == "__main__":
    main()
