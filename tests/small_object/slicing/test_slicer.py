"""The slicer with models that are made up."""

import math
import tracemalloc
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg
from ultralytics.utils.metrics import mask_iou

from small_object.errors import UserError
from small_object.slicing.masks import Crop, CropMasks, crop_ious, join_crops
from small_object.slicing.objects import Objects
from small_object.slicing.region import read_region
from small_object.slicing.slicer import Slicer, TileDetections, build_slicer
from small_object.slicing.tiling import auto_tile, tile_grid
from small_object.slicing.validator import select_targets


def test_tiles_of_several_shapes_are_run_apart() -> None:
    images = [np.full(shape, i, np.uint8) for i, shape in enumerate([(100, 200, 3), (80, 200, 3), (150, 100, 3)])]
    seen: list[tuple[int, ...]] = []

    def detect(tiles: list[np.ndarray]) -> list[Objects]:
        seen.append(np.stack(tiles).shape)
        return [Objects(torch.tensor([[1.0, 2, 3, 4, 0.5, float(tile[0, 0, 0])]])) for tile in tiles]

    found = Slicer(100, 0.2, batch=4).detect(images, detect)
    assert seen == [(4, 100, 100, 3), (1, 100, 100, 3), (3, 80, 100, 3)]  # 3 + 2 of the first and last image; 3
    for i, each in enumerate(found):
        assert each.objects.rows[:, 5].unique().tolist() == [i] and each.sources.tolist() == [*range(len(each.tiles))]
        expected = each.tiles[:, [0, 1, 0, 1]] + np.array([1, 2, 3, 4])
        assert np.array_equal(each.objects.rows[:, :4].numpy(), expected)


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


def test_memory_does_not_grow_with_the_images() -> None:
    """What slicing adds to the images themselves is a batch of tiles, whatever their size and number."""
    peaks = []
    for side, count in ((2_000, 1), (5_000, 16)):
        images = [np.broadcast_to(np.zeros(3, np.uint8), (side, side, 3))] * count
        tracemalloc.start()
        found = Slicer(640, batch=4).detect(images, lambda tiles: [Objects(torch.zeros(0, 6)) for _ in np.stack(tiles)])
        peaks.append(tracemalloc.get_traced_memory()[1])
        tracemalloc.stop()
        assert [len(each.tiles) for each in found] == [len(tile_grid(side, side, 640, 0.2))] * count
    batch = 4 * 640 * 640 * 3
    assert batch <= peaks[0] <= peaks[1] <= batch + 4_000_000


def test_an_exported_model_gets_no_more_tiles_than_it_takes() -> None:
    args = get_cfg(overrides={"slice": 96, "slice_batch": 8})
    for metadata, more, batch in (
        ({"batch": 1, "args": {}}, {}, 1), ({"batch": "4", "args": {"dynamic": False}}, {}, 4),
        ({"batch": 1, "args": {"dynamic": True}}, {}, 8), ({"batch": 2, "args": {"dynamic": True, "nms": True}}, {}, 2),
        ({"batch": 1, "args": {}}, {"format": "torchscript"}, 8), ({}, {}, 8), (None, {}, 8),
        ({"batch": 1, "args": {"nms": True}}, {"jit": True}, 1),
    ):  # fmt: skip
        assert build_slicer(args, SimpleNamespace(metadata=metadata, **more), (64, 64)).batch == batch, metadata


def test_auto_asks_the_model_for_its_training() -> None:
    args, model = get_cfg(overrides={"slice": "auto"}), SimpleNamespace(model=SimpleNamespace())
    assert build_slicer(get_cfg(), model, (640, 640)) is None
    assert build_slicer(args, model, (320, 320)).tile == 320  # a model that does not know the size of its objects
    model.model.object_size = 64.0
    assert build_slicer(args, model, (320, 320)).tile == auto_tile(320, 64.0) == 640
    model.model.object_size, model.model.train_scale = 20.0, 0.25
    assert build_slicer(args, model, (320, 320)).tile == auto_tile(320, 20.0, 0.25) == 640
    assert build_slicer(args, model, (320, 480)).tile == (640, 960)  # the input's aspect
    for scale, *expected in ((0.25, 8 / 320, 0), (0.4, math.inf, 0), (None, math.inf, 0), (0.5, math.inf, 128)):
        model.model.train_scale = scale
        slicer = build_slicer(get_cfg(overrides={"slice": 640}), model, (320, 320))
        assert [slicer.detail, slicer.min_whole] == expected  # tiles have a scale of 0.5
    whole = Objects(torch.tensor([[0.0, 0, 127, 20, 0.9, 0], [0, 300, 20, 428, 0.9, 0]]))  # the last one is kept
    nothing = TileDetections(
        Objects(torch.zeros(0, 6)), torch.zeros(0, dtype=torch.long), tile_grid(640, 1000, 640, 0.2), 0
    )
    assert torch.equal(slicer.merge((640, 1000), nothing, whole)[0].rows, whole.rows[1:])
    skipped = replace(nothing, tiles=nothing.tiles[1:])  # no tile shows the first one
    assert torch.equal(slicer.merge((640, 1000), skipped, whole)[0].rows, whole.rows)


