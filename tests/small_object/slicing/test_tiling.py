"""Where the tiles of an image lie."""

import math

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from small_object.slicing.tiling import auto_tile, tile_grid, tiles_over


@settings(max_examples=150, deadline=None)
@given(st.integers(1, 1500), st.integers(1, 1500), st.integers(64, 800), st.floats(0, 0.9))
def test_the_fewest_tiles_cover_the_image_and_overlap_as_asked(height, width, tile, overlap):
    assume(height * width / (tile * (1 - overlap)) ** 2 < 2000)
    tiles = tile_grid(height, width, tile, overlap)
    assert tiles.dtype == np.int64
    assert tiles.tolist() == sorted(tiles.tolist(), key=lambda t: (t[1], t[0])), "row by row"
    axes = []
    for length, low, high in ((width, 0, 2), (height, 1, 3)):
        spans = np.unique(tiles[:, (low, high)], axis=0)
        shared = math.ceil(overlap * tile - 1e-9)
        assert len(spans) == max(1, math.ceil((length - shared) / (tile - shared))), "the fewest"
        assert (spans[:, 1] - spans[:, 0] == min(tile, length)).all()
        assert spans[0, 0] == 0 and spans[-1, 1] == length, "from border to border"
        gaps = np.diff(spans[:, 0])
        assert (gaps <= tile - shared).all(), "the overlap, and no pixel without a tile"
        assert not len(gaps) or np.ptp(gaps) <= 1, "evenly"
        axes.append(len(spans))
    assert len(tiles) == axes[0] * axes[1], "each column with each row"


def test_the_side_of_tiles_for_auto():
    assert len(tile_grid(100, 145, 100, 0.55)) == 2, "an overlap of 55 pixels, not of 56"
    assert [auto_tile(640, size) for size in (None, 4.0, 32.0, 40.0, 1000.0)] == [640, 640, 640, 800, 20_000]
    # Half of the training images' 1920 px: objects then look twice as large as in the training at a third of it.
    assert auto_tile(32, None) == 64 and auto_tile(640, 20.0, 640 / 1920) == 960


@pytest.mark.parametrize(
    "arguments", [(9, 9, 63, 0.2), (9, 9, 64, -0.1), (9, 9, 64, 0.91), (9, 9, 64, math.nan), (0, 9, 64, 0)]
)
def test_a_grid_refuses_what_is_out_of_range(arguments):
    with pytest.raises(ValueError):
        tile_grid(*arguments)


@st.composite
def scattered(draw):
    height, width, tile = draw(st.integers(1, 1500)), draw(st.integers(1, 1500)), draw(st.integers(64, 800))
    count, rng = draw(st.integers(0, 60)), np.random.default_rng(draw(st.integers(0, 2**32)))
    middle, half = (
        rng.uniform(0, (width, height), (count, 2)),
        rng.uniform(0, draw(st.floats(0.5, tile)) / 2, (count, 2)),
    )
    boxes = np.concatenate((middle - half, middle + half), 1)
    return boxes, height, width, tile, draw(st.floats(0, 0.5))


@settings(max_examples=200, deadline=None)
@given(scattered(), st.randoms())
def test_tiles_over_boxes_hold_each_of_them(case, random):
    boxes, height, width, tile, overlap = case
    assume(height * width / (tile * (1 - overlap)) ** 2 < 300)
    tiles = tiles_over(*case)
    grid = tile_grid(height, width, tile, overlap)
    frame = np.array([width, height] * 2)
    boxes = boxes.clip(0, frame)
    boxes = boxes[(boxes[:, :2] < boxes[:, 2:]).all(1)]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    reached = [t for t in grid.tolist() if ((middle >= t[:2]) & (middle <= t[2:])).all(1).any()]
    assert len(tiles) <= len(reached)
    assert (tiles[:, :2] >= 0).all() and (tiles[:, 2:] <= frame[:2]).all()
    assert (tiles[:, 2:] - tiles[:, :2] == np.minimum(tile, (width, height))).all()
    clear = 0 if tiles.tolist() == reached else overlap / 4 * tile
    for box, point in zip(boxes, middle, strict=True):
        fits = (box[2:] - box[:2] + 2 * clear + 2 * (tile // 64 or 1) < np.minimum(tile, (width, height))).all()
        low, high = (box[:2] - clear, box[2:] + clear) if clear and fits else (point, point)
        low, high = low.clip(0), np.minimum(high, frame[:2])
        assert ((tiles[:, :2] <= low) & (tiles[:, 2:] >= high)).all(1).any()
    order = list(range(len(boxes)))
    random.shuffle(order)
    assert tiles_over(boxes[order], *case[1:]).tolist() == tiles.tolist(), "the order does not matter"


def test_a_crowd_gets_one_tile_in_its_middle():
    crowds = [(700, 900), (2500, 900), (2600, 2100)]
    boxes = np.array([[x + i, y + i, x + i + 20, y + i + 20] for x, y in crowds for i in range(-150, 151, 10)])
    tiles = tiles_over(boxes, 3000, 4000, 640, 0.2)
    assert tiles == pytest.approx(np.array([[x - 310, y - 310, x + 330, y + 330] for x, y in crowds]), abs=10)
    assert len(tile_grid(3000, 4000, 640, 0.2)) == 48
    assert len(tiles_over(np.zeros((0, 4)), 3000, 4000, 640, 0.2)) == 0
    assert len(tiles_over(np.array([[-50, 10, -20, 30], [10, 10, 10, 40]]), 3000, 4000, 640, 0.2)) == 0, "no area"
