"""The parts of a scene: objects on level ground, lines painted on it, a camera and daylight.

The world is flat and measured in metres: x along the apron, y across it, z up. The camera stands above the origin and
looks along +y, turned by `yaw`.
"""

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import cv2
import numpy as np

from small_object.scenes import models
from small_object.scenes.solids import Model

STRIP_WIDTH = 30.0  # metres
NEAR = 3.0  # metres; nothing nearer to the camera is rendered
MARGIN = 0.8  # metres to keep free around an object
SKIES = (("#3f7fc4", "#cfdde9"), ("#5b8fc0", "#d9e0e6"), ("#7f9fbf", "#dcdfe0"), ("#5a86b4", "#e6dccb"))  # zenith, haze
MAX_HIDDEN = 0.2  # of an object's box, behind any other
CATEGORIES: dict[str, tuple[Sequence[str], Callable[[str], Model], dict[str, tuple[str, ...]]]] = {
    "airplane": (list(models.AIRFRAMES), models.build_aircraft, models.LIVERIES),
    "truck": (models.TRUCKS, models.build_truck, models.TRUCK_COLOURS),
    "person": (list(models.STRIDES), models.build_person, models.CLOTHES),
}


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


def bgr(code: str) -> np.ndarray:
    """Convert "#rrggbb" to BGR, float32, shape (3,), 0 to 255."""
    return np.array([int(code[i : i + 2], 16) for i in (5, 3, 1)], np.float32)


@dataclass(frozen=True)
class Light:
    """Daylight. Colours are BGR (3,); those of lights are 1 for full white, those of the sky 0 to 255."""

    direction: np.ndarray  # unit vector to the sun
    sun: np.ndarray
    ambient: np.ndarray
    zenith: np.ndarray
    haze: np.ndarray
    visibility: float  # metres at which haze takes 63 %

    def shade(self, albedo: np.ndarray, normals: np.ndarray) -> np.ndarray:
        """Return the colours (N, 3) of matt faces with these albedos (N, 3) and unit normals (N, 3)."""
        open_sky = 0.85 + 0.15 * normals[:, 2:]
        return np.asarray(albedo * (self.ambient * open_sky + self.sun * (normals @ self.direction).clip(0)[:, None]))

    def veil(self, metres: np.ndarray | float) -> np.ndarray:
        """Return the fraction of haze at a distance."""
        return np.asarray(1 - np.exp(-np.asarray(metres) / self.visibility), np.float32)


def draw_light(rng: np.random.Generator) -> Light:
    """Draw a random daylight with the sun behind the camera."""
    up, azimuth, gain = math.radians(rng.uniform(28, 60)), math.radians(rng.uniform(-150, -30)), rng.uniform(0.85, 1.1)
    direction = (math.cos(up) * math.cos(azimuth), math.cos(up) * math.sin(azimuth), math.sin(up))
    sun, ambient = np.array([0.56, 0.62, 0.66]) * gain, np.array([0.5, 0.48, 0.45]) * gain
    zenith, haze = (np.minimum(bgr(code) * gain, 250) for code in SKIES[rng.integers(len(SKIES))])
    return Light(np.array(direction), sun, ambient, zenith, haze, rng.uniform(3500, 9000))


@dataclass
class SceneObject:
    """An object on the ground; positions in metres, heading in radians from +x to +y."""

    label: int  # class index, -1 for buildings
    category: str  # "airplane", "truck", "person" or "building"
    model: Model
    colours: dict[str, str]
    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    box: np.ndarray = field(default_factory=lambda: np.zeros(4, np.float32))  # xyxy pixels if nothing hid it
    distance: float = 0.0  # metres from the camera; `Scene.locate` sets this and the box

    def rotation(self) -> np.ndarray:
        """Return the matrix (3, 3) that turns row vectors of the model's frame into the world's."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])

    def vertices(self) -> np.ndarray:
        """Return the vertices in the world, (V, 3) float32 metres."""
        return np.asarray(self.model.vertices @ self.rotation() + (self.x, self.y, 0))

    def world(self, dx: float, dy: float) -> tuple[float, float]:
        """Convert a point in the object's own frame, `dx` forward and `dy` left, to world x and y."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return self.x + dx * c - dy * s, self.y + dx * s + dy * c

    def overlaps(self, other: "SceneObject") -> bool:
        """Return whether the rectangles around two footprints, with their margins, overlap."""
        rectangles = []
        for obj in (self, other):
            size = [2 * half + MARGIN for half in obj.model.half_size]
            rectangles.append(((obj.x, obj.y), size, math.degrees(obj.heading)))
        return bool(cv2.rotatedRectangleIntersection(*rectangles)[0] != cv2.INTERSECT_NONE)


