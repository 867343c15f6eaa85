"""Prediction, validation and tracking of large images by tiles, against one that runs a tile at a time."""

import json
import logging
import re
import tracemalloc
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from ultralytics import YOLO
from ultralytics.cfg import check_cfg, get_cfg
from ultralytics.engine.predictor import BasePredictor
from ultralytics.models.rtdetr import RTDETRPredictor
from ultralytics.utils import ROOT as UPSTREAM

from small_object.errors import UserError
from small_object.sizes import SIZE_GROUPS
from small_object.slicing.merge import merge
from small_object.slicing.slicer import Slicer, build_slicer, select_boxes
from small_object.slicing.tiling import auto_tile, tile_grid, tiles_over

TINY = """
nc: {}
reg_max: 1
backbone:
  - [-1, 1, Conv, [8, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
  - [-1, 1, Conv, [16, 3, 2]]
head:
  - [[1, 2], 1, Detect, [nc]]
"""
TILE, IMGSZ = 96, 64
SHARPNESS = 8.0
# All are given each time: older versions of upstream keep the arguments of the call before.
PLAIN = {"imgsz": IMGSZ, "conf": 0.6, "iou": 0.7, "max_det": 1000, "verbose": False, "device": "cpu", "rect": True}
PLAIN |= {"slice": 0, "slice_full": True, "slice_skip": 0.0, "save": False, "save_txt": False}
SLICED = PLAIN | {"slice": TILE, "slice_overlap": 0.25, "slice_batch": 3}


def build(folder: Path, classes: int, width: int = 16) -> YOLO:
    """Return a model of random weights that finds much in noise."""
    (folder / "tiny.yaml").write_text(TINY.format(classes).replace("[16,", f"[{width},"))
    torch.manual_seed(3)
    model = YOLO(folder / "tiny.yaml", task="detect")
    network = model.model.train()
    for module in network.modules():
        if isinstance(module, torch.nn.BatchNorm2d):
            module.momentum = 1.0  # take the statistics of the next images, so that what follows varies
    with torch.no_grad():
        network(torch.rand(4, 3, IMGSZ, IMGSZ))
        for boxes, scores in zip(network.eval().model[-1].cv2, network.model[-1].cv3, strict=True):
            boxes[-1].bias.fill_(1.5)
            scores[-1].weight.mul_(SHARPNESS)
            scores[-1].bias.fill_(-2.0)
    model.model.names = {i: f"class{i}" for i in range(classes)}
    return model


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> YOLO:
    return build(tmp_path_factory.mktemp("model"), 2)


@pytest.fixture(scope="module")
def image() -> np.ndarray:
    """Return blocks of noise, so that boxes differ from place to place."""
    noise = np.random.default_rng(1).integers(0, 256, (21, 34, 3), dtype=np.uint8)
    return cv2.resize(noise, (256, 160), interpolation=cv2.INTER_CUBIC)


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


def test_small_images_are_as_without_slicing(model: YOLO, image: np.ndarray) -> None:
    small = image[:TILE, :TILE].copy()
    sliced, plain = (model.predict(small, **options)[0] for options in (SLICED, PLAIN))
    assert torch.equal(sliced.boxes.data, plain.boxes.data) and sliced.tiles is None


def test_a_batch_holds_small_and_large_images(model: YOLO, image: np.ndarray) -> None:
    images = [image, image[:50, :60].copy(), image[:, :200].copy()]
    together = model.predict(images, **SLICED)
    for single, result in zip(images, together, strict=True):
        alone = model.predict(single, **SLICED | {"rect": False})[0]  # images of several shapes are padded to squares
        same(result.boxes.data, alone.boxes.data)


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


