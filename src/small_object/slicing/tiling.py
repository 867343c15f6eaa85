"""The size and position of an image's tiles."""

import math
from typing import TypeAlias

import numpy as np

from small_object.arguments import MAX_OVERLAP, MIN_TILE
from small_object.sizes import COCO_SMALL

Tile: TypeAlias = "int | tuple[int, int]"
"""The size of a tile in pixels: its side or its (height, width)."""

MAGNIFICATION = 2.0
"""Maximum factor by which `slice=auto` shows objects larger than in training. Upstream's augmentation scales images by
up to 1.5, so a model copes with that; native size, three times as large, was worse on the demo panoramas."""


def tile_hw(tile: Tile) -> tuple[int, int]:
    """Return the (height, width) of a tile in pixels."""
    height, width = (tile, tile) if isinstance(tile, int) else tile
    return height, width


def auto_tile(imgsz: int, object_size: float | None, train_scale: float | None = None) -> int:
    """Return the side of tiles for `slice=auto`, in pixels, a multiple of 32.

    A tile is scaled to `imgsz`. It shows the median object at its native size, or at 32 px if that is larger, where
    COCO's small objects end: smaller tiles would only show less of the image. A model trained on downscaled images has
    not seen objects at native size, so tiles show them at most `MAGNIFICATION` times as large as in training.

    Args:
        imgsz: Shorter side of the model's input in pixels.
        object_size: Median √(w·h) of the objects in pixels of the images; None if unknown.
        train_scale: Median scale of the images in training, input pixels per image pixel; None if unknown.

    Example:
        >>> auto_tile(640, 20), auto_tile(640, 48), auto_tile(640, 20, train_scale=1 / 6)
        (640, 960, 1920)
    """
    native = max(1.0, (object_size or 0) / math.sqrt(COCO_SMALL))
    trained = 1 / (MAGNIFICATION * train_scale) if train_scale else 0
    return max(MIN_TILE, round(imgsz * max(native, trained) / 32) * 32)


def tile_grid(height: int, width: int, tile: Tile, overlap: float) -> np.ndarray:
    """Return the fewest evenly spaced tiles that cover an image with a minimum overlap.

    Args:
        height: Height of the image in pixels, at least 1.
        width: Width of the image in pixels, at least 1.
        tile: Side or (height, width) of a tile in pixels, at least 64. Tiles are never larger than the image.
        overlap: Minimum overlap of neighbours as a fraction of the tile, 0..0.9.

    Returns:
        Tiles, xyxy in pixels, row by row, shape (N, 4), int64.

    Raises:
        ValueError: If an argument is out of its range.

    Example:
        >>> tile_grid(640, 1000, 640, 0.2)
        array([[   0,    0,  640,  640],
               [ 360,    0, 1000,  640]])
    """
    if height < 1 or width < 1:
        raise ValueError(f"an image of {height}x{width} pixels can't be tiled")
    if min(sides := tile_hw(tile)) < MIN_TILE:
        raise ValueError(f"a tile must have at least {MIN_TILE} pixels per side, not {tile}")
    if not 0 <= overlap <= MAX_OVERLAP:
        raise ValueError(f"the overlap of tiles must be 0..{MAX_OVERLAP} of their side, not {overlap}")
    ys, xs = (_cover(*pair, overlap) for pair in zip((height, width), sides, strict=True))
    return np.array([(x1, y1, x2, y2) for y1, y2 in ys for x1, x2 in xs], dtype=np.int64)


def _cover(length: int, tile: int, overlap: float) -> list[tuple[int, int]]:
    """Return the (start, end) of the fewest evenly spaced tiles that cover a length."""
    step = tile - math.ceil(overlap * tile - 1e-9)  # 0.55 * 100 is a little more than 55
    size, count = min(tile, length), 1 + max(0, math.ceil((length - tile) / step))
    starts = [i * (length - size) // max(1, count - 1) for i in range(count)]
    return [(start, start + size) for start in starts]


def tiles_over(boxes: np.ndarray, height: int, width: int, tile: Tile, overlap: float) -> np.ndarray:
    """Return few tiles that hold all boxes: those placed as below or those of the grid, whichever are fewer.

    Placed: the leftmost box outside all tiles gets the next tile. It is the tile from the box's left side that holds
    the most boxes, centred on these. A quarter of the overlap is kept clear around each box; for a box too large for
    that, only its middle counts. Grid: the tiles that hold the middle of a box.

    Boxes, shape (N, 4), and tiles, shape (T, 4), int64, are xyxy in pixels; the other arguments are as in `tile_grid`.
    Boxes without area in the image do not count, and without boxes there are no tiles.

    Example:
        >>> tiles_over(np.array([[100, 300, 120, 320], [500, 400, 520, 440]]), 1080, 1920, 640, 0.2)
        array([[  0,  50, 640, 690]])
    """
    grid = tile_grid(height, width, tile, overlap)
    image = np.array([width, height])
    boxes = np.asarray(boxes, float).reshape(-1, 4).clip(0, np.tile(image, 2))
    boxes = boxes[(boxes[:, :2] < boxes[:, 2:]).all(1)]
    middle = (boxes[:, :2] + boxes[:, 2:]) / 2
    has = [((middle >= xyxy[:2]) & (middle <= xyxy[2:])).all(1).any() for xyxy in grid]
    grid = np.compress(has, grid, axis=0)

    sides = np.array(tile_hw(tile)[::-1])
    step, clear = max(1, int(sides.min()) // 64), overlap / 4 * sides
    size = np.minimum(sides, image)
    half = (boxes[:, 2:] - boxes[:, :2]) / 2 + clear
    half = np.where(2 * half > size - 2 * step, size / 4, half)
    low, high = np.floor((middle - half) / step) * step, np.ceil((middle + half) / step) * step  # few distinct values
    todo = np.unique(np.concatenate((low.clip(0, image), high.clip(0, image)), 1).astype(np.int64), axis=0)
    tiles: list[np.ndarray] = []
    while len(todo):  # sorted by their left sides
        if len(tiles) + 1 >= len(grid):
            return grid
        x, y = todo[0, :2]
        near = todo[todo[:, 2] <= x + size[0]]
        tops = np.unique(near[(near[:, 1] <= y) & (near[:, 1] + size[1] >= todo[0, 3]), 1])[:, None]
        inside = (near[:, 1] >= tops) & (near[:, 3] <= tops + size[1])
        held = near[inside[inside.sum(1).argmax()]]
        start = ((held[:, :2].min(0) + held[:, 2:].max(0) - size) // 2).clip(0, image - size)
        tiles.append(np.concatenate((start, start + size)))
        todo = todo[(todo[:, :2] < start).any(1) | (todo[:, 2:] > start + size).any(1)]
    return np.array(tiles, dtype=np.int64).reshape(-1, 4)
