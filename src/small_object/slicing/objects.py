"""The objects that a model of any task with boxes finds in an image or a part of it."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch

from small_object.slicing.masks import Crop


@dataclass(frozen=True)
class Objects:
    """The objects found in an image or a tile.

    Attributes:
        rows: (x1, y1, x2, y2, score, class) in pixels, shape (N, 6); for rotated boxes, the upright boxes around them.
        rotated: Rotated boxes, xywhr in pixels and radians, shape (N, 5). This and the following are None if missing.
        keypoints: Keypoints, (x, y) or (x, y, visibility), in pixels, shape (N, K, 2 or 3).
        features: Features of the objects for a tracker, shape (N, F).
        masks: The mask of each object.
    """

    rows: torch.Tensor
    rotated: torch.Tensor | None = None
    keypoints: torch.Tensor | None = None
    features: torch.Tensor | None = None
    masks: Sequence[Crop] | None = None

    def __len__(self) -> int:
        return len(self.rows)

    def __getitem__(self, index: torch.Tensor) -> Objects:
        """Select objects by indices, shape (K,), or by a mask, shape (N,)."""
        index = index.nonzero().flatten() if index.dtype == torch.bool else index
        masks = None if self.masks is None else [self.masks[k] for k in index.tolist()]
        return self._apply(lambda x: x[index], masks)

    def _apply(self, function: Callable[[torch.Tensor], torch.Tensor], masks: Sequence[Crop] | None) -> Objects:
        more = (None if x is None else function(x) for x in (self.rotated, self.keypoints, self.features))
        return Objects(function(self.rows), *more, masks=masks)

    def cpu(self) -> Objects:
        """Return the objects on the CPU."""
        return self._apply(torch.Tensor.cpu, self.masks)

    def shifted(self, x: int, y: int) -> Objects:
        """Return the objects in float32, moved by (x, y) pixels."""
        masks = None if self.masks is None else [crop.shifted(x, y) for crop in self.masks]
        moved = self._apply(lambda tensor: tensor.float().clone(), masks)
        offset = moved.rows.new_tensor([x, y])
        moved.rows[:, :4] += offset.repeat(2)
        for tensor in (moved.rotated, moved.keypoints):
            if tensor is not None:
                tensor[..., :2] += offset
        return moved


def concatenate(parts: Sequence[Objects]) -> Objects:
    """Return the objects of all parts; a part without objects may lack what the others have."""
    parts = [part for part in parts if len(part)] or list(parts[:1])
    if not parts:
        return Objects(torch.zeros(0, 6))
    joined: list[Any] = []
    for first, *others in zip(*(vars(part).values() for part in parts), strict=True):
        if isinstance(first, torch.Tensor):
            joined.append(torch.cat((first, *others)))
        else:
            joined.append(None if first is None else [*chain(first, *others)])
    return Objects(*joined)
