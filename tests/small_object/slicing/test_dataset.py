import pickle
import random
from collections import Counter
from copy import deepcopy
from pathlib import Path
from types import SimpleNamespace

import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.data.build import build_yolo_dataset
from ultralytics.data.dataset import YOLODataset
from ultralytics.models.yolo.detect.train import DetectionTrainer
from ultralytics.utils import LOGGER, YAML

from small_object.slicing.dataset import SlicedDataset, cut_polygon
from small_object.slicing.tiling import tile_grid
from tests.helpers.common import write_set

TILE = 128
HW = (300, 500)
# xyxy in pixels; the last two lie so near to others that tiles round those often cut them
CORNERS = [(20, 30, 50, 54), (200, 10, 212, 22), (380, 240, 440, 290), (250, 90, 310, 110), (90, 60, 140, 120)]


def draw(folder: Path, boxes: list[list[tuple[int, ...]]], hw: tuple[int, int] = HW) -> Path:
    """Write a data set: box i of an image has colour 40 * (i + 1) and class i on black; return the folder."""
    samples, (height, width) = {}, hw
    for i, drawn in enumerate(boxes):
        image, rows = np.zeros((*hw, 3), np.uint8), []
        for c, (x1, y1, x2, y2) in enumerate(drawn):
            image[y1:y2, x1:x2] = 40 * (c + 1)
            xywh = (x1 + x2) / 2 / width, (y1 + y2) / 2 / height, (x2 - x1) / width, (y2 - y1) / height
            rows.append(" ".join(map(str, (c, *xywh))) + "\n")
        samples[f"train/{i}"] = image, "".join(rows)
    write_set(folder, samples, "abcde")
    return folder


def built(
    folder: Path, cls: type = SlicedDataset, imgsz: int = TILE, cache: str | None = None, task: str = "detect",
    channels: int = 3, **args,
) -> YOLODataset:  # fmt: skip
    """Return a data set of the class for training on a folder of `draw` or `draw_polygons`."""
    options = {"slice": TILE, "slice_full_ratio": 0.0, "slice_empty": 0.0, **args}
    return cls(
        img_path=str(folder / "images/train"),
        imgsz=imgsz,
        batch_size=2,
        hyp=get_cfg(overrides=options),
        cache=cache,
        rect=options.get("rect", False),
        task=task,
        data={"names": dict(enumerate("abcde")), "channels": channels, "kpt_shape": [4, 3]},
    )


def sample_boxes(sample: dict) -> tuple[np.ndarray, np.ndarray]:
    """Return the classes and the boxes of a sample, xyxy in pixels of its image."""
    instances = sample["instances"]
    instances.convert_bbox("xyxy")
    height, width = sample["img"].shape[:2]
    boxes = instances.bboxes * (width, height, width, height) if instances.normalized else instances.bboxes
    return sample["cls"].ravel().astype(int), boxes


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return draw(tmp_path / "data", [CORNERS, CORNERS[:1], []])


