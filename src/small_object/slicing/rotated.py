"""Geometry of rotated boxes: overlap, parts of one object, and NMS."""

import cv2
import numpy as np
import torch
from ultralytics.utils.metrics import probiou
from ultralytics.utils.ops import xywhr2xyxyxyxy, xyxyxyxy2xywhr


def box_corners(xywhr: np.ndarray) -> np.ndarray:
    """Return the corners of rotated boxes, shape (N, 5), in pixels: shape (N, 4, 2), float32."""
    return xywhr2xyxyxyxy(xywhr).astype(np.float32)


def upright_boxes(corners: np.ndarray) -> np.ndarray:
    """Return the upright boxes around corners, shape (N, 4, 2): xyxy, shape (N, 4)."""
    return np.concatenate((corners.min(1), corners.max(1)), 1)


def min_rotated_box(corners: np.ndarray) -> np.ndarray:
    """Return the smallest rotated box around points, shape (P, 2): xywhr, shape (5,)."""
    return xyxyxyxy2xywhr(corners[None])[0]


def visible_parts(corners: np.ndarray, tiles: np.ndarray) -> list[np.ndarray]:
    """Return the parts of rotated boxes in their tiles, convex polygons of shapes (P, 2); P is 0 for no part.

    Args:
        corners: Corners of the boxes, shape (N, 4, 2).
        tiles: The tile of each box, xyxy in pixels, shape (N, 4).
    """
    return [_intersect(box, frame)[1] for box, frame in zip(corners, _rectangles(tiles), strict=True)]


def cover_shares(corners: np.ndarray, others: np.ndarray, tiles: np.ndarray) -> np.ndarray:
    """Return the fraction of each rotated box that lies in the part of another box in its tile, shape (P,).

    The part in a tile may be a triangle, and the rotated box around a triangle is twice as large. So up to half of a
    box may lie outside.

    Args:
        corners: Corners of the boxes, shape (P, 4, 2).
        others: Corners of the other boxes, shape (P, 4, 2).
        tiles: The tile of each box, xyxy in pixels, shape (P, 4).
    """
    covers = np.zeros(len(corners))
    for k, (box, part) in enumerate(zip(corners, visible_parts(others, tiles), strict=True)):
        if len(part) > 2:
            area, seen = cv2.contourArea(box), cv2.contourArea(part)
            covers[k] = _intersect(box, part)[0] / max(1e-9, min(area, max(seen, area / 2)))
    return covers


def zone_ious(xywhr1: np.ndarray, xywhr2: np.ndarray, zones: np.ndarray, margin: float) -> np.ndarray:
    """Return the IoU of the parts of pairs of rotated boxes in their zones, all widened by a margin.

    Args:
        xywhr1: Rotated boxes, shape (P, 5).
        xywhr2: The other boxes, shape (P, 5).
        zones: Zones, xyxy in pixels, shape (P, 4).
        margin: By how much each side moves outward, in pixels.
    """
    wider = np.array([0, 0, 2 * margin, 2 * margin, 0])
    ious, frames = np.zeros(len(zones)), _rectangles(zones + margin * np.array([-1, -1, 1, 1]))
    corners1, corners2 = box_corners(xywhr1 + wider), box_corners(xywhr2 + wider)
    for k, (a, b, frame) in enumerate(zip(corners1, corners2, frames, strict=True)):
        (area_a, part_a), (area_b, part_b) = _intersect(a, frame), _intersect(b, frame)
        if min(area_a, area_b) > 0:
            shared = _intersect(part_a, part_b)[0]
            ious[k] = shared / (area_a + area_b - shared)
    return ious


def nms_pairs(xywhr: np.ndarray, i: np.ndarray, j: np.ndarray, iou: float) -> np.ndarray:
    """Return the rows that greedy NMS by upstream's `probiou` keeps of rotated boxes, given in falling priority.

    Only the pairs i < j, each of shape (P,), are compared.
    """
    boxes = torch.from_numpy(xywhr)
    close = probiou(boxes[i], boxes[j]).flatten().numpy() > iou
    keep = np.ones(len(xywhr), dtype=bool)
    for a, b in sorted(zip(i[close].tolist(), j[close].tolist(), strict=True)):
        if keep[a]:
            keep[b] = False
    return np.flatnonzero(keep)


def _rectangles(xyxy: np.ndarray) -> np.ndarray:
    """Return the corners of upright boxes, xyxy, shape (N, 4), in the order of rotated boxes: (N, 4, 2), float32."""
    return xyxy[:, [0, 1, 2, 1, 2, 3, 0, 3]].reshape(-1, 4, 2).astype(np.float32)


def _intersect(a: np.ndarray, b: np.ndarray) -> tuple[float, np.ndarray]:
    """Return the area and the corners of the intersection of two convex polygons, shape (P, 2)."""
    area, corners = cv2.intersectConvexConvex(a, b)
    return float(area), np.zeros((0, 2), np.float32) if corners is None else corners.reshape(-1, 2)
