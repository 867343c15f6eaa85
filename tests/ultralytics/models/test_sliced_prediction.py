"""Prediction, validation and tracking of large images by tiles, against one that runs a tile at a time."""

import json
import logging
import re
from pathlib import Path

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou
from ultralytics import YOLO
from ultralytics.data.dataset import YOLODataset
from ultralytics.engine.predictor import BasePredictor
from ultralytics.models.rtdetr import RTDETRPredictor
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml

from small_object.errors import UserError
from small_object.sizes import SIZE_GROUPS
from small_object.slicing.dataset import SlicedDataset
from small_object.slicing.merge import merge
from small_object.slicing.tiling import auto_tile, tile_grid, tiles_over
from tests.helpers.common import QUICK, build_detector, draw_blocks, write_set, write_video

TILE, IMGSZ = 96, 64
PLAIN = {"imgsz": IMGSZ, "conf": 0.6, "iou": 0.7, "max_det": 1000, "verbose": False, "device": "cpu", "rect": True}
PLAIN |= {"slice": 0, "slice_full": True, "slice_skip": 0.0, "save": False, "save_txt": False}
SLICED = PLAIN | {"slice": TILE, "slice_overlap": 0.25, "slice_batch": 3}


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> YOLO:
    return build_detector(tmp_path_factory.mktemp("model"), 2)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    return draw_blocks(256, 160, 21, 34)


def one_by_one(model: YOLO, image: np.ndarray, full: bool = True, tiles: np.ndarray | None = None) -> torch.Tensor:
    """Cut, run and merge one tile at a time, as slowly as possible."""
    tiles = tile_grid(*image.shape[:2], TILE, 0.25) if tiles is None else tiles
    rows, sources = [], []
    for index, (x1, y1, x2, y2) in enumerate(tiles):
        found = model.predict(image[y1:y2, x1:x2].copy(), **PLAIN)[0].boxes.data.clone()
        found[:, :4] += torch.tensor([x1, y1, x1, y1])
        rows.append(found)
        sources += [index] * len(found)
    if full:
        rows.append(model.predict(image, **PLAIN)[0].boxes.data)
        sources += [-1] * len(rows[-1])
    rows = torch.cat(rows)
    merged = merge(rows[:, :4], rows[:, 4], rows[:, 5], torch.tensor(sources), tiles, image.shape[:2])
    found = torch.cat((merged.boxes, merged.scores[:, None], merged.classes[:, None]), 1)
    found[:, 0:4:2] = found[:, 0:4:2].clamp(0, image.shape[1])
    found[:, 1:4:2] = found[:, 1:4:2].clamp(0, image.shape[0])
    return found


def same(found: torch.Tensor, expected: torch.Tensor) -> None:
    """Compare rows whatever their order: batches differ from single images in the last bits."""
    assert len(found) == len(expected) > 0
    found, expected = (rows[np.lexsort(rows.numpy().round(2).T)] for rows in (found, expected))
    torch.testing.assert_close(found, expected, atol=2e-3, rtol=1e-3)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("batch", [1, 3, 50])
def test_prediction_is_that_of_one_tile_at_a_time(model: YOLO, image: np.ndarray, full: bool, batch: int) -> None:
    result = model.predict(image, **SLICED | {"slice_full": full, "slice_batch": batch})[0]
    same(result.boxes.data, one_by_one(model, image, full))
    assert result.tiles == (len(tile_grid(*image.shape[:2], TILE, 0.25)), 0)
    assert result.orig_shape == image.shape[:2] and result.boxes.data.device.type == "cpu"
    assert len(result.boxes) > len(model.predict(image, **PLAIN)[0].boxes)
    for part in (result[:2], result.cpu(), result.numpy()):
        assert (part.tiles, part.num_full) == (result.tiles, result.num_full)


def test_small_images_and_tensors_are_not_sliced(model: YOLO, image: np.ndarray) -> None:
    for small in (image[:TILE, :TILE].copy(), torch.rand(1, 3, IMGSZ, 2 * IMGSZ)):
        sliced, plain = (model.predict(small, **options)[0] for options in (SLICED, PLAIN))
        assert torch.equal(sliced.boxes.data, plain.boxes.data) and sliced.tiles is None
    for height, width in ((1, 300), (97, 96)):
        result = model.predict(np.full((height, width, 3), 90, np.uint8), **SLICED)[0]
        assert result.tiles[0] == len(tile_grid(height, width, TILE, 0.25))