def seen(image: np.ndarray) -> dict[int, tuple[int, int, int, int]]:
    """Return the box around the pixels of each class that an image shows."""
    found = {}
    for value in np.unique(image[..., 0][image[..., 0] > 0]):
        y, x = np.nonzero(image[..., 0] == value)
        found[int(value) // 40 - 1] = (x.min(), y.min(), x.max() + 1, y.max() + 1)
    return found


@pytest.mark.parametrize("keep", [0.0, 0.4, 0.8, 1.0])
def test_boxes_lie_on_their_pixels_and_are_dropped_by_what_is_left_of_them(folder, keep):
    data, dropped, cut = built(folder, slice_keep=keep, cache="ram"), 0, 0
    random.seed(3)
    for _ in range(200):
        sample = data.get_image_and_label(0)
        assert sample["img"].shape == (TILE, TILE, 3) and sample["img"].flags.writeable
        assert sample["ori_shape"] == sample["resized_shape"] == (TILE, TILE)
        assert sample["instances"].bboxes.dtype == np.float32
        shares, pixels = {}, seen(sample["img"])
        for c, box in pixels.items():
            full = (CORNERS[c][2] - CORNERS[c][0]) * (CORNERS[c][3] - CORNERS[c][1])
            shares[c] = (box[2] - box[0]) * (box[3] - box[1]) / full
        expected = {c: pixels[c] for c, share in shares.items() if share >= keep}
        dropped += len(pixels) > len(expected)
        cut += any(keep <= share < 1 for share in shares.values())
        classes, boxes = sample_boxes(sample)
        assert classes.tolist() == sorted(expected), "an object is in every tile, and only those that are left"
        assert len(classes)
        np.testing.assert_allclose(boxes, [expected[c] for c in sorted(expected)], atol=1e-3)
    assert (cut > 0) == (keep < 1) and (dropped > 0) == (keep > 0)


def test_a_tile_lies_anywhere_and_an_object_anywhere_in_it(folder):
    data = built(folder, cache="ram")
    random.seed(0)
    starts = Counter()
    for _ in range(400):  # the second image has one object, at x 20..50 and y 30..54
        (x1, y1, x2, y2) = sample_boxes(data.get_image_and_label(1))[1][0].round().astype(int)
        assert (x2 - x1, y2 - y1) == (30, 24)
        starts[20 - x1, 30 - y1] += 1
    assert {x for x, _ in starts} == set(range(21)) and {y for _, y in starts} == set(range(31))
    corners = [data._choose(*HW, np.empty((0, 4)), [])[:2] for _ in range(2000)]  # without objects
    for values, length in zip(np.array(corners).T, HW[::-1], strict=True):
        counts = np.histogram(values, bins=4, range=(0, length - TILE + 1))[0]
        assert values.min() <= 3 and values.max() >= length - TILE - 3
        assert (abs(counts / 2000 - 0.25) < 0.05).all()


@pytest.mark.parametrize("full, empty", [(0.2, 0.1), (0.7, 1.0), (1.0, 0.5), (0.0, 0.0)])
def test_shares_of_whole_images_and_of_empty_tiles(folder, full, empty):
    data = built(folder, slice_full_ratio=full, slice_empty=empty, cache="ram")
    random.seed(1)
    kinds = Counter()
    for _ in range(600):
        sample = data.get_image_and_label(0)
        whole = sample["ori_shape"] == HW
        kinds["whole" if whole else "object" if len(sample["cls"]) else "empty"] += 1
        if not whole and not len(sample["cls"]):
            assert not sample["img"].any(), "no part of an object"
    assert kinds["whole"] / 600 == pytest.approx(full, abs=0.05)
    assert kinds["empty"] / max(1, 600 - kinds["whole"]) == pytest.approx(empty if full < 1 else 0, abs=0.06)


def test_an_image_without_empty_places_or_objects_that_fit(tmp_path):
    crowd = [(x, y, x + 40, y + 30) for x in range(0, 500, 50) for y in range(0, 300, 40)]
    folder = draw(tmp_path / "data", [crowd[:4], [(0, 0, 500, 300)], [(0, 100, 500, 130)]])
    data = built(folder, slice_empty=1.0)
    data.labels[0]["bboxes"] = np.array(
        [[(x1 + x2) / 1000, (y1 + y2) / 600, 0.08, 0.1] for x1, y1, x2, y2 in crowd], np.float32
    )
    data.labels[0]["cls"] = np.zeros((len(crowd), 1), np.float32)
    random.seed(0)
    for _ in range(20):
        assert len(data.get_image_and_label(0)["cls"]), "no empty tile: one round an object"
        assert data.get_image_and_label(1)["ori_shape"] == HW, "larger than any tile may show: the whole image"
    data.keep, data.empty = 0.2, 0.0
    wide = [sample_boxes(data.get_image_and_label(2)) for _ in range(200)]
    shown = [boxes[0] for classes, boxes in wide if len(classes)]
    assert len(shown) == 200 and all(np.allclose(b[[0, 2]], (0, TILE), atol=1e-3) for b in shown), "it fills the tile"


def same(a: dict, b: dict) -> None:
    assert a.keys() == b.keys()
    for key in a.keys() - {"instances"}:
        np.testing.assert_array_equal(a[key], b[key], err_msg=key)
        assert type(a[key]) is type(b[key]), key
    for name in ("bboxes", "segments"):
        x, y = (getattr(s["instances"], name) for s in (a, b))
        np.testing.assert_array_equal(x, y)
        assert x.dtype == y.dtype
    assert a["instances"].normalized == b["instances"].normalized
    assert a["instances"]._bboxes.format == b["instances"]._bboxes.format


@pytest.mark.parametrize("cache, imgsz", [(None, 64), (None, 500), (None, 704), ("ram", 320), ("disk", 500)])
def test_whole_images_are_upstreams(folder, cache, imgsz):
    random.seed(5)
    state = random.getstate()
    small = built(folder, slice=500, cache=cache, imgsz=imgsz)  # no larger than a tile
    stock = built(folder, YOLODataset, cache=cache, imgsz=imgsz)
    always = built(folder, slice_full_ratio=1.0, cache=cache, imgsz=imgsz)
    assert len(small) == len(stock) == 3
    random.setstate(state)
    for i in range(3):
        same(small.get_image_and_label(i), stock.get_image_and_label(i))
        assert random.getstate() == state, "no random number drawn"
    for i in range(3):
        same(always.get_image_and_label(i), stock.get_image_and_label(i))


@pytest.mark.parametrize("cache", [None, "ram", "disk"])
def test_the_same_seed_gives_the_same_sample(folder, cache):
    def samples(data) -> list[dict]:
        random.seed(11)
        np.random.seed(11)
        return [data[i] for i in (0, 1, 2, 0)]

    data = built(folder, slice_full_ratio=0.2, slice_empty=0.1, cache=cache, mixup=0.5)
    again = pickle.loads(pickle.dumps(data))
    first, again = samples(data), samples(again)
    for a, b in zip(first, again, strict=True):
        assert a["img"].shape == (3, TILE, TILE)
        assert torch.equal(a["img"], b["img"]) and torch.equal(a["bboxes"], b["bboxes"])
    assert not torch.equal(first[0]["img"], first[3]["img"]), "another tile at another access"


def test_the_cache_in_ram_holds_whole_images(folder, monkeypatch):
    data = built(folder, cache="ram")
    for i, file in enumerate(data.im_files):
        np.testing.assert_array_equal(data.ims[i], cv2.imread(file))
        assert data.im_hw0[i] == data.im_hw[i] == HW
        Path(file).unlink()
    assert data.get_image_and_label(0)["img"].shape == (TILE, TILE, 3), "nothing is read from the disk"
    folder = draw(folder.parent / "other", [CORNERS] * 2)
    size = 2 * HW[0] * HW[1] * 3  # upstream wants up to twice the room
    for room, cache in ((2 * size, "ram"), (size * 3 // 4, None)):
        monkeypatch.setattr("psutil.virtual_memory", lambda room=room: SimpleNamespace(available=room, total=room))
        assert built(folder, cache="ram").cache == cache, "counted at full size"


def test_the_cache_on_disk_is_of_whole_images_and_only_mapped(folder, monkeypatch):
    data = built(folder, cache="disk")
    for file, cached in zip(data.im_files, data.npy_files, strict=True):
        np.testing.assert_array_equal(np.load(cached), cv2.imread(file))
    monkeypatch.setattr("small_object.slicing.dataset.imread", None)
    assert isinstance(data._read(0), np.memmap)
    random.seed(2)
    mapped = data.get_image_and_label(0)
    assert type(mapped["img"]) is np.ndarray and mapped["img"].flags.writeable
    random.seed(2)
    monkeypatch.undo()
    for cached, content in zip(data.npy_files, (b"", b"no array", data.npy_files[2].read_bytes()[:1000]), strict=True):
        cached.write_bytes(content)  # which is read anew
    same(mapped, data.get_image_and_label(0))


def test_grey_images_and_polygons(folder):
    (folder / "labels/train/1.txt").write_text("0 0.1 0.1 0.2 0.1 0.2 0.2 0.1 0.2\n")
    data = built(folder, imgsz=64, channels=1, slice_full_ratio=0.2)
    random.seed(0)
    for i in (0, 1, 2) * 10:
        sample = data.get_image_and_label(i)
        assert sample["img"].shape[2] == 1 and max(sample["img"].shape) == 64
        assert not len(sample["instances"].segments)
        data[i]


def trainer(**args) -> DetectionTrainer:
    """Return as much of a trainer as building a data set takes."""
    it = DetectionTrainer.__new__(DetectionTrainer)
    it.args, it.data = get_cfg(overrides={"imgsz": 64, "task": "detect", **args}), {"names": dict(enumerate("abcde"))}
    it.model = SimpleNamespace(stride=torch.tensor([32.0]))
    return it


def test_slice_auto_becomes_a_number_for_all_that_reads_the_arguments(folder, tmp_path, monkeypatch):
    lines: list[str] = []
    monkeypatch.setattr(LOGGER, "info", lambda message, *_: lines.append(str(message)))
    with pytest.raises(ValueError, match="rect=True can't be used with slice in training"):
        trainer(slice=64, rect=True).build_dataset(str(folder / "images/train"), "train", 2)
    it = trainer(slice="auto")
    it.save_dir = tmp_path
    assert it.build_dataset(str(folder / "images/train"), "train", 2).tile == (it.args.slice,) * 2 == (64, 64)
    assert YAML.load(tmp_path / "args.yaml")["slice"] == 64
    named = [line for line in lines if "slice:" in line]
    assert len(named) == 1 and "64 px" in named[0] and "native size" in named[0]


def test_the_trainer_passes_on_upstreams_arguments(folder, monkeypatch):
    """Upstream has no argument for the class, so the trainer passes what `build_yolo_dataset` would."""
    given: list[dict] = []
    for kind in (SlicedDataset, YOLODataset):
        monkeypatch.setattr(kind, "__init__", lambda self, **options: given.append(options))
    monkeypatch.setattr(SlicedDataset, "tile", 64, raising=False)
    it, images = trainer(slice=64, cache="disk", fraction=0.5, classes=[1], single_cls=True), str(folder)
    it.build_dataset(images, "train", 2)
    build_yolo_dataset(it.args, images, 2, it.data, mode="train", rect=False, stride=32)
    assert given[0] == given[1]
    assert type(it.build_dataset(images, "val", 2)) is type(trainer().build_dataset(images, "train", 2)) is YOLODataset


def draw_polygons(folder: Path, task: str) -> Path:
    """Write an image of four-cornered objects with one colour each; return the data set's folder."""
    near = [(40, 30), (80, 45), (72, 65), (32, 50)], [(95, 30), (150, 35), (130, 80), (100, 60)]
    shapes = [np.array(xy) for xy in (*near, [(400, 200), (480, 210), (470, 290), (390, 280)])]
    image, rows = np.zeros((*HW, 3), np.uint8), []
    for c, xy in enumerate(shapes):
        cv2.fillPoly(image, [xy], (40 * (c + 1),) * 3)
        corners = (xy / HW[::-1]).reshape(-1)
        if task == "pose":
            (x1, y1), (x2, y2) = xy.min(0) / HW[::-1], xy.max(0) / HW[::-1]
            corners = [(x1 + x2) / 2, (y1 + y2) / 2, x2 - x1, y2 - y1, *np.insert(corners, [2, 4, 6, 8], 2)]
        rows.append(" ".join(map(str, (c, *corners))) + "\n")
    write_set(folder, {"train/0": (image, "".join(rows))}, "abcde")
    return folder


@pytest.mark.parametrize("task", ["obb", "segment", "pose"])
def test_samples_leave_the_labels_as_they_are(tmp_path: Path, task: str) -> None:
    data = built(draw_polygons(tmp_path, task), task=task, slice_full_ratio=1.0, mosaic=0.0)
    before = deepcopy(data.labels)
    for _ in range(3):
        data[0]
    for name in ("bboxes", "keypoints", "segments"):
        np.testing.assert_equal(data.labels[0][name], before[0][name])


@pytest.mark.parametrize("task", ["obb", "segment", "pose"])
def test_polygons_corners_and_keypoints_are_cut_at_tiles(tmp_path: Path, task: str) -> None:
    """The rest of each object is where its colour is in the tile."""
    keep = 0.4
    data = built(draw_polygons(tmp_path, task), task=task, slice_keep=keep)
    whole, cut = cv2.imread(data.im_files[0]), 0
    sizes = [int((whole[..., 0] == 40 * (c + 1)).sum()) for c in range(3)]
    for _ in range(60):
        sample = data.get_image_and_label(0)
        image, instances, classes = sample["img"], sample["instances"], sample["cls"].ravel().astype(int)
        instances.convert_bbox("xyxy")
        instances.denormalize(*image.shape[1::-1])
        for c in range(3):
            seen = image[..., 0] == 40 * (c + 1)
            if task != "pose" and abs(seen.sum() / sizes[c] - keep) > 0.05:
                assert (c in classes) == (seen.sum() > keep * sizes[c])
        for k, c in enumerate(classes):
            seen, drawn = image[..., 0] == 40 * (c + 1), np.zeros(image.shape[:2], np.uint8)
            cut += 0 < seen.sum() < 0.95 * sizes[c]
            if task == "pose":
                inside = instances.keypoints[k, :, 2] > 0
                for x, y in instances.keypoints[k, inside, :2]:
                    x, y = int(min(x, TILE - 1)), int(min(y, TILE - 1))
                    assert seen[max(0, y - 2) : y + 3, max(0, x - 2) : x + 3].any()
                assert inside.any() and (inside.all() or seen.sum() != sizes[c])
                continue
            cv2.fillPoly(drawn, [np.rint(instances.segments[k]).astype(int)], 1)
            assert (drawn.astype(bool) & seen).sum() > 0.93 * (drawn.astype(bool) | seen).sum()
            assert (
                np.abs(instances.bboxes[k] - [*instances.segments[k].min(0), *instances.segments[k].max(0)]).max() < 1
            )
    assert cut > 10


def test_the_cut_of_a_polygon_is_that_of_its_pixels() -> None:
    rng = np.random.default_rng(2)
    for _ in range(40):
        polygon = rng.integers(0, 200, (int(rng.integers(3, 8)), 2)).astype(float)
        angle = np.argsort(np.arctan2(*(polygon - polygon.mean(0)).T))  # a star, often not convex
        window = tuple(sorted(rng.integers(0, 100, 2))) + tuple(sorted(rng.integers(101, 200, 2)))
        window = window[0], window[1], window[2], window[3]
        whole, part = np.zeros((2, 200, 200), np.uint8)
        cv2.fillPoly(whole, [polygon[angle].astype(int)], 1)
        if len(cut := cut_polygon(polygon[angle], window)):
            cv2.fillPoly(part, [np.rint(cut).astype(int)], 1)
        expected = np.zeros_like(whole)
        expected[window[1] : window[3] + 1, window[0] : window[2] + 1] = 1
        expected &= whole
        outline = cv2.morphologyEx(expected, cv2.MORPH_GRADIENT, np.ones((5, 5), np.uint8))
        assert not ((part != expected) & (outline == 0)).sum() > 0.02 * max(1, expected.sum())


def test_an_epoch_has_as_many_samples_as_asked_but_no_more_than_tiles(folder: Path) -> None:
    count = len(tile_grid(*HW, TILE, 0.2))
    for asked in (1, 3, 1000):
        data = built(folder, slice_samples=asked)
        assert len(data) == data.ni * min(asked, count)
        assert Counter(data.order.tolist()) == dict.fromkeys(range(data.ni), min(asked, count))
        assert data.buffer == list(range(len(data)))  # mosaics take their other images from all samples, or these
        files = [data.get_image_and_label(index)["im_file"] for index in range(len(data))]
        assert files == [data.im_files[image] for image in data.order]
