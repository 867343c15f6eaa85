"""Images that are predicted by tiles."""

from __future__ import annotations

import contextlib
import functools
import math
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hypothesis import strategies as st
from ultralytics import YOLO

from small_object.slicing.tiling import tile_grid
from tests.stress.fuzz.models import tiny_model
from tests.stress.fuzz.values import ERROR, RESULT


@dataclass(frozen=True)
class ImageCase:
    """An image and the arguments of its prediction."""

    shape: tuple[int, ...]
    dtype: str
    noise: int
    file: bool
    args: dict[str, Any]


@st.composite
def images(draw: Callable[..., Any]) -> ImageCase:
    """Make an image of an odd shape and a way of slicing it."""
    side = st.one_of(st.sampled_from([1, 2, 7, 31, 63, 64, 65, 100, 129]), st.integers(1, 260))
    height, width = draw(side), draw(side)
    if draw(st.integers(0, 7)) == 0:
        height, width = draw(st.sampled_from([(7, 4000), (4000, 7), (1, 3000), (3000, 1), (1, 1), (1200, 1200)]))
    overlap = draw(st.sampled_from([0, 0.0, 0.2, 0.55, 0.9] if max(height, width) < 700 else [0, 0.2]))
    tile = draw(st.sampled_from([64, 64, 65, 96, 100, 127.0, 200, 5000, "auto"]))
    args = {
        "slice": tile, "slice_overlap": overlap, "slice_batch": draw(st.integers(1, 9)),
        "slice_full": draw(st.booleans()), "slice_skip": draw(st.sampled_from([0, 0.0, 0.3, 1.0])),
        "agnostic_nms": draw(st.booleans()), "max_det": draw(st.sampled_from([1, 50, 1000])),
        "imgsz": draw(st.sampled_from([32, 64, [32, 64]])),
    }  # fmt: skip
    channels = draw(st.sampled_from([(3,), (3,), (), (1,), (4,), (2,)]))
    dtype = draw(st.sampled_from(["uint8", "uint8", "uint16", "float32", "float64"]))
    return ImageCase((height, width, *channels), dtype, draw(st.integers(0, 3)), draw(st.booleans()), args)


@functools.cache
def tiny_detector() -> YOLO:
    """Return a model of random weights that finds something nearly everywhere."""
    torch.manual_seed(0)
    model = YOLO(tiny_model(), task="detect")
    for branch in model.model.model[-1].cv3:
        branch[-1].weight.data.mul_(20)
        branch[-1].bias.data.fill_(0.2)
    return model


def run_image(case: ImageCase, folder: Path) -> str:
    """Predict an image by tiles; where stock prediction takes it, slicing must."""
    rng = np.random.default_rng(case.noise)
    image = (rng.integers(0, 256, case.shape) * (case.noise > 0)).astype(case.dtype)
    source: Any = image
    if case.file:
        image = image.astype(np.uint16 if case.dtype == "uint16" else np.uint8)
        if image.ndim > 2 and image.shape[2] == 2:  # OpenCV writes none of two channels
            image = image[..., 0]
        source = folder / "image.png"
        assert cv2.imwrite(str(source), image)
    plain_args = {"conf": 0.4, "device": "cpu", "verbose": False, "save": False, "slice": 0}
    model = tiny_detector()
    try:
        model.predict(source, **plain_args | {k: v for k, v in case.args.items() if not k.startswith("slice")})
    except Exception as error:
        with contextlib.suppress(type(error)):  # upstream's own
            model.predict(source, **plain_args | case.args)
            raise AssertionError(f"sliced, it works; stock: {error!r}") from error
        return ERROR
    (result,) = model.predict(source, **plain_args | case.args)
    height, width = result.orig_shape
    assert (height, width) == case.shape[:2]
    boxes = result.boxes.xyxy
    assert boxes.isfinite().all() and (boxes[:, :2] >= 0).all() and (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all(), boxes
    assert len(boxes) <= case.args["max_det"]
    tile, overlap = case.args["slice"], case.args["slice_overlap"]
    tile = max(64, int(np.max(case.args["imgsz"]))) if tile == "auto" else int(tile)
    if max(height, width) <= tile:
        assert result.tiles is None
        return RESULT
    step = tile - math.ceil(round(overlap * tile, 6))
    fewest = math.prod(1 + max(0, math.ceil((length - tile) / step)) for length in (height, width))
    covered = np.zeros((height, width), bool)
    for x1, y1, x2, y2 in tile_grid(height, width, tile, overlap):
        assert 0 <= x1 < x2 <= width and 0 <= y1 < y2 <= height
        covered[y1:y2, x1:x2] = True
    assert covered.all()
    assert sum(result.tiles) == fewest and (case.args["slice_skip"] or result.tiles[1] == 0), result.tiles
    return RESULT
