"""Prediction, validation and tracking of large images by tiles, against a loop that runs one tile at a time."""

import json
import logging
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from torchvision.ops import box_iou
from ultralytics import YOLO
from ultralytics.cfg import get_cfg
from ultralytics.data.dataset import YOLODataset
from ultralytics.engine.predictor import BasePredictor
from ultralytics.models.rtdetr import RTDETRPredictor, RTDETRValidator
from ultralytics.models.yolo.detect import DetectionPredictor, DetectionValidator
from ultralytics.models.yolo.segment import predict as segment_predict
from ultralytics.utils import YAML
from ultralytics.utils.checks import check_yaml

from small_object.errors import UserError
from small_object.sizes import SIZE_GROUPS
from small_object.slicing import validator as validator_module
from small_object.slicing.dataset import SlicedDataset
from small_object.slicing.masks import polygon_crops
from small_object.slicing.merge import Merged, merge
from small_object.slicing.objects import Objects
from small_object.slicing.slicer import Slicer
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
    model.model.object_size, model.model.train_scale, model.model.tiles_only = 48.0, 0.5, True
    model.save(tmp_path / "tiny.pt")
    if options.get("nms"):
        options = options | {name: PLAIN[name] for name in ("conf", "iou", "max_det")}
    file = YOLO(tmp_path / "tiny.pt").export(format=name.partition(",")[0], imgsz=IMGSZ, device="cpu", **options)
    exported = YOLO(file, task="detect")
    for more in ({}, {"slice_skip": 0.7}, {"slice": "auto"}):
        found, expected = (
            each.predict(image, **SLICED | {"rect": False, "slice_full": None} | more)[0] for each in (exported, model)
        )
        assert found.tiles == expected.tiles and found.tiles[0] > 1, more
        assert exported.predictor.slicer.full is model.predictor.slicer.full is False
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


def test_a_tracker_gets_the_detectors_features_of_the_merged_objects(image: np.ndarray, tmp_path: Path) -> None:
    """An object that only one tile shows has the values of that tile."""
    model = build_detector(tmp_path, 2)
    YAML.save(tmp_path / "reid.yaml", YAML.load(check_yaml("botsort.yaml")) | {"with_reid": True, "model": "auto"})
    options = {"tracker": str(tmp_path / "reid.yaml"), "persist": True}
    seen: list[Any] = []
    model.add_callback(
        "on_predict_postprocess_end", lambda p: seen.append([(r.boxes.data, r.feats) for r in p.results])
    )
    model.track(image, **SLICED | {"slice_full": False}, **options)
    x1, y1, x2, y2 = tile_grid(*image.shape[:2], TILE, 0.25)[0].tolist()
    model.track(image[y1:y2, x1:x2].copy(), **PLAIN, **options)
    (tmp_path / "left.yaml").write_text("polygons: [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]")
    model.track(image, **PLAIN | {"slice": 256, "slice_roi": str(tmp_path / "left.yaml")}, **options)  # not sliced
    ((boxes, features),), ((alone, expected),), ((inside, own),) = seen
    assert 0 < len(inside) == len(own) and own.shape[1] == expected.shape[1]
    assert len(boxes) == len(features) > 100 and features.shape[1] == expected.shape[1]
    near, k = (boxes[:, None, :4] - alone[:, :4]).abs().amax(2).min(0)
    assert int((near < 0.01).sum()) > 10
    torch.testing.assert_close(features[k[near < 0.01]], expected[near < 0.01], atol=1e-3, rtol=1e-3)


TASKS = ("detect", "obb", "segment", "pose")
LABELS = {"detect": "0 0.5 0.5 0.2 0.2\n", "obb": "0 .4 .4 .6 .45 .6 .65 .4 .6\n"}
LABELS |= {"segment": LABELS["obb"], "pose": "0 0.5 0.5 0.2 0.2 0.45 0.45 2 0.5 0.5 2 0.55 0.5 1\n"}


def merge_results(found: list[tuple[int, tuple[int, int], Any]], tiles: np.ndarray, hw: tuple[int, int]) -> Merged:
    """Merge upstream's results of single tiles, which come with their source and position."""
    rows, rotated, sources = [], [], []
    for source, (x, y), result in found:
        boxes = result.obb if result.obb is not None else result.boxes
        rows.append(torch.cat((boxes.xyxy + torch.tensor([x, y, x, y]), boxes.conf[:, None], boxes.cls[:, None]), 1))
        if result.obb is not None:
            rotated.append(boxes.data[:, :5] + torch.tensor([x, y, 0, 0, 0]))
        sources += [source] * len(boxes)
    row, source = torch.cat(rows), torch.tensor(sources)
    more = {"rotated": torch.cat(rotated)} if rotated else {}
    return merge(row[:, :4], row[:, 4], row[:, 5], source, tiles, hw, **more)


