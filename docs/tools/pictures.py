"""Writes the pictures of README and docs: python -m docs.tools.pictures.

The drawings of `diagrams.py` and the training samples need nothing else. The other pictures show detections of the
demo's models, so they need `make demo`. The screenshot also needs Chromium.
"""

import random
import sys
import tempfile
from pathlib import Path

import cv2
import numpy as np
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset
from ultralytics.data.utils import check_det_dataset
from ultralytics.utils.ops import xywh2xyxy

from benchmarks.common import ROOT
from docs.tools import diagrams
from docs.tools.browser import SHOWN, browser, find_missing, open_page, wait_until
from small_object.compare.runs import compare
from small_object.files import replacing
from small_object.paste import PADDING

PREDICTED = ROOT / "runs/predict"
WEIGHTS = ROOT / "runs/ASS2/demo/weights/best.pt"
PICTURES = ("slicing.jpg", "skipping.jpg", "page.jpg", "pasting.jpg")  # in docs/
WIDTH = 1600  # of the pictures, in pixels
TILE_COLOURS = ((60, 220, 255), (255, 200, 60), (220, 90, 255), (90, 255, 120))  # BGR


def fit(image: np.ndarray, width: int) -> np.ndarray:
    """Return an (H, W, 3) image scaled to a width."""
    return cv2.resize(image, (width, round(image.shape[0] * width / image.shape[1])), interpolation=cv2.INTER_AREA)


def objects_in(picture: Path, data: str) -> int:
    """Return the number of objects in a demo set's labels of the image with the same name."""
    label = ROOT / "datasets" / data / "labels/val" / f"{picture.stem}.txt"
    return len(label.read_text(encoding="utf-8").splitlines())


def write(picture: np.ndarray, file: Path) -> None:
    """Write a picture (H, W, 3) to a JPEG file."""
    with replacing(file) as new:
        cv2.imwrite(str(new), picture, [cv2.IMWRITE_JPEG_QUALITY, 85])


def slicing(panorama: Path) -> np.ndarray:
    """Put the busiest part of a panorama, run as a whole image, above the same part run with slicing."""
    data = ROOT / "datasets/ASS2-demo"
    labels = np.loadtxt(data / "labels/val" / f"{panorama.stem}.txt", ndmin=2)
    model, parts = YOLO(WEIGHTS), []
    file = data / "images/val" / panorama.name
    for slice in (0, 640):  # as in the demo's training
        result = model.predict(file, slice=slice, verbose=False)[0]
        picture = result.plot(line_width=2, labels=False, conf=False)
        height, width = picture.shape[:2]
        x, y = labels[:, 1] * width, labels[:, 2] * height
        left = max(
            range(0, max(1, width - WIDTH), 40), key=lambda start: int(((x > start) & (x < start + WIDTH)).sum())
        )
        margin = height // 10
        rows = np.s_[max(0, int(y.min()) - margin) : int(y.max()) + margin]
        text = f"tiles of {slice} px" if slice else "whole image"
        parts.append(captioned(fit(picture[rows, left : left + WIDTH], WIDTH), text))
    return np.vstack(parts)


def skipping(panorama: Path) -> np.ndarray:
    """Put all tiles of a panorama above those that `slice_skip` runs, with their detections."""
    model, parts = YOLO(WEIGHTS), []
    for skip in (0, 0.1):
        options = {"slice": 640, "imgsz": 640, "slice_skip": skip, "verbose": False}
        result = model.predict(ROOT / "datasets/ASS2-demo/images/val" / panorama.name, **options)[0]
        picture = result.plot(line_width=4, labels=False, conf=False)
        for number, (x1, y1, x2, y2) in enumerate(model.predictor.tile_detections[0].tiles.tolist()):
            inset = 6 * (number % 4)  # so that edges do not hide each other
            corners = (x1 + inset, y1 + inset), (x2 - 1 - inset, y2 - 1 - inset)
            cv2.rectangle(picture, *corners, TILE_COLOURS[number % len(TILE_COLOURS)], 6)
        parts.append(captioned(fit(picture, WIDTH), f"slice_skip={skip}: {result.tiles[0]} tiles"))
    return np.vstack(parts)


