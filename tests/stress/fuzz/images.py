"""Images that are predicted by tiles, and exports whose inputs are not square."""

import contextlib
import functools
import math
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch
from hypothesis import strategies as st
from ultralytics import YOLO

from tests.helpers.common import build_detector
from tests.stress.fuzz.data import write_set
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
    return build_detector(Path(tempfile.mkdtemp(prefix="fuzz-model-")), 2)


def assert_inside(boxes: torch.Tensor, width: int, height: int) -> None:
    """Assert that boxes (N, 4), xyxy in pixels, lie in an image."""
    assert boxes.isfinite().all() and (boxes[:, :2] >= 0).all() and (boxes[:, :2] <= boxes[:, 2:]).all()
    assert (boxes[:, 2] <= width).all() and (boxes[:, 3] <= height).all(), boxes


def count_tiles(image_hw: tuple[int, int], tile: Any, imgsz: Any, overlap: float) -> int:
    """Return how many tiles of the input's aspect an image has."""
    input_hw, count = np.broadcast_to(imgsz, 2), 1
    for length, side in zip(image_hw, input_hw.tolist(), strict=True):
        scale = max(1, 64 / input_hw.min()) if tile == "auto" else tile / input_hw.max()
        own = max(64, round(side * scale))
        count *= 1 + max(0, math.ceil((length - own) / (own - math.ceil(round(overlap * own, 6)))))
    return count


def run_image(case: ImageCase, folder: Path) -> str:
    """Predict an image by tiles; where stock prediction takes it, slicing must."""
    rng = np.random.default_rng(case.noise)
    image = (rng.integers(0, 256, case.shape) * (case.noise > 0)).astype(case.dtype)
    source: Any = image
    if case.file:
        image = image.astype(np.uint16) * 257 if case.dtype == "uint16" else image.astype(np.uint8)
        image[0, 0] = np.iinfo(image.dtype).max  # not too dark for 16 bits
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
    assert len(result.boxes) <= case.args["max_det"]
    fewest = count_tiles((height, width), case.args["slice"], case.args["imgsz"], case.args["slice_overlap"])
    if fewest == 1:  # upstream's boxes, which may be turned inside out
        assert result.tiles is None
        return RESULT
    assert_inside(result.boxes.xyxy, width, height)
    assert sum(result.tiles) == fewest and (case.args["slice_skip"] or result.tiles[1] == 0), result.tiles
    return RESULT


@functools.cache
def tiny_export(imgsz: tuple[int, int]) -> YOLO:
    """Return a TorchScript of the tiny model whose inputs have a (height, width)."""
    weights = Path(tempfile.mkdtemp(prefix="fuzz-export-")) / "tiny.pt"
    tiny_detector().save(weights)
    file = YOLO(weights).export(format="torchscript", imgsz=list(imgsz), device="cpu", verbose=False)
    return YOLO(file, task="detect")


# (height, width) of an export, those of two images, and arguments
exports = st.tuples(
    st.sampled_from([(64, 128), (128, 64), (96, 64), (64, 64)]),
    st.tuples(*[st.tuples(*[st.integers(10, 300)] * 2)] * 2),
    st.fixed_dictionaries({
        "slice": st.sampled_from([0, 64, 96, 127, 200, "auto"]), "slice_overlap": st.sampled_from([0, 0.2, 0.5]),
        "slice_full": st.booleans(), "batch": st.sampled_from([1, 2, 3]), "augment": st.booleans(),
        "rect": st.booleans(), "slice_skip": st.sampled_from([0, 0.3]),
    }),
)  # fmt: skip


def run_export(case: tuple[tuple[int, int], tuple, dict[str, Any]], folder: Path) -> str:
    """Predict and validate two images by an export; `imgsz` follows from it."""
    imgsz, sizes, args = case
    write_set(folder)
    for i, (height, width) in enumerate(sizes):
        image = np.random.default_rng(i).integers(0, 256, (height, width, 3), dtype=np.uint8)
        assert cv2.imwrite(str(folder / f"images/train/{i}.png"), image)
    (folder / "set.yaml").write_text("train: images/train\nval: images/train\nnames: [a, b]\n")
    model = tiny_export(imgsz)
    args |= {"imgsz": list(imgsz), "conf": 0.4, "device": "cpu", "verbose": False, "save": False}
    for result, (height, width) in zip(model.predict(folder / "images/train", **args), sizes, strict=True):
        assert result.orig_shape == (height, width)
        is_sliced = args["slice"] and count_tiles((height, width), args["slice"], imgsz, args["slice_overlap"]) > 1
        assert (result.tiles is not None) == bool(is_sliced), result.tiles
        if is_sliced:
            assert_inside(result.boxes.xyxy, width, height)
    metrics = model.val(data=folder / "set.yaml", plots=False, workers=0, project=str(folder), **args)
    assert metrics.nt_per_class.sum() == 4 and 0 <= metrics.box.map <= 1, metrics.results_dict
    return RESULT
