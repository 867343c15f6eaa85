"""Lets training paste objects and keep boxes that augmentation shrinks below upstream's limit."""

from typing import Any

import numpy as np
from ultralytics.data.augment import Compose
from ultralytics.data.augment import RandomPerspective as StockRandomPerspective
from ultralytics.data.augment import v8_transforms as stock_v8_transforms

from ultralytics_overlay import require_parameters

require_parameters(StockRandomPerspective.box_candidates, "wh_thr")


class RandomPerspective(StockRandomPerspective):
    """Upstream's random affine transform.

    Attributes:
        min_box: Width and height in input pixels that a transformed box must exceed to stay.
    """

    min_box: float = 2.0

    def box_candidates(self, box1: np.ndarray, box2: np.ndarray, **thresholds: Any) -> np.ndarray:
        """Return which boxes stay, shape (N,); `box1` and `box2` are those before and after, xyxy, shape (4, N)."""
        return super().box_candidates(box1, box2, **{"wh_thr": self.min_box, **thresholds})


def v8_transforms(dataset: Any, imgsz: int, hyp: Any) -> Compose:
    """Return upstream's training transforms with `paste` and the limit `min_box` from the arguments."""
    from small_object.paste import PasteObjects  # which imports this module

    transforms = stock_v8_transforms(dataset, imgsz, hyp)
    if paste := getattr(hyp, "paste", None):
        transforms.insert(1, PasteObjects(dataset, paste))  # after the mosaic
    waiting = [transforms]
    while waiting:
        each = waiting.pop()
        if isinstance(each, RandomPerspective):
            each.min_box = getattr(hyp, "min_box", RandomPerspective.min_box)
        waiting += getattr(each, "transforms", None) or []
        waiting += [each.pre_transform] if getattr(each, "pre_transform", None) else []
    return transforms