def test_tiles_of_several_shapes_are_run_apart() -> None:
    images = [np.full(shape, i, np.uint8) for i, shape in enumerate([(100, 200, 3), (80, 200, 3), (150, 100, 3)])]
    seen: list[tuple[int, ...]] = []

    def detect(tiles: list[np.ndarray]) -> list[torch.Tensor]:
        seen.append(np.stack(tiles).shape)
        return [torch.tensor([[1.0, 2, 3, 4, 0.5, float(tile[0, 0, 0])]]) for tile in tiles]

    found = Slicer(100, 0.2, batch=4).detect(images, detect)
    assert seen == [(4, 100, 100, 3), (1, 100, 100, 3), (3, 80, 100, 3)]  # 3 + 2 of the first and last image; 3
    for i, each in enumerate(found):
        assert each.rows[:, 5].unique().tolist() == [i] and each.sources.tolist() == [*range(len(each.tiles))]
        expected = each.tiles[:, [0, 1, 0, 1]] + np.array([1, 2, 3, 4])
        assert np.array_equal(each.rows[:, :4].numpy(), expected)


@pytest.mark.parametrize(("height", "width"), [(1, 300), (300, 1), (97, 96)])
def test_odd_shapes(model: YOLO, height: int, width: int) -> None:
    image = np.full((height, width, 3), 90, np.uint8)
    try:
        model.predict(image, **PLAIN)
    except cv2.error:
        pytest.skip("this version of upstream can't run such an image at all")
    result = model.predict(image, **SLICED)[0]
    assert result.tiles[0] == len(tile_grid(height, width, TILE, 0.25))


def test_skipping_looks_where_the_whole_image_has_hints(model: YOLO, image: np.ndarray) -> None:
    everything = PLAIN | {"conf": 0.001, "iou": 1.0, "max_det": 10_000}
    whole = model.predict(image, **everything)[0].boxes
    grid = tile_grid(*image.shape[:2], TILE, 0.25)
    for limit in (float(whole.conf.sort().values[-3]), 0.95 * float(whole.conf.max()), 0.5):
        tiles = tiles_over(whole.xyxy[whole.conf >= limit].numpy(), *image.shape[:2], TILE, 0.25)
        result = model.predict(image, **SLICED | {"slice_skip": limit})[0]
        assert result.tiles == (len(tiles), len(grid) - len(tiles))
        same(result.boxes.data, one_by_one(model, image, tiles=tiles))
    few = model.predict(image, **SLICED | {"slice_skip": float(whole.conf.max())})[0]
    assert few.tiles == (1, len(grid) - 1)
    assert model.predict(image, **SLICED | {"slice_skip": 1.0})[0].tiles == (0, len(grid))


def test_skipping_looks_at_parts_of_images_of_many_tiles(model: YOLO, image: np.ndarray) -> None:
    large = cv2.resize(image, (700, 420))  # of more than 4 tiles of 96 px a side: parts of 350 x 210
    everything = PLAIN | {"conf": 0.001, "iou": 1.0, "max_det": 10_000}
    boxes, scores = [], []
    for x in (0, 350):
        for y in (0, 210):
            found = model.predict(large[y : y + 210, x : x + 350].copy(), **everything)[0].boxes
            boxes.append(found.xyxy + torch.tensor([x, y, x, y]))
            scores.append(found.conf)
    boxes, scores = torch.cat(boxes), torch.cat(scores)
    limit = float(scores.sort().values[-4:-2].mean())
    tiles = tiles_over(boxes[scores >= limit].numpy(), 420, 700, TILE, 0.25)
    result = model.predict(large, **SLICED | {"slice_skip": limit})[0]
    assert result.tiles == (len(tiles), len(tile_grid(420, 700, TILE, 0.25)) - len(tiles)) and 1 <= len(tiles) <= 3
    same(result.boxes.data, one_by_one(model, large, tiles=tiles))