@pytest.mark.parametrize("skip", [0.0, 0.61])
def test_tiles_of_a_batch_of_images_are_run_together(
    model: YOLO, image: np.ndarray, skip: float, monkeypatch: pytest.MonkeyPatch
) -> None:
    options = SLICED | {"slice_batch": 7, "slice_skip": skip, "conf": 0.5}
    large = cv2.resize(image, (700, 420))  # looked at in parts
    images = [image[::-1].copy(), image, large, large[:, ::-1].copy()] if skip else [image, image[::-1].copy(), large]
    plain = model.predict(images, **PLAIN | {"conf": 0.5})  # images of several shapes are padded to squares
    alone = [model.predict(single, **options | {"rect": False})[0] for single in images]
    calls: list[int] = []
    inference = BasePredictor.inference
    monkeypatch.setattr(BasePredictor, "inference", lambda self, im: calls.append(len(im)) or inference(self, im))
    together = model.predict(images, **options)
    for whole, result, expected in zip(plain, together, alone, strict=True):
        same(result.boxes.data, expected.boxes.data)
        assert result.tiles == expected.tiles and result.tiles[0] > 0 and result.num_full == len(whole.boxes)
    tiles = sum(result.tiles[0] for result in together)
    parts = 2 * 4 if skip else 0
    assert calls[0] == len(images) and sum(calls) == len(images) + parts + tiles and max(calls) <= 7
    assert len(calls) == 1 + -(-parts // 7) + -(-tiles // 7)  # no batch but the last of its kind has room left


def test_skipping_looks_where_the_whole_image_has_hints(model: YOLO, image: np.ndarray) -> None:
    everything = PLAIN | {"conf": 0.001, "iou": 1.0, "max_det": 10_000}
    whole = model.predict(image, **everything)[0].boxes
    grid = tile_grid(*image.shape[:2], TILE, 0.25)
    for limit in (float(whole.conf.sort().values[-3]), 0.95 * float(whole.conf.max()), 0.5):
        tiles = tiles_over(whole.xyxy[whole.conf >= limit].numpy(), *image.shape[:2], TILE, 0.25)
        result = model.predict(image, **SLICED | {"slice_skip": limit})[0]
        assert result.tiles == (len(tiles), len(grid) - len(tiles))
        same(result.boxes.data, one_by_one(model, image, tiles=tiles))
    assert model.predict(image, **SLICED | {"slice_skip": 1.0})[0].tiles == (0, len(grid))


def test_limits_of_one_pass_are_not_those_of_the_image(
    model: YOLO, image: np.ndarray, caplog: pytest.LogCaptureFixture
) -> None:
    options = SLICED | {"conf": 0.3, "slice_iou": 0.9}
    everything = len(model.predict(image, **options | {"max_det": 300})[0])  # the default: no limit for the image
    assert everything > 300
    caplog.set_level(logging.WARNING, "ultralytics")
    few = model.predict(image, **options | {"max_det": 299})[0]
    assert len(few) == 299
    assert any("objects are left out; raise max_det=299" in message for message in caplog.messages)


def test_slice_iou_is_the_overlap_of_the_merge(model: YOLO, image: np.ndarray) -> None:
    for iou in (0.1, 0.5, 0.9):
        found = model.predict(image, **SLICED | {"slice_iou": iou})[0].boxes
        for kind in found.cls.unique():
            boxes = found.xyxy[found.cls == kind]
            overlaps = box_iou(boxes, boxes).fill_diagonal_(0)
            assert float(overlaps.max()) <= iou + 1e-3
            if iou == 0.9:
                assert float(overlaps.max()) > 0.5


def test_skipping_goes_by_the_classes_asked_for(model: YOLO, image: np.ndarray) -> None:
    whole = model.predict(image, **PLAIN | {"conf": 0.001, "iou": 1.0, "max_det": 10_000})[0].boxes
    best = [float(whole.conf[whole.cls == kind].max()) for kind in (0, 1)]
    kind = best.index(min(best))
    chosen = whole.xyxy[(whole.cls == kind) & (whole.conf >= best[kind])]
    tiles = tiles_over(chosen.numpy(), *image.shape[:2], TILE, 0.25)
    options = SLICED | {"slice_skip": best[kind]}
    assert model.predict(image, **options | {"classes": [kind]})[0].tiles[0] == len(tiles)
    assert len(tiles) < model.predict(image, **options)[0].tiles[0]


EXPORTS = {  # beside the format: what it needs, and its arguments
    "torchscript, nms": ((), {"nms": True}),
    "onnx": (("onnx", "onnxruntime", "onnxslim"), {}),
    "onnx, dynamic, nms": (("onnx", "onnxruntime", "onnxslim"), {"dynamic": True, "nms": True}),
    "openvino": (("openvino",), {}),
    "ncnn": (("ncnn", "pnnx"), {}),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_model_is_sliced_too(name: str, tmp_path: Path, image: np.ndarray) -> None:
    needs, options = EXPORTS[name]
    for package in needs:
        pytest.importorskip(package)
    model = build_detector(tmp_path, 2, width=32)  # for NCNN upstream takes a smaller file for a failure
    model.model.object_size, model.model.train_scale = 48.0, 0.5
    model.save(tmp_path / "tiny.pt")
    if options.get("nms"):
        options = options | {name: PLAIN[name] for name in ("conf", "iou", "max_det")}
    file = YOLO(tmp_path / "tiny.pt").export(format=name.partition(",")[0], imgsz=IMGSZ, device="cpu", **options)
    exported = YOLO(file, task="detect")
    for more in ({}, {"slice_skip": 0.7}, {"slice": "auto"}):
        found, expected = (each.predict(image, **SLICED | {"rect": False} | more)[0] for each in (exported, model))
        assert found.tiles == expected.tiles and found.tiles[0] > 1, more
        assert len(found) == pytest.approx(len(expected), rel=0.02), more
        distance = (found.boxes.xyxy[:, None] - expected.boxes.xyxy[None]).abs().amax(2).amin(1)
        # OpenVINO computes in bfloat16 on processors that have it.
        assert float(distance.quantile(0.95)) < (0.5 if name == "openvino" else 0.05), more
    assert exported.predictor.slicer.tile == auto_tile(IMGSZ, 48.0, 0.5) == 96


@pytest.mark.parametrize("tracker", ["bytetrack.yaml", "tracktrack.yaml"])
def test_tracks_over_the_frames_of_a_video(model: YOLO, image: np.ndarray, tmp_path: Path, tracker: str) -> None:
    video = write_video(tmp_path / "a.avi", [image] * 4)
    sliced = list(model.track(video, tracker=tracker, stream=True, **SLICED))
    assert len(sliced) == 4 and all(result.tiles == (8, 0) and result.num_full > 0 for result in sliced)
    found = model.predict(image, **SLICED)[0].boxes
    assert len(sliced[3].boxes) > 0.8 * int((found.conf > 0.7).sum()) > len(model.predict(image, **PLAIN)[0].boxes)
    first, last = (set(result.boxes.id.tolist()) for result in (sliced[2], sliced[3]))
    assert len(first & last) > 0.8 * len(first)


def test_a_tracker_that_wants_the_detectors_features_is_told_once(
    model: YOLO, image: np.ndarray, tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    settings = YAML.load(check_yaml("botsort.yaml")) | {"with_reid": True, "model": "auto"}
    YAML.save(tmp_path / "reid.yaml", settings)
    caplog.set_level(logging.WARNING, "ultralytics")
    logging.getLogger("ultralytics").addHandler(caplog.handler)
    for tracker in ("bytetrack.yaml", str(tmp_path / "reid.yaml")):
        caplog.clear()
        list(model.track(write_video(tmp_path / "b.avi", [image] * 2), tracker=tracker, stream=True, **SLICED))
        assert sum("leaves ReID" in message for message in caplog.messages) == (tracker != "bytetrack.yaml")
    logging.getLogger("ultralytics").removeHandler(caplog.handler)


def test_validation_measures_what_prediction_finds(tmp_path: Path, image: np.ndarray) -> None:
    model = build_detector(tmp_path, 1)
    pictures = {"large": image, "small": image[:60, :90], "high": np.ascontiguousarray(image.transpose(1, 0, 2))}
    labels = "0 0.5 0.5 0.2 0.2\n"
    data = write_set(tmp_path / "data", {name: (picture, labels) for name, picture in pictures.items()}, ["thing"])
    shared = SLICED | {"iou": 0.6, "slice_full": False, "exist_ok": True}
    shared |= {"project": str(tmp_path / "runs"), "name": "val"}
    metrics = model.val(data=str(data), batch=2, save_json=True, plots=False, **shared)
    rows = json.loads((tmp_path / "runs/val/predictions.json").read_text())
    for name, picture in pictures.items():
        boxes = torch.tensor([row["bbox"] for row in rows if str(row["file_name"]).startswith(name)])
        boxes[:, 2:] += boxes[:, :2]
        expected = model.predict(picture, **SLICED | {"iou": 0.6, "slice_full": False})[0].boxes.xyxy
        assert len(boxes) == len(expected) or name == "small"  # validation pads small images differently, sliced or not
        distance = (boxes.clip(0)[:, None] - expected[None]).abs().amax(2).amin(1)
        assert float(distance.max()) < 0.01 or name == "small"
    assert sum(metrics.size.counts[group] for group in SIZE_GROUPS) == 3
    assert metrics.speed["inference"] > 0 and metrics.speed["postprocess"] >= 0

    tiles = []
    model.add_callback("on_val_end", lambda validator: tiles.append(validator.tiles))
    everywhere = 2 * len(tile_grid(*image.shape[:2], TILE, 0.25))
    for skip in (0.0, 1e-6, 0.97 * float(model.predict(image, **PLAIN)[0].boxes.conf.max()), 1.0):
        model.val(data=str(data), batch=2, plots=False, **shared | {"slice_skip": skip})
    assert tiles[0] == tiles[1] == (everywhere, 0) and tiles[3] == (0, everywhere)
    assert 0 < tiles[2][0] < everywhere == sum(tiles[2])


def test_training_validates_by_tiles(tmp_path: Path, image: np.ndarray) -> None:
    seen, model = [], build_detector(tmp_path, 1)
    data = write_panorama(tmp_path)
    model.add_callback("on_val_end", lambda validator: seen.append((validator.training, validator.tiles)))
    model.train(data=str(data), slice=TILE, slice_overlap=0.25, max_det=100, project=str(tmp_path), **QUICK)
    assert (True, (8, 0)) in seen
    tiles, val = model.trainer.train_loader.dataset, model.trainer.test_loader.dataset
    assert (type(tiles), type(val), tiles.tile) == (SlicedDataset, YOLODataset, TILE)
    assert sorted(file.suffix for file in (tmp_path / "images").iterdir()) == [".png"], "no files of tiles"
    best = YOLO(tmp_path / "train/weights/best.pt")
    size = (0.2 * 160 * 0.2 * 256) ** 0.5  # of the one object
    assert best.model.object_size == pytest.approx(size, rel=1e-4)
    assert best.model.train_scale == IMGSZ / TILE
    best.predict(image, slice="auto", imgsz=IMGSZ, verbose=False)
    assert best.predictor.slicer.tile == auto_tile(IMGSZ, size) == 96  # 64 * 40.5 / 32, to the nearest 32


def corrupt_frames(video: Path, mark: bytes, frames: range) -> None:
    """Overwrite some frames of a video, which begin with a mark each."""
    data = bytearray(video.read_bytes())
    starts = [match.start() for match in re.compile(re.escape(mark)).finditer(bytes(data), data.find(b"movi"))]
    for frame in frames:
        begin, end = starts[frame] + len(mark) + 4, starts[frame + 1]
        data[begin:end] = bytes(end - begin)
    video.write_bytes(data)


@pytest.mark.parametrize(("corrupt", "stride"), [(range(1, 4), 1), (range(2, 4), 3)])
def test_corrupt_frames_of_a_video_are_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, corrupt: range, stride: int
) -> None:
    model = build_detector(tmp_path, 2)
    count = 8
    file = write_video(tmp_path / "a.avi", [np.full((160, 256, 3), 30 * number, np.uint8) for number in range(count)])
    corrupt_frames(file, b"00dc", corrupt)
    caplog.set_level(logging.WARNING, "ultralytics")
    save = {"save_txt": True, "project": str(tmp_path), "name": "x", "conf": 0.0001, "save_conf": True}
    results = model.predict(file, **SLICED | save | {"vid_stride": stride, "save": True})
    sampled = [number for number in range(count) if (number + 1) % stride == 0]
    read = [number for number in sampled if number not in corrupt]
    assert [round(result.orig_img.mean() / 30) for result in results] == read
    named = [number + 1 for number in sampled if number in corrupt]
    said = [record.getMessage() for record in caplog.records if "is corrupt" in record.getMessage()]
    assert [message[message.index(str(file)) :] for message in said] == [
        f"{file}: frame {number} of {count} is corrupt and skipped" for number in named
    ]
    numbers = sorted(int(path.stem.rpartition("_")[2]) for path in (tmp_path / "x/labels").glob("*.txt"))
    assert numbers == [sampled.index(number) + 1 for number in read]


def test_a_model_that_cannot_slice_says_so(image: np.ndarray) -> None:
    predictor = RTDETRPredictor(overrides={"slice": 640, "imgsz": 64, "task": "detect", "save": False})
    with pytest.raises(UserError, match="slice=640 is not supported by the prediction of this kind of model"):
        predictor.setup_source(image)


def write_panorama(folder: Path, labels: str = "0 0.5 0.5 0.2 0.2\n") -> Path:
    """Write a set of one image of 256x160 px for training and validation; return its YAML."""
    return write_set(folder, {"a": (draw_blocks(256, 160, 21, 34), labels)}, ["thing"])


def test_an_export_of_another_height_than_width_is_sliced(tmp_path: Path, image: np.ndarray) -> None:
    model, data = build_detector(tmp_path, 1), write_panorama(tmp_path)
    model.save(tmp_path / "tiny.pt")
    shape = [64, 128]
    exported = YOLO(YOLO(tmp_path / "tiny.pt").export(format="torchscript", imgsz=shape, device="cpu"), task="detect")
    tiles = []
    exported.add_callback("on_val_end", lambda validator: tiles.append(validator.tiles))
    exported.val(data=str(data), imgsz=shape, slice=TILE, slice_overlap=0.25, plots=False, project=str(tmp_path))
    assert tiles == [(8, 0)]
    exported.predict(image, imgsz=shape, slice="auto", verbose=False)
    assert exported.predictor.slicer.tile == 64  # the shorter side: objects at their native size


def test_validation_by_tiles_is_augmented(tmp_path: Path) -> None:
    model, data = build_detector(tmp_path, 1), write_panorama(tmp_path)
    arguments = {"data": str(data), "save_json": True, "plots": False, "project": str(tmp_path), "exist_ok": True}
    counts = {}
    for augment in (False, True):
        model.val(**{**PLAIN, **arguments, "slice": TILE, "slice_full": False, "augment": augment})
        counts[augment] = len(json.loads((tmp_path / "val/predictions.json").read_text()))
    assert counts[True] != counts[False]
    found = model.predict(tmp_path / "images/a.png", **SLICED | {"slice_full": False, "augment": True})[0]
    again = model.predict(tmp_path / "images/a.png", **SLICED | {"slice_full": False})[0]
    assert (len(found) > len(again)) == (counts[True] > counts[False])


def test_training_without_any_object(tmp_path: Path, image: np.ndarray) -> None:
    """As with `classes=` of which there are none: the size of its objects is not known afterwards."""
    build_detector(tmp_path, 1)
    data = write_panorama(tmp_path)
    model = YOLO(tmp_path / "tiny.yaml")
    model.train(data=str(data), classes=[3], project=str(tmp_path), name="run", **QUICK)
    best = YOLO(tmp_path / "run/weights/best.pt")
    assert best.model.object_size is None
    exported = YOLO(best.export(format="torchscript", imgsz=IMGSZ, device="cpu"), task="detect")
    for each in (best, exported):
        each.predict(image, imgsz=IMGSZ, slice="auto", verbose=False)
        assert each.predictor.slicer.tile == auto_tile(IMGSZ, None, IMGSZ / 256)


@pytest.mark.parametrize("slice", [0, TILE])
def test_a_training_without_labels_ends_with_advice(tmp_path: Path, slice: int) -> None:
    model, data = build_detector(tmp_path, 1), write_panorama(tmp_path, "")
    (tmp_path / "labels").rename(tmp_path / "label")
    with pytest.raises(UserError, match=f"No labels found in .* To find out why: small-object check {data}"):
        model.train(data=str(data), project=str(tmp_path), slice=slice, **QUICK)


def test_a_training_mentions_boxes_that_are_too_small(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    model = build_detector(tmp_path, 1)
    data = write_panorama(tmp_path, "0 0.5 0.5 0.2 0.2\n0 0.2 0.2 0.05 0.05\n0 0.8 0.8 0.07 0.09\n")
    model.train(data=str(data), project=str(tmp_path), **QUICK)  # heights of 0.05 and 0.09 are 2 and 3.6 px
    assert "2 of 3 training boxes are less than 4 px wide or high at imgsz=64; augmentation drops" in caplog.text
    caplog.clear()
    model.train(data=str(data), project=str(tmp_path), slice=TILE, **QUICK)  # 5.3 and 9.6 px
    assert "training boxes are less than" not in caplog.text