def test_without_tiles_and_the_whole_image_nothing_remains_in_the_format_of_the_task() -> None:
    rows = torch.tensor([[0.0, 0, 20, 20, 0.9, 0]])
    whole = Objects(rows, rotated=torch.zeros(1, 5), keypoints=torch.zeros(1, 3, 2))
    (nothing,) = Slicer(64).detect([np.zeros((100, 100, 3), np.uint8)], lambda tiles: [], [torch.zeros(0, 4)])
    found, _ = Slicer(64, full=False).merge((100, 100), nothing, whole)
    assert [len(found), *found.rotated.shape, *found.keypoints.shape] == [0, 0, 5, 0, 3, 2]


def test_one_class_may_be_a_number() -> None:
    args = get_cfg(overrides={"slice": 64, "classes": 1})
    assert build_slicer(args, SimpleNamespace(), (64, 64)).classes == (1,)


def test_a_model_of_tiles_alone_skips_the_whole_image() -> None:
    for tiles_only, given, full in ((0, None, True), (1, None, False), (1, True, True), (0, False, False)):
        args, model = get_cfg(overrides={"slice": 320, "slice_full": given}), SimpleNamespace(tiles_only=tiles_only)
        for each in (SimpleNamespace(model=model), SimpleNamespace(metadata=vars(model))):
            assert build_slicer(args, each, (320, 320)).full is full


def test_a_region_leaves_out_tiles_and_objects(tmp_path: Path) -> None:
    cv2.imwrite(str(tmp_path / "left.png"), np.repeat(np.uint8([[255, 0]]), 50, 1).repeat(60, 0))
    (tmp_path / "left.yaml").write_text("polygons: [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]")
    image, looked = np.zeros((300, 500, 3), np.uint8), []

    def detect(tiles: list[np.ndarray]) -> list[Objects]:
        """Find an object in the middle of each tile."""
        looked.extend(tiles)
        return [Objects(torch.tensor([[40.0, 40, 60, 60, 0.9, 0]])) for _ in tiles]

    everywhere = tile_grid(300, 500, 100, 0.2)
    for name in ("left.png", "left.yaml"):
        slicer = Slicer(100, region=read_region(tmp_path / name))
        looked.clear()
        (found,) = slicer.detect([image], detect)
        assert found.tiles.tolist() == everywhere[everywhere[:, 0] <= 250 - (name == "left.png")].tolist()
        assert len(looked) == len(found.tiles) and found.skipped == 0
        merged, _ = slicer.merge((300, 500), found, Objects(torch.tensor([[300.0, 40, 360, 60, 0.9, 0]])))
        assert len(merged) == sum(x1 + 50 <= 250 for x1 in found.tiles[:, 0]) < len(found.tiles)
        (proposed,) = slicer.detect([image], detect, [torch.tensor([[10.0, 10, 20, 20], [400, 10, 420, 20]])])
        assert len(proposed.tiles) == 1 and proposed.skipped == len(found.tiles) - 1


@pytest.mark.parametrize("overlap_mask", [True, False])
def test_a_region_leaves_out_targets_with_their_masks(tmp_path: Path, overlap_mask: bool) -> None:
    """There are as many objects as images."""
    (tmp_path / "left.yaml").write_text("polygons: [[[0, 0], [0.5, 0], [0.5, 1], [0, 1]]]")
    masks = torch.zeros(2, 4, 4)
    masks[0, :, 2:], masks[0 if overlap_mask else 1, :, :2] = 1, 2 if overlap_mask else 1
    batch = {"img": torch.zeros(2, 3, 16, 16), "batch_idx": torch.zeros(2), "masks": masks}
    batch |= {"bboxes": torch.tensor([[0.75, 0.5, 0.5, 1], [0.25, 0.5, 0.5, 1]]), "cls": torch.tensor([[0.0], [1.0]])}
    batch |= {"ori_shape": [(16, 16)] * 2, "ratio_pad": [((1.0, 1.0), (0.0, 0.0))] * 2}
    select_targets(batch, read_region(tmp_path / "left.yaml"), overlap_mask)
    assert batch["cls"].tolist() == [[1.0]] and len(batch["bboxes"]) == 1
    assert batch["masks"].shape[0] == 1 + overlap_mask and not batch["masks"][1:].any()
    assert batch["masks"][0].tolist() == [[1, 1, 0, 0]] * 4


