"""Detections and annotations in COCO's format, as another reader of it sees them."""

import json
import logging
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import pytest
from faster_coco_eval import COCO, COCOeval_faster
from ultralytics import YOLO

from small_object.coco import PredictionWriter
from small_object.datasets.convert import from_coco
from small_object.datasets.tiles import cut_tiles
from tests.helpers.common import build_detector, draw_blocks, write_set, write_tree, write_video
from tests.ultralytics.models.test_sliced_prediction import LABELS

OPTIONS = {"imgsz": 64, "conf": 0.6, "iou": 0.7, "batch": 2, "rect": False, "device": "cpu", "save_json": True}
OPTIONS |= {"verbose": False, "save": False, "plots": False, "exist_ok": True}


def read(file: Path) -> list[dict[str, Any]]:
    assert [path.name for path in file.parent.iterdir() if path.name[0] == "."] == []
    return json.loads(file.read_text())


def test_tiles_are_the_same_in_both_formats(tmp_path: Path) -> None:
    rng, samples, names = np.random.default_rng(5), {}, ["a", "b", "unused"]
    for name in ("train/0", "train/1", "val/2"):
        centres, sizes, classes = rng.uniform(0.2, 0.8, (9, 2)), rng.uniform(0.02, 0.3, (9, 2)), rng.integers(0, 2, 9)
        rows = [[cls, *map(float, row)] for cls, row in zip(classes, np.hstack((centres, sizes)), strict=True)]
        image = rng.integers(0, 255, (90, 150, 3), dtype=np.uint8)
        samples[name] = image, "".join(" ".join(map(str, row)) + "\n" for row in rows)
        write_tree(tmp_path / "set", {f"ignore/{name}.txt": "0.3 0.3 0.2 0.31\n0.8 0.75 0.31 0.33\n"})
    out = cut_tiles(write_set(tmp_path / "set", samples, names), tmp_path / "out", 64, 0.25, empty=1).parent
    files = [out / f"annotations/instances_{split}.json" for split in ("train", "val")]
    back = from_coco(files, tmp_path / "back").parent
    for file, split in zip(files, ("train", "val"), strict=True):
        truth = COCO(str(file))
        pictures = sorted(path.name for path in (out / "images" / split).iterdir())
        assert sorted(image["file_name"] for image in truth.imgs.values()) == pictures and len(pictures) > 4
        assert [cat["name"] for cat in truth.loadCats(truth.getCatIds())] == names and min(truth.anns) == 1
        for image in truth.imgs.values():
            size = cv2.imread(str(out / "images" / split / image["file_name"])).shape[1::-1]
            assert (image["width"], image["height"]) == size
            for kind, is_crowd in (("labels", 0), ("ignore", 1)):
                label = Path(kind, split, image["file_name"]).with_suffix(".txt")
                texts = [(base / label).read_text() if (base / label).exists() else "" for base in (out, back)]
                lines, returned = ([line.split() for line in text.splitlines()] for text in texts)
                np.testing.assert_allclose(np.array(returned, float), np.array(lines, float), atol=1.1e-6)
                found = truth.loadAnns(truth.getAnnIds([image["id"]], iscrowd=is_crowd))
                lines = [[c, *line] for line in lines for c in "012"] if is_crowd else lines  # of each category
                boxes = np.array([line[1:] for line in lines], float).reshape(-1, 4) * (size * 2)
                boxes[:, :2] -= boxes[:, 2:] / 2
                assert [ann["category_id"] for ann in found] == [int(line[0]) + 1 for line in lines]
                np.testing.assert_allclose(np.reshape([ann["bbox"] for ann in found], (-1, 4)), boxes, atol=1e-3)
                np.testing.assert_allclose([ann["area"] for ann in found], boxes[:, 2:].prod(1), atol=0.05)
        assert len(truth.getAnnIds(iscrowd=1)) > 3 and len(truth.getAnnIds(iscrowd=0)) > 10

        anns = list(truth.anns.values())  # a detection of each object, and in each region one for each category
        rows = [{key: ann[key] for key in ("image_id", "category_id", "bbox")} | {"score": 0.5} for ann in anns]
        evaluation = COCOeval_faster(truth, truth.loadRes(rows), "bbox")
        evaluation.run()
        assert evaluation.stats_as_dict["AP_all"] == 1