def draw_object(category: str, label: int, rng: np.random.Generator) -> SceneObject:
    """Draw a random object of a class, not yet positioned."""
    kinds, build, palette = CATEGORIES[category]
    colours = {name: str(rng.choice(codes)) for name, codes in palette.items()}
    return SceneObject(label, category, build(str(rng.choice(kinds))), colours)


class Line(NamedTuple):
    """A straight line on the ground between two points (x, y), all in metres."""

    start: tuple[float, float]
    end: tuple[float, float]
    width: float
    colour: str  # "white" or "yellow"


@dataclass
class Scene:
    """Everything in an image."""

    camera: Camera
    light: Light
    apron: float  # the concrete ends at this y, metres
    terminal: float = 0.0  # y of the line of buildings
    strips: list[float] = field(default_factory=list)  # y of the taxiways beyond the apron
    lines: list[Line] = field(default_factory=list)
    objects: list[SceneObject] = field(default_factory=list)

    def add_line(self, y: float, width: float, colour: str = "yellow") -> None:
        """Paint a line along the apron."""
        self.lines.append(Line((-2500, y), (2500, y), width, colour))

    def add_strip(self, y: float) -> None:
        """Add a taxiway along the apron, with its lines."""
        self.strips.append(y)
        for offset, width in ((0.0, 0.9), (1.5 - STRIP_WIDTH / 2, 0.4), (STRIP_WIDTH / 2 - 1.5, 0.4)):
            self.add_line(y + offset, width)

    def locate(self, obj: SceneObject) -> bool:
        """Set an object's box and distance; return whether it is in front of the camera and at least partly in view."""
        pixels, depth = self.camera.project(obj.vertices())
        low, high = pixels.min(0), pixels.max(0)
        obj.box, obj.distance = np.concatenate([low, high]), math.hypot(obj.x, obj.y)
        in_view = (high > 1).all() and (low < (self.camera.width - 1, self.camera.height - 1)).all()
        return bool(depth.min() > NEAR and in_view)

    def depth_order(self, obj: SceneObject) -> tuple[int, float]:
        """Return a key that sorts objects from far to near; the line of buildings has its own layer."""
        layer = 0 if obj.y > self.terminal else 2
        return 1 if obj.y == self.terminal else layer, -obj.distance

    def add(self, obj: SceneObject) -> bool:
        """Add an object, after `locate`, if it is clear of the others and hides little; return whether it was added."""
        x0, y0, x1, y1 = obj.box.tolist()
        for other in self.objects:
            if obj.overlaps(other):
                return False
            a0, b0, a1, b1 = other.box.tolist()
            shared = max(0.0, min(x1, a1) - max(x0, a0)) * max(0.0, min(y1, b1) - max(y0, b0))
            far = obj if self.depth_order(obj) < self.depth_order(other) else other
            if far.label >= 0 and shared > MAX_HIDDEN * (far.box[2:] - far.box[:2]).prod():
                return False
        self.objects.append(obj)
        if obj.category == "airplane" and obj.y < self.apron:  # the line on which it rolled to its stand
            half_length, _ = obj.model.half_size
            self.lines.append(Line(obj.world(-1.8 * half_length, 0), obj.world(0.9 * half_length, 0), 0.4, "yellow"))
        return True

    def add_building(self, kind: str, wall: str, x: float, y: float) -> None:
        """Add a building that faces the camera, see `models.build_building`, before other objects."""
        obj = SceneObject(-1, "building", models.build_building(kind), {"wall": wall}, x, y, -math.pi / 2)
        if self.locate(obj):
            self.objects.append(obj)
