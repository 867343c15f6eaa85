"""Writes the picture of the README from what the demo found: python benchmarks/pictures.py, after make demo."""

from __future__ import annotations

import sys
from pathlib import Path

import cv2
import numpy as np

ROOT = Path(__file__).resolve().parents[1]
PREDICTED = ROOT / "runs/predict"
WIDTH = 1600  # of the picture, in pixels


def fit(image: np.ndarray, width: int) -> np.ndarray:
    """Return an (H, W, 3) image scaled to a width."""
    return cv2.resize(image, (width, round(image.shape[0] * width / image.shape[1])), interpolation=cv2.INTER_AREA)


def objects_in(picture: Path, data: str) -> int:
    """Return the number of objects that a demo set's labels give an image of the same name."""
    label = ROOT / "datasets" / data / "labels/val" / f"{picture.stem}.txt"
    return len(label.read_text(encoding="utf-8").splitlines())


def main() -> int:
    """Put a panorama above two apron views, as predict2.py and predict1.py saved them, into docs/detections.jpg."""
    panoramas = sorted((PREDICTED / "ASS2/demo").glob("*.jpg"))
    views = sorted((PREDICTED / "ASS1/demo").glob("*.jpg"))
    if not panoramas or len(views) < 2:
        print(f"no pictures under {PREDICTED}/ASS1/demo and ASS2/demo; run: make demo", file=sys.stderr)
        return 1
    # Those with the most objects by their labels: a fixed rule, not a choice of what went well.
    busiest = sorted(views, key=lambda path: objects_in(path, "ASS1-demo"))[-2:]
    panorama = cv2.imread(str(max(panoramas, key=lambda path: objects_in(path, "ASS2-demo"))))
    below = np.hstack([fit(cv2.imread(str(path)), WIDTH // 2) for path in busiest])
    picture = np.vstack((fit(panorama, WIDTH), below))
    target = ROOT / "docs/detections.jpg"
    temporary = target.with_name(".detections.jpg")
    cv2.imwrite(str(temporary), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])
    temporary.replace(target)
    return 0


if __name__ == "__main__":
    sys.exit(main())
