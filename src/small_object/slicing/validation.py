"""Helpers of validation by tiles: targets in a region, and detections in pixels of the input."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
import torch

from small_object.letterbox import gain_and_pad, letterbox_gain
from small_object.slicing.dataset import add_shape
from small_object.slicing.masks import Crop, draw_masks, polygon_crops
from small_object.slicing.objects import Objects
from small_object.slicing.region import Region


def scale_back(pred: dict[str, Any], objects: Objects, batch: dict[str, Any], i: int, max_masks: int) -> dict[str, Any]:
    """Return the objects of an image in the format of upstream's validator, in pixels of the input.

    Args:
        pred: Detections of the whole image, which give the format and the device.
        objects: The objects in pixels of the image.
        batch: The batch, see upstream.
        i: Index of the image in it.
        max_masks: How many masks to draw for upstream's pictures; each takes a byte per pixel of the input.
    """
    gain, pad = (x.float() for x in gain_and_pad(batch["ratio_pad"][i]))
    rows = objects.rows
    boxes = rows[:, :4] * gain + pad
    if objects.rotated is not None:
        centres, sides, angles = objects.rotated.split((2, 2, 1), 1)
        boxes = torch.cat((centres * gain[:2] + pad[:2], sides * gain[:2], angles), 1)
    scaled = {"bboxes": boxes, "conf": rows[:, 4], "cls": rows[:, 5]}
    if "extra" in pred:
        scaled["extra"] = rows[:, 6:]
    if objects.keypoints is not None:
        scaled["keypoints"] = objects.keypoints.clone()
        scaled["keypoints"][..., :2] = objects.keypoints[..., :2] * gain[:2] + pad[:2]
    elif "keypoints" in pred:
        scaled["keypoints"] = pred["keypoints"][:0]
    if "masks" in pred:
        shown = list(objects.masks or ())[:max_masks]
        masks = draw_masks(shown, tuple(pred["masks"].shape[1:]), gain.tolist()[:2], pad.tolist()[:2])
        scaled["masks"] = torch.from_numpy(masks)
    return {key: value.to(pred["conf"].device) for key, value in scaled.items()}


def mask_gain(mask_hw: Sequence[int], scale: dict[str, Any]) -> tuple[tuple[float, float], tuple[float, float]]:
    """Return the factors and offsets that map x and y of an image to the masks of its input.

    Args:
        mask_hw: Height and width of the masks, which cover the whole input.
        scale: `imgsz` (height, width) of the input, `ori_shape` of the image, and `ratio_pad` or None, as in upstream.
    """
    gain, pad = letterbox_gain(scale["imgsz"], scale["ori_shape"], scale["ratio_pad"])
    shrink = [mask / side for mask, side in zip(reversed(mask_hw), reversed(scale["imgsz"]), strict=True)]
    return (gain[0] * shrink[0], gain[1] * shrink[1]), (pad[0] * shrink[0], pad[1] * shrink[1])


def select_targets(batch: dict[str, Any], region: Region) -> None:
    """Remove targets with their centre outside a region from a batch of upstream, in place."""
    owner, (height, width) = batch["batch_idx"], batch["img"].shape[2:]
    keep = torch.ones(len(owner), dtype=torch.bool, device=owner.device)
    for i, (shape, ratio_pad) in enumerate(zip(batch["ori_shape"], batch["ratio_pad"], strict=True)):
        own = owner == i
        gain, pad = (x[:2].to(batch["bboxes"]) for x in gain_and_pad(ratio_pad))
        centres = (batch["bboxes"][own, :2] * batch["bboxes"].new_tensor([width, height]) - pad) / gain
        keep[own] = inside = region.contains(centres, tuple(shape))
        if "masks" in batch and len(batch["masks"]) == len(batch["ori_shape"]):  # numbered from 1 in one picture
            numbers = torch.cat((inside.new_zeros(1), inside)).long()
            numbers = numbers.cumsum(0) * numbers
            batch["masks"][i] = numbers[batch["masks"][i].long()].to(batch["masks"].dtype)
    if "masks" in batch and len(batch["masks"]) == len(owner) != len(batch["ori_shape"]):
        batch["masks"] = batch["masks"][keep]
    for key in ("batch_idx", "cls", "bboxes", "keypoints"):
        if key in batch:
            batch[key] = batch[key][keep]


def target_crops(dataset: Any, file: str, region: Region | None) -> tuple[np.ndarray, list[Crop]]:
    """Return the classes, shape (N,), and the masks of an image's labels whose centre lies in a region."""
    label = dataset.labels[dataset.im_files.index(file)]
    width, height = add_shape(label)["shape"][::-1]
    classes, polygons = label["cls"][:, 0], label["segments"]
    if region is not None:
        centres = torch.from_numpy(label["bboxes"][:, :2] * (width, height))
        inside = np.flatnonzero(region.contains(centres, (height, width)).numpy())
        classes, polygons = classes[inside], [polygons[k] for k in inside]
    return classes, polygon_crops(polygons, (height, width))
