"""What a scene holds: objects on level ground, lines painted on it, a camera and the light."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import NamedTuple

import cv2
import numpy as np

from small_object.scenes import ground
from small_object.scenes.aircraft import AIRFRAMES, LIVERIES, build_aircraft
from small_object.scenes.camera import Camera
from small_object.scenes.light import Light
from small_object.scenes.solids import Model

STRIP_WIDTH = 30.0  # metres
NEAR = 3.0  # metres; nothing nearer to the camera is rendered
MARGIN = 0.8  # metres to keep free around an object
MAX_HIDDEN = 0.2  # of an object's box, behind any other
CATEGORIES: dict[str, tuple[Sequence[str], Callable[[str], Model], dict[str, tuple[str, ...]]]] = {
    "airplane": (list(AIRFRAMES), build_aircraft, LIVERIES),
    "truck": (ground.TRUCKS, ground.build_truck, ground.TRUCK_COLOURS),
    "person": (list(ground.STRIDES), ground.build_person, ground.CLOTHES),
}


@dataclass
class SceneObject:
    """Something that stands on the ground; positions in metres, heading in radians from +x to +y."""

    label: int  # class index, -1 for buildings
    category: str  # "airplane", "truck", "person" or "building"
    model: Model
    colours: dict[str, str]
    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    box: np.ndarray = field(default_factory=lambda: np.zeros(4, np.float32))  # xyxy pixels if nothing hid it
    distance: float = 0.0  # metres from the camera; this and the box are set when it joins a scene

    def rotation(self) -> np.ndarray:
        """Return the matrix (3, 3) that turns row vectors of the model's frame into the world's."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]])

    def vertices(self) -> np.ndarray:
        """Return the vertices in the world, (V, 3) float32 metres."""
        return np.asarray(self.model.vertices @ self.rotation() + (self.x, self.y, 0))

    def world(self, dx: float, dy: float) -> tuple[float, float]:
        """Turn a point in the object's own frame, `dx` forward and `dy` left, into world x and y."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return self.x + dx * c - dy * s, self.y + dx * s + dy * c

    def overlaps(self, other: SceneObject) -> bool:
        """Return whether the rectangles around two footprints, with their margins, overlap."""
        rectangles = []
        for obj in (self, other):
            size = [2 * half + MARGIN for half in obj.model.half_size]
            rectangles.append(((obj.x, obj.y), size, math.degrees(obj.heading)))
        return bool(cv2.rotatedRectangleIntersection(*rectangles)[0] != cv2.INTERSECT_NONE)


def draw_object(category: str, label: int, rng: np.random.Generator) -> SceneObject:
    """Draw an object of a class, not yet positioned."""
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
    """Everything that an image shows."""

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
        """Return a key that sorts objects from far to near; the line of buildings is a layer of its own."""
        layer = 0 if obj.y > self.terminal else 2
        return 1 if obj.y == self.terminal else layer, -obj.distance

    def add(self, obj: SceneObject) -> bool:
        """Add an object, after `locate`, if it stands clear of the others and little is hidden in the image."""
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
        """Add a building that looks towards the camera, see `ground.build_building`, before there are objects."""
        obj = SceneObject(-1, "building", ground.build_building(kind), {"wall": wall}, x, y, -math.pi / 2)
        if self.locate(obj):
            self.objects.append(obj)
