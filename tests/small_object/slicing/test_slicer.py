"""The slicer with models that are made up."""

import tracemalloc
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from ultralytics.cfg import get_cfg

from small_object.slicing.slicer import Slicer, build_slicer
from small_object.slicing.tiling import auto_tile, tile_grid


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
        found = Slicer(640, batch=4).detect(images, lambda tiles: [torch.zeros(0, 6) for _ in np.stack(tiles)])
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
        assert build_slicer(args, SimpleNamespace(metadata=metadata, **more), 64).batch == batch, metadata


def test_auto_asks_the_model_for_its_training() -> None:
    args, model = get_cfg(overrides={"slice": "auto"}), SimpleNamespace(model=SimpleNamespace())
    assert build_slicer(get_cfg(), model, 640) is None
    assert build_slicer(args, model, 320).tile == 320  # a model that does not know the size of its objects
    model.model.object_size = 64.0
    assert build_slicer(args, model, 320).tile == auto_tile(320, 64.0) == 640
    model.model.object_size, model.model.train_scale = 20.0, 0.25
    assert build_slicer(args, model, 320).tile == auto_tile(320, 20.0, 0.25) == 640
