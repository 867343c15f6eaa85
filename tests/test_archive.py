"""Archives of images on Ray Data, against a plain loop of `model.predict`."""

import json
import os
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from test_sliced_prediction import IMGSZ, TILE, build, same
from ultralytics import YOLO
from ultralytics.solutions import archive

ray = pytest.importorskip("ray.data", reason="ray is missing: pip install -e '.[archive]'") and pytest.importorskip(
    "ray"
)
pads = pytest.importorskip("pyarrow.dataset")
psutil = pytest.importorskip("psutil")

CONF = 0.72
OPTIONS = ("--imgsz", IMGSZ, "--conf", CONF, "--slice", TILE, "--slice-overlap", 0.25, "--slice-batch", 3)
OPTIONS += ("--max-det", 1000, "--device", "cpu", "--batch", 2, "--part", 4)
EXIF = bytes.fromhex("ffe1002245786966000049492a00080000000100120103000100000006000000000000000000")  # turned by 90°
ODD_NAMES = "a b.png", "é 飞机.jpg", "quo'te\".png", "new\nline.png", "deep/er/100%#?.png"


@pytest.fixture(scope="module")
def weights(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("model")
    build(folder, 2).save(folder / "tiny.pt")
    return folder / "tiny.pt"


@pytest.fixture(scope="module", autouse=True)
def cluster() -> Iterator[None]:
    """Start Ray once for all; workers know the user of the S3 stand-in."""
    os.environ.update(RAY_USAGE_STATS_ENABLED="0", RAY_ACCEL_ENV_VAR_OVERRIDE_ON_ZERO="0")
    os.environ.update(AWS_ACCESS_KEY_ID="me", AWS_SECRET_ACCESS_KEY="secret", AWS_EC2_METADATA_DISABLED="true")
    small = {"num_cpus": 2, "object_store_memory": 80 * 2**20, "include_dashboard": False, "log_to_driver": False}
    ray.init(address="local", logging_level="ERROR", **small)
    yield
    ray.shutdown()


def draw(file: Path, seed: int, height: int = 160, width: int = 256) -> Path:
    """Write blocks of noise, in which the tiny model finds much."""
    noise = np.random.default_rng(seed).integers(0, 256, (height // 8, width // 8, 3), dtype=np.uint8)
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(cv2.imencode(file.suffix, cv2.resize(noise, (width, height)))[1].tobytes())
    return file


@pytest.fixture(scope="module")
def images(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Return a folder of images of several sizes, of odd names, one turned by EXIF, one grey, one without objects."""
    folder = tmp_path_factory.mktemp("images")
    for i, name in enumerate(ODD_NAMES):
        draw(folder / name, i)
    draw(folder / "small.png", 10, 64, 96)
    draw(folder / "high.png", 11, 256, 160)
    turned = draw(folder / "turned.jpg", 12)
    turned.write_bytes(turned.read_bytes()[:2] + EXIF + turned.read_bytes()[2:])
    cv2.imwrite(str(folder / "grey.png"), cv2.imread(str(draw(folder / "grey.png", 13)), cv2.IMREAD_GRAYSCALE))
    cv2.imwrite(str(folder / "nothing.png"), np.full((160, 256, 3), 150, np.uint8))
    (folder / "notes.txt").write_text("not an image")
    return folder


def job(weights: Path, source: object, out: object, *more: object) -> int:
    arguments = ["--model", weights, "--source", source, "--out", out, *OPTIONS, "--workers", 1, *more]
    return archive.main([*map(str, arguments)])


def rows(out: Path) -> dict[str, list[dict[str, Any]]]:
    """Return the rows of each image, read by none of the fork's code; each image must stand in one file."""
    found: dict[str, list[dict[str, Any]]] = {}
    for file in sorted((out / "parts").iterdir()):
        of_file: dict[str, list[dict[str, Any]]] = {}
        for row in pads.dataset(file).to_table().to_pylist():
            of_file.setdefault(row["image"], []).append(row)
        assert of_file and not found.keys() & of_file.keys(), "an image stands in two parts"
        found |= of_file
    return found


def report(out: Path) -> dict[str, Any]:
    return json.loads((out / "report.json").read_text())


def boxes_of(image: list[dict[str, Any]]) -> torch.Tensor:
    columns = "x1", "y1", "x2", "y2", "score", "class_id"
    return torch.tensor([[row[name] for name in columns] for row in image if row["score"] is not None])


def expected(weights: Path, file: Path) -> Any:
    """Return what stock prediction of a file alone gives."""
    options = {"imgsz": IMGSZ, "conf": CONF, "slice": TILE, "slice_overlap": 0.25, "max_det": 1000}
    return YOLO(weights).predict([file], verbose=False, device="cpu", **options)[0]


def test_results_are_those_of_a_loop(weights: Path, images: Path, tmp_path: Path) -> None:
    assert job(weights, images, tmp_path / "out") == 0
    found = rows(tmp_path / "out")
    names = {file.relative_to(images).as_posix() for file in images.rglob("*") if file.suffix in (".png", ".jpg")}
    assert found.keys() == names and len(names) == len(ODD_NAMES) + 5
    detections, tiles = Counter(), 0
    for name, image in found.items():
        plain = expected(weights, images / name)
        if name == "nothing.png":
            assert len(plain.boxes) == 0
            assert image == [
                dict.fromkeys(("class", "class_id", "score", "x1", "y1", "x2", "y2"))
                | {"image": name, "width": 256, "height": 160, "tiles_run": 6, "tiles_skipped": 0}
            ]
        else:
            same(boxes_of(image), plain.boxes.data)
        assert all(row["class"] in (None, f"class{row['class_id']}") for row in image)
        shown = {(row["height"], row["width"], row["tiles_run"], row["tiles_skipped"]) for row in image}
        assert shown == {(*plain.orig_shape, *(plain.tiles or (0, 0)))}
        detections.update(row["class"] for row in image if row["class"])
        tiles += image[0]["tiles_run"]
    assert found["turned.jpg"][0]["height"] == 256 and found["small.png"][0]["tiles_run"] == 0 < tiles
    told = report(tmp_path / "out")
    assert told["detections"] == dict(detections) and told["tiles_run"] == tiles and told["unreadable"] == []
    assert [told[key] for key in ("images", "done", "done_now", "missing", "doubled")] == [10, 10, 10, 0, 0]
