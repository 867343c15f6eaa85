"""The objects that a model of any task with boxes finds in an image or a part of it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
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
        rotated, keypoints, features = (None if x is None else x[index] for x in self._more())
        return Objects(self.rows[index], rotated, keypoints, features, masks)

    def _more(self) -> tuple[torch.Tensor | None, ...]:
        return self.rotated, self.keypoints, self.features

    def cpu(self) -> Objects:
        """Return the objects on the CPU."""
        rotated, keypoints, features = (None if x is None else x.cpu() for x in self._more())
        return Objects(self.rows.cpu(), rotated, keypoints, features, self.masks)

    def shifted(self, x: int, y: int) -> Objects:
        """Return the objects in float32, moved by (x, y) pixels."""
        rows = self.rows.float().clone()
        rotated, keypoints, features = (None if x is None else x.float().clone() for x in self._more())
        masks = None if self.masks is None else [crop.shifted(x, y) for crop in self.masks]
        offset = rows.new_tensor([x, y])
        rows[:, :4] += offset.repeat(2)
        for tensor in (rotated, keypoints):
            if tensor is not None:
                tensor[..., :2] += offset
        return Objects(rows, rotated, keypoints, features, masks)


def concatenate(parts: Sequence[Objects]) -> Objects:
    """Return the objects of all parts; a part without objects may lack what the others have."""
    parts = [part for part in parts if len(part)] or list(parts[:1])
    joined: list[Any] = []
    for name in (field.name for field in fields(Objects)):
        values = [getattr(part, name) for part in parts]
        if values and isinstance(values[0], torch.Tensor):
            joined.append(torch.cat(values))
        else:
            joined.append(None if not values or values[0] is None else [crop for each in values for crop in each])
    return Objects(*joined) if parts else Objects(torch.zeros(0, 6))