def comparison(page: Path) -> np.ndarray:
    """Return a screenshot of a comparison page, zoomed in on the right of the first panorama."""
    with browser() as chromium:
        shown, _ = open_page(chromium, page, WIDTH, 1000)
        wait_until(shown, SHOWN)
        shown.keyboard.press("g")
        box = shown.locator(".view").first.bounding_box()
        shown.mouse.move(box["x"] + 0.75 * box["width"], box["y"] + 0.45 * box["height"])
        for _ in range(5):
            shown.mouse.wheel(0, -100)
        shown.wait_for_timeout(500)
        return cv2.imdecode(np.frombuffer(shown.screenshot(), np.uint8), cv2.IMREAD_COLOR)


def pasting(data: str = "ASS1-demo", size: int = 640) -> np.ndarray:
    """Put the first training image beside the same one with pasted objects, marked yellow."""
    found, options = check_det_dataset(str(ROOT / f"datasets/{data}/{data}.yaml")), {"mosaic": 0}
    options |= dict.fromkeys(("scale", "translate", "fliplr", "hsv_h", "hsv_s", "hsv_v"), 0)
    parts, own = [], 0
    for paste in (0, 2):
        random.seed(0)
        hyp = get_cfg(overrides=options | {"paste": paste})
        dataset = YOLODataset(img_path=found["train"], data=found, imgsz=size, hyp=hyp, augment=True, cache="ram")
        sample = dataset[0]
        picture = cv2.cvtColor(sample["img"].permute(1, 2, 0).numpy(), cv2.COLOR_RGB2BGR)
        own = own or len(sample["cls"])
        shown = (picture != PADDING).any((1, 2))
        for k, (x1, y1, x2, y2) in enumerate((xywh2xyxy(sample["bboxes"]) * size).int().tolist()):
            cv2.rectangle(picture, (x1, y1), (x2, y2), (60, 200, 60) if k < own else (0, 220, 255), 1)
        parts.append(captioned(fit(picture[shown], WIDTH // 2), f"paste={paste}: {len(sample['cls'])} objects"))
    return np.hstack(parts)


def captioned(picture: np.ndarray, text: str) -> np.ndarray:
    """Write a text into the upper left corner of a picture (H, W, 3)."""
    for grey, thickness in ((0, 6), (255, 2)):
        cv2.putText(picture, text, (16, 40), cv2.FONT_HERSHEY_SIMPLEX, 1.1, (grey,) * 3, thickness, cv2.LINE_AA)
    return picture


def main() -> int:
    """Write the drawings, and the photographs from the results of predict2.py and the weights."""
    diagrams.main()
    write(pasting(), ROOT / "docs/pasting.jpg")
    panoramas = sorted((PREDICTED / "ASS2/demo").glob("*.jpg"))
    if not panoramas or not WEIGHTS.is_file():
        print(f"only drawings written: {PREDICTED} has no results of the demo; run: make demo", file=sys.stderr)
        return 1
    panorama = max(panoramas, key=lambda path: objects_in(path, "ASS2-demo"))
    write(slicing(panorama), ROOT / "docs/slicing.jpg")
    write(skipping(panorama), ROOT / "docs/skipping.jpg")
    if why := find_missing():
        print(f"docs/page.jpg is not written: {why}", file=sys.stderr)
        return 1
    with tempfile.TemporaryDirectory() as folder:
        models = [ROOT / "runs" / data / "demo" for data in ("ASS1", "ASS2")]  # before and after the fine-tuning
        data = ROOT / "datasets/ASS2-demo/ASS2-demo.yaml"
        compare(models, Path(folder), data=data, title="ASS2-demo", slice="auto", iou=0.5)
        write(comparison(Path(folder) / "index.html"), ROOT / "docs/page.jpg")
    return 0


if __name__ == "__main__":
    sys.exit(main())