@pytest.mark.parametrize(
    ("task", "tile"), [("detect", 0), ("detect", 64), ("obb", 0), ("pose", 0), ("pose", 64), ("segment", 64)]
)
def test_prediction_writes_what_validation_writes(tmp_path: Path, task: str, tile: int) -> None:
    model, side = build_detector(tmp_path, 1, task=task), 2 * tile or 64
    label = LABELS[task]
    samples = {name: (draw_blocks(side, side, 12, 12, seed), label) for seed, name in enumerate(("007", "b.c", "é 1"))}
    data = write_set(tmp_path / "data", samples, ["thing"], "kpt_shape: [3, 3]\n" * (task == "pose"))
    options = OPTIONS | {"project": str(tmp_path), "slice": tile, "slice_full": False}
    model.val(data=str(data), name="val", **options)
    results = model.predict(tmp_path / "data/images", name="predict", **options)
    expected, found = (
        sorted(read(tmp_path / name / "predictions.json"), key=lambda row: (row["file_name"], -row["score"]))
        for name in ("val", "predict")
    )
    assert len(expected) == len(found) == sum(map(len, results)) > 30
    for row, other in zip(found, expected, strict=True):
        assert row.keys() == other.keys()
        for key, value in row.items():
            assert value == other[key] or value == pytest.approx(other[key], abs=2e-3)
    assert {row["image_id"] for row in found} == {7, "b.c", "é 1"}


def test_frames_until_ctrl_c(tmp_path: Path) -> None:
    model, frames = build_detector(tmp_path, 2), [draw_blocks(96, 64, 6, 9, seed) for seed in range(4)]
    counts = [len(result) for result in model.predict(write_video(tmp_path / "12.avi", frames), **OPTIONS)][:3]
    options, seen = OPTIONS | {"project": str(tmp_path), "name": "x", "batch": 1}, []

    def stop(predictor: Any) -> None:
        seen.append(predictor)
        if len(seen) == 4:
            predictor.writer._stream.write(b'{"image_id": "12_4", "fi')  # a row that was being written
            raise KeyboardInterrupt

    model.add_callback("on_predict_batch_start", stop)
    with pytest.raises(KeyboardInterrupt):
        model.predict(tmp_path / "12.avi", **options)
    rows = read(tmp_path / "x/predictions.json")
    assert [sum(row["image_id"] == f"12_{i}" for row in rows) for i in (1, 2, 3)] == counts and min(counts) > 0
    assert {row["file_name"] for row in rows} == {"12.avi"} and len(rows) == sum(counts)
    seen[:] = [None] * 9
    model.predict(tmp_path / "12.avi", **options | {"conf": 1.0})
    assert read(tmp_path / "x/predictions.json") == []


def test_what_cannot_be_told_apart_or_has_no_boxes(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.WARNING, "ultralytics")
    names = "a/1.png", "a/²³.png", "a/\udce9.png", "b/1.png", "b/01.png"
    write_tree(tmp_path, dict.fromkeys(names, draw_blocks(64, 64, 12, 12)))
    options = OPTIONS | {"project": str(tmp_path), "name": "x"}
    build_detector(tmp_path, 2).predict(f"{tmp_path}/?/*.png", **options)
    rows = read(tmp_path / "x/predictions.json")
    assert {row["image_id"] for row in rows} == {1, "²³", "%E9"} and "%E9.png" in {row["file_name"] for row in rows}
    assert [message for message in caplog.messages if "share the image_id 1;" in message] == caplog.messages[-1:]
    videos = [write_video(tmp_path / f"{name}/1.avi", [draw_blocks(64, 64, 12, 12)] * 2) for name in "ab"]
    build_detector(tmp_path, 2).predict(videos, **options)
    assert [message for message in caplog.messages if "share the image_id 1_1;" in message] == caplog.messages[-1:]
    YOLO("yolo11n-cls.yaml").predict(tmp_path / "a/1.png", **options | {"name": "y"})
    assert "'save_json' is ignored with the task classify" in caplog.messages[-1]
    assert not (tmp_path / "y").exists()
    writer = PredictionWriter(tmp_path / "z")
    assert not (tmp_path / "z/predictions.json").exists()
    writer.close()
    assert read(tmp_path / "z/predictions.json") == []