@pytest.mark.parametrize(("height", "width"), [(400, 300), (401, 300), (999, 1700), (1, 5000), (3000, 20)])
def test_parts_to_look_at_cover_the_image(height: int, width: int) -> None:
    seen, shapes, covered = torch.ones(2, 4), set(), np.zeros((height, width), bool)
    slicer = Slicer(100, batch=3, skip=0.5)
    image = np.arange(height * width, dtype=np.int32).reshape(height, width, 1)

    def look(parts: list[np.ndarray]) -> list[torch.Tensor]:
        assert 1 <= len(parts) <= 3
        for part in parts:
            shapes.add(part.shape[:2])
            covered.reshape(-1)[part.reshape(-1)] = True
        return [torch.tensor([[1.0, 2, 3, 4], [float(part[0, 0, 0]), 0, 0, 0]]) for part in parts]

    (found,) = slicer.propose([image], look, [seen])
    if max(height, width) <= 400:
        assert found is seen and not shapes
        return
    assert covered.all() and len(shapes) == 1 and max(*shapes.copy().pop()) <= 400
    starts = (found[::2] - torch.tensor([1, 2, 3, 4])).int()
    assert (starts[:, :2] == starts[:, 2:]).all()
    assert (starts[:, 1] * width + starts[:, 0]).tolist() == (found[1::2, 0].int() - starts[:, 0]).tolist()


def test_boxes_of_raw_outputs() -> None:
    raw = torch.tensor([[[10.0, 20], [30, 40], [4, 4], [6, 6], [0.2, 0.9], [0.3, 0.1]]])  # (1, 4 + 2, 2)
    one, other = [8.0, 27.0, 12.0, 33.0], [18.0, 37.0, 22.0, 43.0]
    assert [boxes.tolist() for boxes in select_boxes(raw, 0.5, 2)] == [[other]]
    assert [boxes.tolist() for boxes in select_boxes([raw, None], 0.3, 2)] == [[one, other]]
    rows = torch.tensor([[[0.0, 0, 10, 20, 0.6, 1], [0, 0, 4, 4, 0.4, 0], [8, 8, 9, 9, 0.1, 0]]])  # after NMS
    assert [boxes.tolist() for boxes in select_boxes(rows, 0.4, 2)] == [[[0, 0, 10, 20], [0, 0, 4, 4]]]


EXPORTS = {  # beside the format: what it needs, and its arguments
    "torchscript": ((), {}),
    "torchscript, nms": ((), {"nms": True}),
    "onnx": (("onnx", "onnxruntime", "onnxslim"), {}),
    "onnx, nms": (("onnx", "onnxruntime", "onnxslim"), {"nms": True}),
    "onnx, dynamic": (("onnx", "onnxruntime", "onnxslim"), {"dynamic": True}),
    "onnx, dynamic, nms": (("onnx", "onnxruntime", "onnxslim"), {"dynamic": True, "nms": True}),
    "openvino": (("openvino",), {}),
    "ncnn": (("ncnn", "pnnx"), {}),
}


@pytest.mark.parametrize("name", EXPORTS)
def test_an_exported_model_is_sliced_too(name: str, tmp_path: Path, image: np.ndarray) -> None:
    needs, options = EXPORTS[name]
    for package in needs:
        pytest.importorskip(package)
    model = build(tmp_path, 2, width=32)  # for NCNN upstream takes a smaller file for a failure
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


def test_files_are_those_of_whole_images(model: YOLO, image: np.ndarray, tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "a.png"), image)
    wanted = {"save": True, "save_txt": True, "save_conf": True, "save_crop": True}
    result = model.predict(tmp_path / "a.png", project=str(tmp_path / "runs"), name="x", **SLICED | wanted)[0]
    assert cv2.imread(str(next((tmp_path / "runs/x").glob("a.*")))).shape == image.shape
    rows = np.loadtxt(tmp_path / "runs/x/labels/a.txt")
    assert rows[:, 1:5] == pytest.approx(result.boxes.xywhn.numpy(), abs=1e-4)
    assert len(list((tmp_path / "runs/x/crops").rglob("*.jpg"))) == len(result.boxes)


TRACKERS = [name for name in ("bytetrack.yaml", "tracktrack.yaml") if (UPSTREAM / "cfg/trackers" / name).is_file()]