@pytest.mark.parametrize(("name", "content", "reason"), [
    ("a.yaml", "polygons: [[[0, 0], [1, 1]]]", "give a mask image, or a YAML"),
    ("a.yaml", "polygons: [[[0, 0], [20, 0], [20, 30]]]", "x and y from 0 to 1"),
    ("a.yaml", "[", "give a mask image, or a YAML"), ("a.yaml", "points: 3", "give a mask image, or a YAML"),
    ("a.png", "no image", "can't be read as an image"), ("b.png", None, "no such file"),
    ("a.png", np.zeros((20, 20)), "is black everywhere"), ("a.png", np.full((20, 20), 255), "aspect ratio"),
])  # fmt: skip
def test_a_region_that_is_none_is_named(tmp_path: Path, name: str, content: Any, reason: str) -> None:
    if isinstance(content, str):
        (tmp_path / name).write_text(content)
    elif content is not None:
        cv2.imwrite(str(tmp_path / name), content)
    with pytest.raises(UserError, match=f"{name}.*{reason}"):
        read_region(tmp_path / name).build_mask((30, 60))
    with pytest.raises(UserError, match=r"slice_roi=\[\[0, 1\]\]: no such file"):
        read_region([[0, 1]])


def test_masks_of_a_large_frame_stay_small() -> None:
    """300 objects of 100 px in a frame of 3840x2160 px: their whole masks would take 2.5 GB."""
    rng, frame = np.random.default_rng(0), (2160, 3840)
    tracemalloc.start()
    corners = rng.integers(0, (frame[1] - 100, frame[0] - 100), (300, 2))
    masks = CropMasks([Crop(int(x), int(y), np.ones((100, 100), np.uint8)) for x, y in corners], frame)
    joined = [join_crops([crop, crop.shifted(50, 0)]) for crop in masks.crops]
    masks.paint(np.zeros((*frame, 3), np.uint8), [(0, 0, 255)] * 300)
    assert masks.shape == (300, *frame) and len(masks.xy) == 300 and joined[0].mask.shape == (100, 150)
    assert tracemalloc.get_traced_memory()[1] < 100e6
    tracemalloc.stop()
    some = masks[torch.tensor([3, 7])]
    assert some.data.shape == (2, *frame) and some.data.sum().item() == 2 * 100**2
    assert np.array_equal(some.numpy().data[0, corners[3, 1] + 50], some.data[0, corners[3, 1] + 50].numpy())


def test_ious_of_masks_are_those_of_whole_masks() -> None:
    rng = np.random.default_rng(1)
    groups = [
        [Crop(*rng.integers(0, 30, 2).tolist(), rng.integers(0, 2, rng.integers(5, 25, 2), np.uint8)) for _ in range(9)]
        for _ in range(2)
    ]
    whole = [CropMasks(group, (60, 60)).data.flatten(1).float() for group in groups]
    torch.testing.assert_close(torch.from_numpy(crop_ious(*groups)), mask_iou(*whole), atol=1e-5, rtol=1e-5)


def test_a_batch_of_tiles_is_as_large_as_memory_allows(monkeypatch: pytest.MonkeyPatch) -> None:
    """With a GPU that is made up: a tile takes 100 bytes, and 2,000 are free."""
    sizes: list[int] = []
    monkeypatch.setattr(torch.cuda, "reset_peak_memory_stats", lambda: None)
    for name, value in {"memory_allocated": 500, "memory_reserved": 700, "mem_get_info": (1800, 9999)}.items():
        monkeypatch.setattr(torch.cuda, name, lambda value=value: value)
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda: 500 + 100 * sizes[-1])

    def detect(tiles: list[np.ndarray]) -> list[Objects]:
        sizes.append(len(tiles))
        return [Objects(torch.zeros(0, 6)) for _ in tiles]

    (found,) = Slicer(100, batch=0).detect([np.zeros((500, 500, 3), np.uint8)], detect)
    assert sum(sizes) == len(found.tiles) and sizes[:3] == [1, 1, 10]
    args = get_cfg(overrides={"slice": 96, "slice_batch": 0})
    for device, metadata, batch in (("cpu", None, 8), ("cuda:0", None, 0), ("cuda:0", {"batch": 2, "args": {}}, 2)):
        model = SimpleNamespace(metadata=metadata)
        assert build_slicer(args, model, (64, 64), torch.device(device)).batch == batch, device