@pytest.mark.parametrize("full", [True, False])
@pytest.mark.parametrize("task", TASKS[1:])
def test_other_tasks_are_those_of_one_tile_at_a_time(task: str, full: bool, tmp_path: Path, image: np.ndarray) -> None:
    model, hw = build_detector(tmp_path, 2, task=task), image.shape[:2]
    plain, tiles = PLAIN | {"imgsz": TILE, "retina_masks": full}, tile_grid(*hw, TILE, 0.25)
    found = []
    for index, (x1, y1, x2, y2) in enumerate(tiles.tolist()):
        found.append((index, (x1, y1), model.predict(image[y1:y2, x1:x2].copy(), **plain)[0]))
    if full:
        found.append((-1, (0, 0), model.predict(image, **plain)[0]))
    merged = merge_results(found, tiles, hw)
    result = model.predict(image, **SLICED | {"imgsz": TILE, "slice_full": full, "retina_masks": full})[0]
    assert len(result) == len(merged.index) > 50 and result.tiles == (len(tiles), 0)
    expected = merged.rotated if task == "obb" else merged.boxes
    order = np.lexsort(expected.numpy().round(2).T)
    ours = result.obb.xywhr if task == "obb" else result.boxes.xyxy
    ours_order = np.lexsort(ours.numpy().round(2).T)
    torch.testing.assert_close(ours[ours_order], expected[order], atol=2e-3, rtol=1e-3)
    if task == "pose":
        points = torch.cat([each.keypoints.data + torch.tensor([x, y, 0]) for _, (x, y), each in found])
        torch.testing.assert_close(result.keypoints.data[ours_order], points[merged.index][order], atol=2e-3, rtol=1e-3)
    if task == "segment":
        whole = np.zeros((len(merged.index), *hw), bool)
        masks = [(x, y, mask) for _, (x, y), each in found for mask in each.masks.data.numpy().astype(bool)]
        for (x, y, mask), owner in zip(masks, merged.owner.tolist(), strict=True):
            if owner >= 0:
                whole[owner, y : y + len(mask), x : x + mask.shape[1]] |= mask
        assert full or torch.bincount(merged.owner + 1)[1:].max() > 1, "no joined masks"
        differs = result.masks.data.numpy().astype(bool)[ours_order] != whole[order]
        assert differs.sum() < 1e-3 * whole.sum() and whole.any((1, 2)).all()
        outlines = result.masks.xy
        assert all(len(xy) and (xy <= hw[::-1]).all() for xy in outlines)
        painted = result.plot(boxes=False)
        changed = (painted != image).any(2)
        assert (changed <= whole.any(0)).all() and changed.sum() > 0.9 * whole.any(0).sum()
        few, mode = result[result.boxes.cls == 1][:1], {"boxes": False, "color_mode": "instance"}
        stock = few.new()
        stock.update(boxes=few.boxes.data.clone(), masks=few.masks.data)  # upstream paints whole masks
        assert np.abs(few.plot(**mode).astype(int) - stock.plot(**mode)).max() < 2