@pytest.mark.parametrize("tracker", TRACKERS)
def test_tracks_over_the_frames_of_a_video(model: YOLO, image: np.ndarray, tmp_path: Path, tracker: str) -> None:
    video = cv2.VideoWriter(str(tmp_path / "a.avi"), cv2.VideoWriter_fourcc(*"MJPG"), 5, image.shape[1::-1])
    for _ in range(4):
        video.write(image)
    video.release()
    sliced = list(model.track(tmp_path / "a.avi", tracker=tracker, stream=True, **SLICED))
    assert len(sliced) == 4 and all(result.tiles == (8, 0) and result.num_full > 0 for result in sliced)
    found = model.predict(image, **SLICED)[0].boxes
    assert len(sliced[3].boxes) > 0.8 * int((found.conf > 0.7).sum()) > len(model.predict(image, **PLAIN)[0].boxes)
    first, last = (set(result.boxes.id.tolist()) for result in (sliced[2], sliced[3]))
    assert len(first & last) > 0.8 * len(first)


def test_validation_measures_what_prediction_finds(tmp_path: Path, image: np.ndarray) -> None:
    model = build(tmp_path, 1)
    for split in ("train", "val"):
        (tmp_path / f"data/images/{split}").mkdir(parents=True)
        (tmp_path / f"data/labels/{split}").mkdir(parents=True)
    pictures = {"large": image, "small": image[:60, :90], "high": np.ascontiguousarray(image.transpose(1, 0, 2))}
    for name, picture in pictures.items():
        cv2.imwrite(str(tmp_path / f"data/images/val/{name}.png"), picture)
        (tmp_path / f"data/labels/val/{name}.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    data = tmp_path / "data/data.yaml"
    data.write_text("train: images/val\nval: images/val\nnames: [thing]\n")
    shared = {
        **SLICED,
        "iou": 0.6,
        "slice_full": False,
        "project": str(tmp_path / "runs"),
        "name": "val",
        "exist_ok": True,
    }
    metrics = model.val(data=str(data), batch=2, save_json=True, plots=False, **shared)
    rows = json.loads((tmp_path / "runs/val/predictions.json").read_text())
    for name, picture in pictures.items():
        boxes = torch.tensor([row["bbox"] for row in rows if str(row["file_name"]).startswith(name)])
        boxes[:, 2:] += boxes[:, :2]
        expected = model.predict(picture, **SLICED | {"iou": 0.6, "slice_full": False})[0].boxes.xyxy
        assert len(boxes) == len(expected) or name == "small"  # padded otherwise in validation, as without slicing
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


def test_training_validates_by_tiles(tmp_path: Path, image: np.ndarray, caplog: pytest.LogCaptureFixture) -> None:
    seen = []

    def at_end(validator) -> None:
        seen.append((validator.training, validator.tiles))

    model = build(tmp_path, 1)
    (tmp_path / "images").mkdir()
    (tmp_path / "labels").mkdir()
    cv2.imwrite(str(tmp_path / "images/a.png"), image)
    (tmp_path / "labels/a.txt").write_text("0 0.5 0.5 0.2 0.2\n")
    (tmp_path / "data.yaml").write_text("train: images\nval: images\nnames: [thing]\n")
    model.add_callback("on_val_end", at_end)
    small = {"epochs": 1, "imgsz": IMGSZ, "batch": 1, "workers": 0, "plots": False, "device": "cpu", "max_det": 100}
    model.train(data=str(tmp_path / "data.yaml"), slice=TILE, slice_overlap=0.25, project=str(tmp_path), **small)
    assert (True, (8, 0)) in seen
    best = YOLO(tmp_path / "train/weights/best.pt")
    size = (0.2 * 160 * 0.2 * 256) ** 0.5  # of the one object
    assert best.model.object_size == pytest.approx(size, rel=1e-4)
    assert best.model.train_scale == IMGSZ / TILE
    best.predict(image, slice="auto", imgsz=IMGSZ, verbose=False)
    assert best.predictor.slicer.tile == auto_tile(IMGSZ, size) == 96  # 64 * 40.5 / 32, to the nearest 32


def test_memory_does_not_grow_with_the_images() -> None:
    """What slicing adds to the images themselves is a batch of tiles, whatever their size and number."""
    peaks = []
    for side, count in ((2_000, 1), (5_000, 16)):
        images = [np.broadcast_to(np.zeros(3, np.uint8), (side, side, 3))] * count
        tracemalloc.start()
        found = Slicer(640, batch=4).detect(images, lambda tiles: [torch.zeros(0, 6) for _ in np.stack(tiles)])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert [len(each.tiles) for each in found] == [len(tile_grid(side, side, 640, 0.2))] * count
    batch = 4 * 640 * 640 * 3
    assert batch <= peaks[0] <= peaks[1] <= batch + 4_000_000


def test_the_side_of_tiles(model: YOLO) -> None:
    args = get_cfg(overrides={"slice": "auto"})
    assert build_slicer(get_cfg(), model, 640) is None
    assert build_slicer(args, model, 320).tile == 320  # a model that does not know the size of its objects
    model.model.object_size = 64.0
    assert build_slicer(args, model, 320).tile == auto_tile(320, 64.0) == 640
    del model.model.object_size
    assert [auto_tile(640, size) for size in (None, 4.0, 32.0, 40.0, 1000.0)] == [640, 640, 640, 800, 20_000]
    assert auto_tile(32, None) == 64
    # Half of the training images' 1920 px, as objects then look twice as large as in the training at a third of it.
    assert auto_tile(640, 20.0, 640 / 1920) == 960 and auto_tile(640, 20.0, 640 / 640) == 640
    assert auto_tile(640, 64.0, 640 / 1920) == 1280
    model.model.train_scale = 0.25
    assert build_slicer(args, model, 320).tile == 640
    del model.model.train_scale


def test_an_exported_model_gets_no_more_tiles_than_it_takes() -> None:
    args = get_cfg(overrides={"slice": 96, "slice_batch": 8})
    for metadata, more, batch in (
        ({"batch": 1, "args": {}}, {}, 1), ({"batch": "4", "args": {"dynamic": False}}, {}, 4),
        ({"batch": 1, "args": {"dynamic": True}}, {}, 8), ({"batch": 2, "args": {"dynamic": True, "nms": True}}, {}, 2),
        ({"batch": 1, "args": {}}, {"format": "torchscript"}, 8), ({}, {}, 8), (None, {}, 8),
        ({"batch": 1, "args": {"nms": True}}, {"jit": True}, 1),
    ):  # fmt: skip
        assert build_slicer(args, SimpleNamespace(metadata=metadata, **more), 64).batch == batch, metadata


def damage(video: Path, mark: bytes, frames: range) -> None:
    """Overwrite some frames of a video, which begin with a mark each."""
    data = bytearray(video.read_bytes())
    starts = [
        match.start() for match in re.finditer(re.escape(mark), bytes(data)) if match.start() > data.find(b"movi")
    ]
    for frame in frames:
        data[starts[frame] + len(mark) + 4 : starts[frame + 1]] = bytes(
            starts[frame + 1] - starts[frame] - 4 - len(mark)
        )
    video.write_bytes(data)


@pytest.mark.parametrize(
    ("corrupt", "stride"), [(range(2, 3), 1), (range(1, 4), 1), (range(2, 3), 2), (range(2, 4), 3)]
)
def test_corrupt_frames_of_a_video_are_named_and_skipped(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, corrupt: range, stride: int
) -> None:
    model = build(tmp_path, 2)  # older versions of upstream go on tracking with one that has tracked
    file, count = tmp_path / "a.avi", 8
    video = cv2.VideoWriter(str(file), cv2.VideoWriter_fourcc(*"MJPG"), 5, (256, 160))
    for number in range(count):
        video.write(np.full((160, 256, 3), 30 * number, np.uint8))
    video.release()
    damage(file, b"00dc", corrupt)
    caplog.set_level(logging.WARNING, "ultralytics")
    logging.getLogger("ultralytics").addHandler(caplog.handler)
    save = {"save_txt": True, "project": str(tmp_path), "name": "x", "conf": 0.0001, "save_conf": True}
    results = model.predict(file, **SLICED | save | {"vid_stride": stride, "save": True})
    logging.getLogger("ultralytics").removeHandler(caplog.handler)
    sampled = [number for number in range(count) if (number + 1) % stride == 0]
    read = [number for number in sampled if number not in corrupt]
    assert [round(result.orig_img.mean() / 30) for result in results] == read
    named = [number + 1 for number in sampled if number in corrupt]
    said = [record.getMessage() for record in caplog.records if "corrupt" in record.getMessage()]
    assert [message[message.index(str(file)) :] for message in said] == [
        f"{file}: frame {number} of {count} is corrupt and skipped" for number in named
    ]
    numbers = sorted(int(path.stem.rpartition("_")[2]) for path in (tmp_path / "x/labels").glob("*.txt"))
    assert numbers == [sampled.index(number) + 1 for number in read]


def test_a_model_that_cannot_slice_says_so(image: np.ndarray) -> None:
    predictor = RTDETRPredictor(overrides={"slice": 640, "imgsz": 64, "task": "detect", "save": False})
    with pytest.raises(UserError, match="slice=640 is not supported by the prediction of this kind of model"):
        predictor.setup_source(image)


def test_parts_of_results_remember_their_tiles(model: YOLO, image: np.ndarray) -> None:
    result = model.predict(image, **SLICED)[0]
    for part in (result[:2], result.cpu(), result.numpy()):
        assert (part.tiles, part.num_full) == (result.tiles, result.num_full) == ((8, 0), result.num_full)


@pytest.mark.parametrize(
    ("arguments", "error", "said"),
    [
        ({"slice": 63}, ValueError, "'slice=63' is an invalid value. 'slice' must be at least 64 pixels"),
        ({"slice": -640}, ValueError, "'slice=-640' is an invalid value"),
        ({"slice": "much"}, TypeError, "'slice=much' is invalid. 'slice' must be a whole number"),
        ({"slice": 640.5}, TypeError, "'slice=640.5' is invalid"),
        ({"slice": True}, TypeError, "'slice=True' is invalid"),
        ({"slice_overlap": 0.95}, ValueError, "'slice_overlap=0.95' is an invalid value. It must be between"),
        ({"slice_overlap": "a"}, TypeError, "'slice_overlap=a' is of invalid type str"),
        ({"slice_batch": 0}, ValueError, "'slice_batch=0' is an invalid value. 'slice_batch' must be >= 1"),
        ({"slice_skip": 1.5}, ValueError, "'slice_skip=1.5' "),
        ({"slice_full": "maybe"}, TypeError, "'slice_full' must be a bool"),
        ({"slice": 640, "task": "classify"}, ValueError, "'slice=640' is invalid for task=classify"),
        ({"slice": "auto", "task": "segment"}, ValueError, "'slice=auto' is invalid for task=segment"),
    ],
)
def test_wrong_arguments(arguments: dict, error: type[Exception], said: str) -> None:
    with pytest.raises(error) as caught:
        check_cfg(dict(arguments))
    assert said in str(caught.value)


@pytest.mark.parametrize("slice", [0, 64, 640, 640.0, "auto"])
def test_right_arguments(slice: object) -> None:
    check_cfg({"slice": slice, "task": "detect", "slice_overlap": 0.9, "slice_full": False})


def test_tensors_are_not_sliced(model: YOLO, caplog: pytest.LogCaptureFixture) -> None:
    result = model.predict(torch.rand(1, 3, IMGSZ, 2 * IMGSZ), **SLICED)[0]
    assert result.tiles is None
