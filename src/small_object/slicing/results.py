"""Reads and replaces the objects in upstream's results of an image, for any task with boxes."""

from __future__ import annotations

import torch
from ultralytics.engine.results import Results
from ultralytics.utils.ops import xywhr2xyxyxyxy

from small_object.letterbox import letterbox_gain
from small_object.slicing.masks import CropMasks, crop_masks
from small_object.slicing.objects import Objects


def rotated_rows(rotated: torch.Tensor, rest: torch.Tensor) -> torch.Tensor:
    """Return the upright boxes, xyxy, around rotated boxes, xywhr, shape (N, 5), each followed by its row of `rest`."""
    corners = xywhr2xyxyxyxy(rotated)
    return torch.cat((corners.amin(1), corners.amax(1), rest), 1)


def result_objects(result: Results) -> Objects:
    """Return the objects in the results of an image, in pixels of the image."""
    rotated = masks = None
    if result.obb is not None:
        rotated = result.obb.data[:, :5]
        rows = rotated_rows(rotated, result.obb.data[:, 5:7])
    else:
        rows = result.boxes.data[:, :6]
    if result.masks is not None:
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
