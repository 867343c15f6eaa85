"""The camera of a scene: a tilted pinhole or a stitched panorama.

The world is level and measured in metres: x to the right, y away from the camera, z up. The camera stands above its
origin and looks along +y.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import cached_property

import numpy as np

NEAR = 1.0  # metres; nothing nearer to the camera is rendered


@dataclass(frozen=True)
class Camera:
    """A camera above the world's origin; `focal` is in pixels, for a panorama in pixels per radian along a row."""

    width: int
    height: int
    focal: float
    mount: float  # metres above the ground
    horizon: float  # pixels from the top
    panorama: bool = False  # cylindrical projection instead of a pinhole

    @cached_property
    def pitch(self) -> float:
        """Downward tilt of the pinhole, radians."""
        return math.atan2(self.height / 2 - self.horizon, self.focal)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project world points (..., 3) to pixels (..., 2) and depths (...) in metres, valid for depths over `NEAR`."""
        x, y, drop = points[..., 0], points[..., 1], self.mount - points[..., 2]
        if self.panorama:
            depth = np.hypot(x, y)
            u, v = np.arctan2(x, y) * self.focal, drop / np.maximum(depth, 0.1) * self.focal
            return np.stack([self.width / 2 + u, self.horizon + v], -1), depth
        c, s = math.cos(self.pitch), math.sin(self.pitch)
        depth = y * c + drop * s
        k = self.focal / np.maximum(depth, 0.1)
        return np.stack([self.width / 2 + x * k, self.height / 2 + (drop * c - y * s) * k], -1), depth

    def ground(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the ground points x and y of the pixel rows `top` to `bottom`, (rows, width) float32 metres each."""
        u = (np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2)[None] / self.focal
        scale, forward = self._ground_rows(top, bottom)
        if self.panorama:
            return scale * np.sin(u), scale * np.cos(u)
        return u * scale, np.broadcast_to(forward * scale, (len(scale), self.width))

    def ground_distance(self, top: int, bottom: int) -> np.ndarray:
        """Return the mean distance of the ground in the pixel rows `top` to `bottom`, (rows, 1) float32 metres."""
        scale, forward = self._ground_rows(top, bottom)
        if self.panorama:
            return scale
        quarter = self.width / 4 / self.focal  # half way to the image's side
        return np.asarray((scale * np.hypot(forward, quarter)).astype(np.float32))

    def _ground_rows(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Return the length of each row's ray down to the ground and its part along +y, (rows, 1) each."""
        v = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
        if self.panorama:
            return self.mount * self.focal / np.maximum(v - self.horizon, 0.05), np.ones_like(v)
        d, c, s = (v - self.height / 2) / self.focal, math.cos(self.pitch), math.sin(self.pitch)
        return self.mount / np.maximum(d * c + s, 0.05 / self.focal), c - d * s
