"""The camera of a scene: level, with a pinhole or as a stitched panorama.

The world is flat and measured in metres: x along the apron, y across it, z up. The camera
stands above the origin and looks along +y, turned by `yaw`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np


@dataclass(frozen=True)
class Camera:
    """A level camera; `focal` is in pixels, for a panorama in pixels per radian along a row."""

    width: int
    height: int
    focal: float
    mount: float  # metres above the ground
    horizon: float  # pixels from the top
    yaw: float = 0.0  # radians from +y to +x
    panorama: bool = False  # cylindrical projection instead of a pinhole

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project world points (..., 3) to pixels (..., 2) and depths (...) in metres; valid for depths over 1."""
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        x, y, z = np.moveaxis(points, -1, 0)
        right, forward = x * c - y * s, x * s + y * c
        depth = np.hypot(right, forward) if self.panorama else forward
        scale = self.focal / np.maximum(depth, 0.1)
        u = np.arctan2(right, forward) * self.focal if self.panorama else right * scale
        return np.stack([self.width / 2 + u, self.horizon + (self.mount - z) * scale], -1), depth

    def locate(self, column: Any, depth: Any) -> tuple[Any, Any]:
        """Return the x and y of the ground in pixel columns at depths in metres."""
        t = (column - self.width / 2) / self.focal
        right, forward = (np.sin(t), np.cos(t)) if self.panorama else (t, 1.0)
        c, s = math.cos(self.yaw), math.sin(self.yaw)
        return depth * (right * c + forward * s), depth * (forward * c - right * s)

    def ground(self) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
        """Return what the rows below the horizon show: depths (rows, 1) and x and y (rows, width), float32 metres."""
        rows = np.arange(math.ceil(self.horizon), self.height, dtype=np.float32)[:, None] + 0.5
        depth = self.mount * self.focal / np.maximum(rows - self.horizon, 0.2)
        x, y = self.locate(np.arange(self.width, dtype=np.float32)[None] + 0.5, depth)
        return depth.astype(np.float32), x.astype(np.float32), y.astype(np.float32)