def test_masks_at_full_resolution_need_little_memory(
    tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, options = build_detector(tmp_path, 2, task="segment"), SLICED | {"retina_masks": True}
    at_once = model.predict(image, **options)[0]
    counts, stock = [], segment_predict.ops.process_mask_native
    monkeypatch.setattr(segment_predict, "MAX_STACK", 3 * image.shape[0] * image.shape[1])
    monkeypatch.setattr(
        segment_predict.ops, "process_mask_native", lambda *args: counts.append(len(args[1])) or stock(*args)
    )
    in_parts = model.predict(image, **options)[0]
    assert at_once.num_full > 3 and counts.count(3) > at_once.num_full // 4
    torch.testing.assert_close(in_parts.boxes.data, at_once.boxes.data, rtol=0, atol=0)
    assert (in_parts.masks.data == at_once.masks.data).all() and at_once.masks.data.any()


@pytest.mark.parametrize("task", TASKS)
def test_the_validation_of_each_task_has_what_prediction_finds(task: str, tmp_path: Path, image: np.ndarray) -> None:
    model = build_detector(tmp_path, 1, task=task)
    shape = "kpt_shape: [3, 3]\n" * (task == "pose")
    data = write_set(tmp_path / "data", {"large": (image, LABELS[task])}, ["thing"], shape)
    options = SLICED | {"imgsz": TILE, "iou": 0.6, "rect": False}
    whole = model.predict(image, **options | {"slice": 0})[0]
    options["slice_skip"] = 0.97 * float((whole.obb if task == "obb" else whole.boxes).conf.max())
    shared = {"data": str(data), "save_json": True, "save_txt": True, "plots": True, "exist_ok": True}
    model.val(**options | shared | {"project": str(tmp_path), "name": "val"})
    rows = json.loads((tmp_path / "val/predictions.json").read_text())
    result = model.predict(image, **options)[0]
    assert len(rows) == len(result) > 20 and result.tiles[1] > 0
    assert len((tmp_path / "val/labels/large.txt").read_text().splitlines()) == len(rows)
    assert {f"val_batch0_{kind}.jpg" for kind in ("pred", "labels")} <= {
        each.name for each in (tmp_path / "val").iterdir()
    }
    found = (result.obb.xywhr if task == "obb" else result.boxes.xywh).numpy()
    values = np.array([row["rbox"] if task == "obb" else row["bbox"] for row in rows])
    if task != "obb":
        values[:, :2] += values[:, 2:] / 2
    near = np.abs(found[:, None] - values).max(2)
    assert near.min(1).max() < 0.05
    if task == "pose":
        points = np.array([row["keypoints"] for row in rows]).reshape(-1, 3, 3)[near.argmin(1)]
        assert np.abs(points - result.keypoints.data.numpy())[..., :2].max() < 0.05
    if task == "segment":
        mask = pytest.importorskip("faster_coco_eval").mask
        masks = mask.decode([row["segmentation"] for row in rows]).transpose(2, 0, 1)[near.argmin(1)]
        assert (masks != result.masks.data.numpy()).sum() < 0.02 * masks.sum()


def test_masks_are_measured_at_full_resolution(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A model that finds exactly the labelled polygons has an AP of 1, and of 0 if it finds others there."""
    model, polygon = build_detector(tmp_path, 1, task="segment"), np.array([[0.4, 0.4], [0.45, 0.42], [0.43, 0.46]])
    line = f"0 {' '.join(map(str, polygon.reshape(-1)))}\n"
    data = write_set(tmp_path / "data", {"large": (draw_blocks(640, 400, 21, 34), line)}, ["thing"])
    for shift, score in ((0.0, 0.995), (0.02, 0.0)):
        crop = polygon_crops([polygon + shift], (400, 640))
        rows = torch.tensor([[*crop[0].xyxy, 0.9, 0.0]]).float()
        monkeypatch.setattr(Slicer, "merge", lambda *_, rows=rows, crop=crop: (Objects(rows, masks=crop), 0))
        metrics = model.val(data=str(data), imgsz=TILE, slice=TILE, plots=False, project=str(tmp_path), workers=0)
        assert metrics.seg.map == pytest.approx(score, abs=1e-3)


def test_more_masks_than_max_det_are_validated(tmp_path: Path) -> None:
    model, options = build_detector(tmp_path, 1, task="segment"), {"imgsz": TILE, "slice": TILE, "workers": 0}
    data = write_set(tmp_path / "data", {"large": (draw_blocks(640, 400, 21, 34), LABELS["segment"])}, ["thing"])
    metrics = model.val(data=str(data), save_txt=True, project=str(tmp_path), name="val", **options)
    assert (
        len((tmp_path / "val/labels/large.txt").read_text().splitlines()) > 300
        and metrics.confusion_matrix.matrix.any()
    )


@pytest.mark.parametrize(("given", "sliced", "whole"), [(300, 300, 400), (350, 350, 350), (500, 500, 500)])
def test_a_crowded_set_does_not_limit_sliced_images(given: int, sliced: int, whole: int) -> None:
    """Upstream raises the default `max_det` to the objects of the fullest image, a limit that a user would give."""
    sets = {"val": SimpleNamespace(labels=[{"cls": np.zeros((n, 1))} for n in (3, 400)])}
    for tile, expected in ((64, sliced), (0, whole)):
        args = get_cfg(overrides={"slice": tile, "max_det": given})
        DetectionValidator._check_max_det(args, sets)
        assert args.max_det == expected


def test_a_region_counts_only_what_lies_in_it(tmp_path: Path, image: np.ndarray) -> None:
    model, mask = build_detector(tmp_path, 1), np.zeros((80, 128), np.uint8)
    mask[:, 64:] = 255
    cv2.imwrite(str(tmp_path / "right.png"), mask)
    labels = "0 0.2 0.5 0.1 0.1\n0 0.7 0.5 0.1 0.1\n0 0.8 0.2 0.1 0.1\n"
    data = write_set(tmp_path / "data", {"large": (image, labels), "small": (image[:80:2, :96], labels)}, ["thing"])
    options = SLICED | {"slice_roi": str(tmp_path / "right.png")}
    everywhere, inside = (model.predict(image, **each)[0] for each in (SLICED, options))
    assert inside.tiles[0] < everywhere.tiles[0] and 0 < len(inside) < len(everywhere)
    assert float(inside.boxes.xywh[:, 0].min()) >= 128
    with pytest.raises(UserError, match=r"right.png: the aspect ratio of a 128x80 mask differs from .* 96x40"):
        model.predict(image[:80:2, :96].copy(), **options)
    small = image[:60, :96].copy()
    assert len(model.predict(small, **options)[0]) == sum(model.predict(small, **PLAIN)[0].boxes.xywh[:, 0] >= 48)
    (tmp_path / "data/images/small.png").unlink()
    metrics = model.val(data=str(data), plots=False, project=str(tmp_path), **options)
    assert sum(metrics.size.counts[group] for group in SIZE_GROUPS) == 2
    with pytest.raises(UserError, match=r"nix.png: no such file"):
        model.train(data=str(data), slice=TILE, slice_roi="nix.png", project=str(tmp_path), name="train", **QUICK)
    assert not (tmp_path / "train/results.csv").exists()


def test_tiles_are_validated_in_some_epochs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Only these choose the best weights."""
    sliced, saved, model, data = [], [], build_detector(tmp_path, 1), write_panorama(tmp_path)
    fitness, stock = iter([0.9, 0.2, 0.8, 0.1, 0.1, 0.1]), DetectionValidator.get_stats
    monkeypatch.setattr(DetectionValidator, "get_stats", lambda self: stock(self) | {"fitness": next(fitness)})
    model.add_callback("on_val_end", lambda validator: sliced.append(validator.tiles[0] > 0))
    model.add_callback("on_model_save", lambda trainer: saved.append(trainer.best_fitness == trainer.fitness))
    model.train(data=str(data), slice=TILE, slice_val=2, project=str(tmp_path), **QUICK | {"epochs": 5})
    assert sliced == [False, True, False, True, True, True]  # at last, the best weights
    assert saved == [True, True, False, False, False]  # the first for want of a better one
    monkeypatch.setattr(DetectionValidator, "get_stats", lambda self: stock(self) | {"fitness": 0.5})
    reads, read = [], validator_module.read_full_image
    monkeypatch.setattr(validator_module, "read_full_image", lambda data, i: reads.append(i) or read(data, i))
    options = {"slice": TILE, "slice_val": 2, "cache": "ram", "project": str(tmp_path), "name": "again"}
    model.train(data=str(data), **options, **QUICK | {"epochs": 9, "patience": 1})
    assert sliced[6:] == [False, True, False, True, True] and len(reads) == 1, "patience waits for an epoch of tiles"


@pytest.mark.parametrize(("task", "tile", "skip"), [("detect", 64, 0.0), ("obb", 64, 0.0), ("detect", 96, 0.6)])
def test_cutting_on_the_device_changes_nothing(
    task: str, tile: int, skip: float, tmp_path: Path, image: np.ndarray, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, found, options = build_detector(tmp_path, 2, task=task), [], SLICED | {"slice": tile, "slice_skip": skip}
    for on_device in (False, True):
        monkeypatch.setattr(DetectionPredictor, "cuts_on_device", on_device)
        result = model.predict(image, **options)[0]
        found.append((result.obb if task == "obb" else result.boxes).data)
    if tile == IMGSZ:
        assert torch.equal(*found) and len(found[0]) > 100
    else:  # pixels that are resized are rounded in another way
        assert len(found[1]) == pytest.approx(len(found[0]), rel=0.02)


@pytest.mark.parametrize("skip", [0.0, 0.6])
def test_validation_that_cuts_on_the_device_finds_the_same(
    skip: float, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model, data, found = build_detector(tmp_path, 2), write_panorama(tmp_path), []
    for on_device in (False, True):
        monkeypatch.setattr(DetectionValidator, "cuts_on_device", on_device)
        options = SLICED | {"slice": IMGSZ, "slice_skip": skip, "project": str(tmp_path), "name": str(on_device)}
        model.val(data=str(data), save_json=True, plots=False, **options)
        found.append(json.loads((tmp_path / str(on_device) / "predictions.json").read_text()))
    assert found[0] == found[1] and len(found[0]) > 100


def test_inputs_that_are_made_on_the_device_are_upstreams(model: YOLO) -> None:
    rng, predictor = np.random.default_rng(5), None
    for shape in ((96, 96, 3), (64, 64, 3), (96, 61, 3), (128, 70, 3), (50, 64, 3)):
        image = draw_blocks(shape[1], shape[0], 9, 9, seed=int(rng.integers(100)))
        model.predict(image, **PLAIN)
        predictor = model.predictor
        tiles = [image, image[::-1].copy()]
        expected = predictor.preprocess(tiles)
        inputs = predictor._build_inputs([torch.from_numpy(tile) for tile in tiles])
        assert inputs.shape == expected.shape
        exact = IMGSZ in {*shape[:2], shape[0] / 2}  # as large as the input, or twice as large
        assert float((inputs - expected).abs().max()) <= (1e-6 if exact else 1.01 / 255)


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
    assert (type(tiles), type(val), tiles.tile) == (SlicedDataset, YOLODataset, (TILE, TILE))
    assert sorted(file.suffix for file in (tmp_path / "images").iterdir()) == [".png"], "no files of tiles"
    best = YOLO(tmp_path / "train/weights/best.pt")
    size = (0.2 * 160 * 0.2 * 256) ** 0.5  # of the one object
    assert best.model.object_size == pytest.approx(size, rel=1e-4)
    assert (best.model.train_scale, best.model.tiles_only) == (IMGSZ / TILE, False)
    best.predict(image, slice="auto", imgsz=IMGSZ, verbose=False)
    assert best.predictor.slicer.tile == auto_tile(IMGSZ, size) == 96  # 64 * 40.5 / 32, to the nearest 32
    data = write_panorama(tmp_path, "0 0.4 0.4 0.6 0.4 0.6 0.6 0.4 0.6\n")
    rotated = build_detector(tmp_path, 1, task="obb")
    rotated.train(data=str(data), slice=TILE, slice_full_ratio=0, project=str(tmp_path), name="obb", **QUICK)
    assert rotated.model.tiles_only and rotated.model.object_size == pytest.approx(size, rel=1e-3)


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
    with pytest.raises(UserError, match="slice=640 needs a model of boxes that keeps the aspect of its inputs"):
        predictor.setup_source(image)


def write_panorama(folder: Path, labels: str = "0 0.5 0.5 0.2 0.2\n") -> Path:
    """Write a set of one image of 256x160 px for training and validation; return its YAML."""
    return write_set(folder, {"a": (draw_blocks(256, 160, 21, 34), labels)}, ["thing"])


def test_a_validator_of_ones_own_slices_but_not_rt_detrs(tmp_path: Path) -> None:
    class Own(DetectionValidator):
        pass

    class Stretches(RTDETRValidator):
        pass

    build_detector(tmp_path, 1).save(tmp_path / "tiny.pt")
    given = {"data": str(write_panorama(tmp_path)), "slice": 64, "imgsz": 64, "project": str(tmp_path), "plots": False}
    assert YOLO(tmp_path / "tiny.pt").val(validator=Own, **given).size.counts["medium"] == 1
    with pytest.raises(UserError, match="slice=64 needs a model of boxes"):
        YOLO(tmp_path / "tiny.pt").val(validator=Stretches, **given)


def test_an_export_of_another_height_than_width_is_sliced(tmp_path: Path, image: np.ndarray) -> None:
    model, data = build_detector(tmp_path, 1), write_panorama(tmp_path)
    model.save(tmp_path / "tiny.pt")
    shape = [64, 128]
    exported = YOLO(YOLO(tmp_path / "tiny.pt").export(format="torchscript", imgsz=shape, device="cpu"), task="detect")
    tiles = []
    exported.add_callback("on_val_end", lambda validator: tiles.append(validator.tiles))
    exported.val(data=str(data), imgsz=shape, slice=TILE, slice_overlap=0.25, plots=False, project=str(tmp_path))
    assert tiles == [(len(tile_grid(160, 256, (64, TILE), 0.25)), 0)]  # 48 px, half of 96, would be too small
    exported.predict(image, imgsz=shape, slice="auto", verbose=False)
    assert exported.predictor.slicer.tile == (64, 128)  # objects at their native size
    exported.predict(image, imgsz=shape, slice=[100, 90], verbose=False)
    assert exported.predictor.slicer.tile == (100, 90)


def test_inputs_of_tiles_are_a_multiple_of_the_stride(tmp_path: Path) -> None:
    model, data = YOLO("yolov8n-p6.yaml"), write_panorama(tmp_path)
    metrics = model.val(data=str(data), imgsz=96, slice=128, plots=False, project=str(tmp_path), device="cpu")
    assert metrics.size.counts["medium"] == 1


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
