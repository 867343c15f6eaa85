"""The objects that a model of any task with boxes finds in an image or a part of it, also in upstream's results."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import torch
from ultralytics.engine.results import Results
from ultralytics.utils.ops import xywhr2xyxyxyxy

from small_object.letterbox import letterbox_gain
from small_object.slicing.masks import Crop, CropMasks, crop_masks


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
        more = self.rotated, self.keypoints, self.features
        rotated, keypoints, features = (None if x is None else function(x) for x in more)
        return Objects(function(self.rows), rotated, keypoints, features, masks)

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


def rotated_rows(rotated: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Return the upright boxes, xyxy, around rotated boxes, xywhr, shape (N, 5), each followed by its row of `rest`."""
    corners = xywhr2xyxyxyxy(rotated)
    return torch.cat((corners.amin(1), corners.amax(1), rest), 1)


def result_objects(result: Results) -> Objects:
    """Return the objects in the results of an image, in pixels of the image."""
    rotated = masks = None
    boxes = result.obb if result.boxes is None else result.boxes
    scored = torch.stack((boxes.conf, boxes.cls), 1)  # `data` of a tracker has another order
    if result.obb is not None:
        rotated = result.obb.xywhr
        rows = rotated_rows(rotated, scored)
    else:
        rows = torch.cat((boxes.xyxy, scored), 1)
    if isinstance(result.masks, CropMasks):
        masks = result.masks.crops
    elif result.masks is not None:
        masks = crop_masks(result.masks.data, rows[:, :4], *letterbox_gain(result.masks.shape[1:], result.orig_shape))
    keypoints = None if result.keypoints is None else result.keypoints.data
    features = getattr(result, "feats", None)
    return Objects(rows, rotated, keypoints, features if isinstance(features, torch.Tensor) else None, masks)


def update_result(result: Results, objects: Objects, device: torch.device) -> None:
    """Replace the objects in the results of an image by others, in pixels of the image."""
    rows = objects.rows.to(device)
    if objects.rotated is not None:
        result.boxes = None
        result.update(obb=torch.cat((objects.rotated.to(device), rows[:, 4:]), 1))
    else:
        result.update(boxes=rows)
    if objects.keypoints is not None:
        result.update(keypoints=objects.keypoints.to(device))
    result.masks = CropMasks(objects.masks, result.orig_shape) if objects.masks else None
    if objects.features is not None:
        result.feats = objects.features.to(device)
