"""Renders the paint and the rubber on the ground."""

from __future__ import annotations

import math
from typing import Any

import cv2
import numpy as np
from numpy.typing import ArrayLike

from small_object.scenes.light import bgr
from small_object.scenes.mesh import reduce_corners
from small_object.scenes.scene import Scene

STRIP_LENGTH = 2200  # metres to each side


class MarkingLayer:
    """Markings of one colour; `mask` is their coverage (height, width) uint8."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.mask = np.zeros((scene.camera.height, scene.camera.width), np.uint8)

    def path(
        self, points: ArrayLike, width: float, step: float = 4.0, dash: tuple[float, float] | None = None,
        level: float = 1.0,
    ) -> None:  # fmt: skip
        """Draw a line through world points (N, 2), `width` metres wide, dashed as (on, off) metres."""
        p, cam = np.asarray(points, np.float64), self.scene.camera
        d = p[1:] - p[:-1]
        length = np.append(0, np.cumsum(np.sqrt(d[:, 0] ** 2 + d[:, 1] ** 2)))
        total = float(length[-1])
        if total < 0.05:
            return
        n = max(2, int(total / min(dash)) * 2 if dash else int(total / step) + 1)
        s = np.linspace(0, total, n)
        q = np.stack([np.interp(s, length, p[:, 0]), np.interp(s, length, p[:, 1])], 1)
        way = np.gradient(q, axis=0)
        way *= width / 2 / np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-9)[:, None]
        side = np.stack([-way[:, 1], way[:, 0], np.zeros(n)], 1)
        middle = np.pad(q, ((0, 0), (0, 1)))
        pixels, depth = cam.project(np.stack([middle + side, middle - side]))
        keep = reduce_corners(np.minimum, np.stack([depth[0, :-1], depth[0, 1:], depth[1, 1:], depth[1, :-1]], 1)) > 2
        if dash:
            keep &= np.mod((np.arange(n - 1) + 0.5) * total / (n - 1), sum(dash)) < dash[0]
        quads = np.stack([pixels[0, :-1], pixels[0, 1:], pixels[1, 1:], pixels[1, :-1]], 1)[keep]
        low, high = reduce_corners(np.minimum, quads), reduce_corners(np.maximum, quads)
        quads = quads[(low < (cam.width, cam.height)).all(1) & (high > 0).all(1) & (high - low < 3000).all(1)]
        # Where a line is thinner than a pixel it covers only a part of those that it touches
        a, b = quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0]
        thickness = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / np.maximum(np.hypot(a[:, 0], a[:, 1]), 0.3)
        shades = np.minimum(1, thickness / 1.1) * 255 * np.float32(level)
        for quad, shade in zip(np.round(quads * 16 - 8).astype(np.int32), shades, strict=True):
            if shade > 6:
                cv2.fillConvexPoly(self.mask, quad, int(shade), cv2.LINE_AA, 4)

    def along(self, v: float, half_length: float, width: float, **style: Any) -> None:
        """Draw a line along the apron, at a `v` of the grid; `style` as in `path`."""
        self.path([self.scene.world(-half_length, v), self.scene.world(half_length, v)], width, **style)

    def local(self, x: float, y: float, heading: float, points: ArrayLike, width: float, level: float = 1.0) -> None:
        """Draw a line in the frame of a stand."""
        (c, s), p = (math.cos(heading), math.sin(heading)), np.asarray(points, np.float64)
        self.path(np.stack([x + p[:, 0] * c - p[:, 1] * s, y + p[:, 0] * s + p[:, 1] * c], 1), width, level=level)


class Markings:
    """All markings of a scene in four layers."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene = scene
        self.rubber, self.yellow, self.white, self.red = (MarkingLayer(scene) for _ in range(4))
        for v in scene.lanes:
            self._draw_lane(v)
        for stand in scene.stands:
            self._draw_stand(*stand)
        self._draw_roads()
        self._draw_strips()
        self._draw_tyre_marks(rng)

    def layers(self) -> list[tuple[np.ndarray, np.ndarray, float]]:
        """Return coverage (height, width) uint8, BGR colour and opacity from the lowest layer up."""
        rubber = cv2.GaussianBlur(self.rubber.mask, (5, 5), 1.2)
        return [
            (rubber, bgr("#3a3a3a"), 0.44),
            (self.white.mask, bgr("#e6e6e2"), 0.8),
            (self.red.mask, bgr("#b8352c"), 0.75),
            (self.yellow.mask, bgr("#e0b21e"), 0.85),
        ]

    def _draw_lane(self, v: float) -> None:
        """Draw a taxi lane."""
        self.yellow.along(v, self.scene.side, 0.45)
        for offset in (-3.8, 3.8):
            self.rubber.along(v + offset, self.scene.side, 1.5, level=0.5)

    def _draw_roads(self) -> None:
        """Draw the vehicle roads and the line at the apron's end."""
        scene, width = self.scene, self.scene.side
        roads = [scene.lanes[0] + 47.5, scene.lanes[-1] - 45]
        if not scene.camera.panorama:  # one road, clear of the stands
            spans = [(scene.grid(s.x, s.y)[1], max(s.half_length, s.half_width) + 10) for s in scene.stands]
            candidates = (scene.lanes[0] - 42, scene.lanes[0] - 70, scene.lanes[0] + 40, scene.apron - 12)
            roads = [v for v in candidates if v > 5 and all(abs(v - at) > half for at, half in spans)][:1]
        for v in roads:
            for offset in (-5.2, 5.2):
                self.white.along(v + offset, width, 0.25)
            self.white.along(v, width, 0.2, dash=(3.0, 3.0))
        self.red.along(scene.apron - 3, width, 0.3)

    def _draw_stand(self, x: float, y: float, heading: float, half_l: float, half_w: float) -> None:
        """Draw a stand with its outline and the lead-in line from the next taxi lane."""
        scene, cam = self.scene, self.scene.camera
        if not cam.panorama and abs(x) - 70 > max(y, 0) * cam.width / 2 / cam.focal:
            return  # out of view
        u, v = scene.grid(x, y)
        lane = min(scene.lanes, key=lambda w: abs(w - v))
        self.yellow.local(x, y, heading, [(-half_l - 6, 0), (half_l - 2, 0)], 0.4)
        self.yellow.local(x, y, heading, [(half_l - 4, -2.5), (half_l - 4, 2.5)], 0.5)
        if abs(math.cos(heading - scene.turn)) < 0.4:  # at right angles to the lane: a lead-in that curves off it
            tail_u, tail_v = scene.grid(x - (half_l + 6) * math.cos(heading), y - (half_l + 6) * math.sin(heading))
            radius, toward = min(24.0, abs(lane - tail_v)), math.copysign(1, lane - tail_v)
            t, side = np.linspace(0, math.pi / 2, 12), 1 if round(u / 10) % 2 else -1
            us, vs = tail_u + side * radius * (1 - np.cos(t)), lane - toward * radius * (1 - np.sin(t))
            curve = np.stack(scene.world(np.append(tail_u, us), np.append(tail_v, vs)), 1)
            self.yellow.path(curve, 0.4, step=2.5)
            self.rubber.path(curve + 2.2, 1.0, level=0.4)
            self.rubber.path(curve - 2.2, 1.0, level=0.4)
        front, rear, width = half_l + 5, -half_l - 4, half_w + 4
        box = np.array([(front, -width), (front, width), (rear, width), (rear, -width), (front, -width)])
        self.red.local(x, y, heading, box, 0.35)
        self.white.local(x, y, heading, box * (1.0, 0.985), 0.16)
        for offset in (-2.6, 2.6):
            self.rubber.local(x, y, heading, [(-half_l - 6, offset), (0, offset)], 0.7, level=0.45)

    def _draw_strips(self) -> None:
        """Draw the markings of taxiways, runways and roads beyond the apron."""
        for low, high, kind in self.scene.strips:
            middle = (low + high) / 2
            if kind == "runway":
                self.white.along(middle, STRIP_LENGTH, 1.2, dash=(30.0, 30.0))
                for v in (low + 2, high - 2):
                    self.white.along(v, STRIP_LENGTH, 1.0, step=20)
                for v in (middle - 4, middle + 4):
                    self.rubber.along(v, STRIP_LENGTH, 4.0, step=20, level=0.7)
            elif kind == "taxiway":
                self.yellow.along(middle, STRIP_LENGTH, 0.5, step=15)
                for v in (low + 1.5, high - 1.5):
                    self.yellow.along(v, STRIP_LENGTH, 0.3, step=15)
            else:
                self.white.along(middle, STRIP_LENGTH, 0.2, dash=(4.0, 6.0))

    def _draw_tyre_marks(self, rng: np.random.Generator) -> None:
        """Draw tyre marks in curves."""
        apron = self.scene.apron
        for _ in range(12):
            x, y = self.scene.world(rng.uniform(-0.25, 0.25) * apron * 2, rng.uniform(0.05, 0.9) * apron)
            radius, start, sweep = rng.uniform(12, 60), rng.uniform(0, 6.3), rng.uniform(0.4, 1.6)
            t, gap = start + np.linspace(0, sweep, 16), rng.uniform(0.9, 2.4)
            for r in (radius - gap, radius + gap):
                curve = np.stack([x + r * np.cos(t), y + r * np.sin(t)], 1)
                self.rubber.path(curve, 0.4, step=2.0, level=rng.uniform(0.2, 0.5))
