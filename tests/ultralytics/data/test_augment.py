"""Which boxes stay after augmentation."""

import copy
from typing import Any, ClassVar

import numpy as np
import pytest
from ultralytics.cfg import get_cfg
from ultralytics.data.augment import RandomPerspective, StockRandomPerspective, v8_transforms


@pytest.mark.parametrize(("limit", "kept"), [(2.0, [2.5, 3]), (1.0, [1.5, 2, 2.5, 3]), (0.0, [0.5, 1, 1.5, 2, 2.5, 3])])
def test_the_limit_for_small_boxes(limit: float, kept: list[float]) -> None:
    sides = np.array([0.5, 1, 1.5, 2, 2.5, 3])
    boxes = np.stack([np.zeros(6), np.zeros(6), sides, sides])
    transform = RandomPerspective()
    transform.min_box = limit
    assert sides[transform.box_candidates(boxes, boxes)].tolist() == kept
    if limit == 2:
        assert sides[StockRandomPerspective().box_candidates(boxes, boxes)].tolist() == kept


@pytest.mark.parametrize("mode", ["flip", "mixup"])
def test_every_transform_gets_the_limit(mode: str) -> None:
    class Dataset:
        data: ClassVar[dict[str, Any]] = {}
        cache = False
        buffer: ClassVar[list[int]] = []

    hyp = get_cfg(overrides={"min_box": 0.25, "copy_paste_mode": mode, "mixup": 1.0})
    for limit, arguments in ((0.25, hyp), (2.0, get_cfg(overrides={"copy_paste_mode": mode}))):
        waiting, limits = [v8_transforms(Dataset(), 64, copy.copy(arguments))], []
        while waiting:
            each = waiting.pop()
            waiting += [value for value in vars(each).values() if callable(value) and hasattr(value, "p")]
            waiting += [*getattr(each, "transforms", [])] if isinstance(getattr(each, "transforms", None), list) else []
            waiting += [each.pre_transform] if getattr(each, "pre_transform", None) else []
            limits += [each.min_box] if isinstance(each, RandomPerspective) else []
        assert limits and set(limits) == {limit}
