"""What a scene holds: objects on level ground, the airport's grid, a camera and the light."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np

from small_object.scenes.aircraft import AIRCRAFT, AIRFRAMES, build_aircraft, draw_livery
from small_object.scenes.camera import NEAR, Camera
from small_object.scenes.light import Light
from small_object.scenes.mesh import Mesh
from small_object.scenes.people import POSES, build_person, draw_clothes
from small_object.scenes.vehicles import VEHICLES, build_vehicle, draw_vehicle_colours

BUILDERS = {"airplane": build_aircraft, "truck": build_vehicle, "person": build_person}
FREQUENCIES = {"airplane": AIRCRAFT, "truck": VEHICLES, "person": dict.fromkeys(POSES, 1)}
KINDS = {name: [kind for kind, n in kinds.items() for _ in range(n)] for name, kinds in FREQUENCIES.items()}


class Footprint:
    """Convex quads (N, 4, 2) with what it takes to test them against others quickly."""

    def __init__(self, quads: Sequence[np.ndarray | list[tuple[float, float]]]) -> None:
        self.quads = np.array(quads)
        edges = np.roll(self.quads, -1, 1) - self.quads
        self.normals = np.stack([-edges[..., 1], edges[..., 0]], -1)
        own = self.normals @ self.quads.transpose(0, 2, 1)
        self.low, self.high = own.min(-1), own.max(-1)  # (N, 4): along each edge's normal

    def separated(self, other: Footprint) -> np.ndarray:
        """Return which pairs of quads an edge of these quads separates: (N of these, N of the others) bool."""
        along = np.einsum("nek,mck->nmec", self.normals, other.quads)
        return np.asarray(((self.high[:, None] <= along.min(-1)) | (along.max(-1) <= self.low[:, None])).any(-1))

    def overlaps(self, other: Footprint) -> bool:
        """Return whether any two quads of both overlap (separating axes)."""
        return not bool((self.separated(other) | other.separated(self).T).all())


@dataclass
class SceneObject:
    """Something that stands on the ground; positions in metres, heading in radians from +x to +y."""

    label: int  # class index, -1 for scenery
    category: str  # "airplane", "truck", "person" or "scenery"
    kind: str
    mesh: Mesh
    colours: dict[str, str]
    x: float = 0.0
    y: float = 0.0
    heading: float = 0.0
    margin: float = 0.6  # metres to keep free around it
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))  # xyxy pixels, set when it joins a scene
    distance: float = 0.0  # metres from the camera, likewise
    hidden: float = 0.0  # share of its box behind other objects, summed
    cached_footprint: Footprint | None = None

    @property
    def half(self) -> tuple[float, float]:
        """Half length and half width of the footprint, metres."""
        return self.mesh.half_size

    @property
    def reach(self) -> float:
        """Metres from the middle to a corner of the footprint."""
        return math.hypot(*self.half)

    def vertices(self) -> np.ndarray:
        """Return the vertices in the world, (V, 3) float32 metres."""
        return self.mesh.transform(self.x, self.y, self.heading)

    def world(self, dx: float, dy: float) -> tuple[float, float]:
        """Turn a point in the object's own frame, `dx` forward and `dy` left, into world x and y."""
        c, s = math.cos(self.heading), math.sin(self.heading)
        return self.x + dx * c - dy * s, self.y + dx * s + dy * c

    def set_detail(self, pixels: float) -> None:
        """Take the level of detail for an object that is `pixels` wide or tall."""
        detail = int(pixels >= 16) + int(pixels >= (90 if self.category == "airplane" else 40))
        self.mesh, self.cached_footprint = BUILDERS[self.category](self.kind, detail), None

    def corners(self, margin: float = 0.0) -> np.ndarray:
        """Return the corners of the rectangle around the footprint, (4, 2) metres."""
        a, b = self.half[0] + margin, self.half[1] + margin
        return self._rotate([(a, b), (a, -b), (-a, -b), (-a, b)])

    def footprint(self) -> Footprint:
        """Return the footprint; an aircraft's is hull, wings and tail, so that others fit between."""
        if self.cached_footprint is None:
            quads = self._aircraft_parts() if self.category == "airplane" else [self.corners(self.margin)]
            self.cached_footprint = Footprint(quads)
        return self.cached_footprint

    def _aircraft_parts(self) -> list[np.ndarray]:
        (a, b), d = self.half, AIRFRAMES[self.kind].diameter
        parts = [
            [(front, half), (front, -half), (rear, -half), (rear, half)]
            for front, rear, half in ((a + 1, -a, d / 2 + 0.7), (0.22 * a, -0.22 * a, d), (-0.66 * a, -a, 0.4 * b))
        ]
        sweep = 0.25 * b
        for y in (-b, b):
            trailing_tip = (-0.12 * a - sweep * 1.4, y)
            parts.append([(0.36 * a, 0), (0.36 * a - sweep, y * 0.5), (0.06 * a - sweep * 1.6, y), trailing_tip])
            parts.append([trailing_tip, (0.06 * a - sweep, y), (0.3 * a, 0), (-0.15 * a, 0)])
        return [self._rotate(part) for part in parts]

    def _rotate(self, points: list[tuple[float, float]]) -> np.ndarray:
        c, s = math.cos(self.heading), math.sin(self.heading)
        return np.asarray(np.array(points) @ np.array([[c, s], [-s, c]]) + (self.x, self.y))


def draw_object(category: str, label: int, rng: np.random.Generator) -> SceneObject:
    """Draw an object of a class, not yet positioned."""
    kind = str(rng.choice(KINDS[category]))
    mesh = BUILDERS[category](kind, 1)
    if category == "airplane":
        return SceneObject(label, category, kind, mesh, draw_livery(rng))
    if category == "truck":
        return SceneObject(label, category, kind, mesh, draw_vehicle_colours(kind, rng))
    return SceneObject(label, category, kind, mesh, draw_clothes(rng), margin=0.15)


def _is_before(a: SceneObject, b: SceneObject) -> bool:
    """Return whether `a` stands between the camera and `b`, or nearer to it."""
    if b.label < 0 <= a.label:
        return not _is_before(b, a)
    if a.label >= 0 or a.half[1] < 8:
        return a.distance < b.distance
    # A building's middle says little, so follow the lines of sight
    sights = [[(-0.05, 0), (0.05, 0), (x + 0.05, y), (x - 0.05, y)] for x, y in [*b.corners().tolist(), (b.x, b.y)]]
    return Footprint([a.corners()]).overlaps(Footprint(sights))


class Strip(NamedTuple):
    """A strip of asphalt along the apron, between two lines of the grid."""

    low: float  # v, metres
    high: float
    kind: str  # "taxiway", "runway" or "road"


class Stand(NamedTuple):
    """A marked position for an aircraft."""

    x: float
    y: float
    heading: float
    half_length: float
    half_width: float


@dataclass
class Scene:
    """Everything that an image shows. `turn` rotates the airport's grid: u along the apron's edge, v away from it."""

    camera: Camera
    light: Light
    turn: float
    apron: float  # the concrete ends at this v, metres
    side: float  # and at this |u|
    objects: list[SceneObject] = field(default_factory=list)
    strips: list[Strip] = field(default_factory=list)
    lanes: list[float] = field(default_factory=list)  # v of the taxi lanes on the apron
    stands: list[Stand] = field(default_factory=list)

    def grid(self, x: Any, y: Any) -> tuple[Any, Any]:
        """Turn world x, y into grid u, v."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        return x * c + y * s, y * c - x * s

    def world(self, u: Any, v: Any) -> tuple[Any, Any]:
        """Turn grid u, v into world x, y."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        return u * c - v * s, u * s + v * c

    def project(self, obj: SceneObject) -> tuple[np.ndarray, float]:
        """Return an object's box if nothing hid it, xyxy pixels (4,), and its distance; an empty box if too near."""
        pixels, depth = self.camera.project(obj.vertices())
        if depth.min() < NEAR:
            return np.array([0, 0, -1, -1], np.float32), 0.0
        return np.concatenate([pixels.min(0), pixels.max(0)], dtype=np.float32), math.hypot(obj.x, obj.y)

    def add(self, obj: SceneObject, max_hidden: float = 0.35) -> bool:
        """Add an object if it stands clear of the others and hides, or is hidden by, little of them in the image."""
        obj.box, obj.distance = self.project(obj)
        if obj.box[2] <= obj.box[0]:
            return False
        obj.cached_footprint = None
        behind: list[tuple[SceneObject, float]] = []
        x0, y0, x1, y1 = obj.box.tolist()
        for other in self.objects:
            near = math.hypot(obj.x - other.x, obj.y - other.y) < obj.reach + other.reach + 3
            if near and obj.footprint().overlaps(other.footprint()):
                return False
            if obj.label < 0 and other.label < 0:
                continue
            a0, b0, a1, b1 = other.box.tolist()
            width, height = min(x1, a1) - max(x0, a0), min(y1, b1) - max(y0, b0)
            if width <= 0 or height <= 0:
                continue
            far = obj if _is_before(other, obj) else other
            if far.label < 0:  # scenery may be hidden
                continue
            # The box of an aircraft is mostly air
            weight = 0.6 if obj.category == other.category == "airplane" else 1.0
            f0, g0, f1, g1 = far.box.tolist()
            share = weight * width * height / ((f1 - f0) * (g1 - g0))
            behind.append((far, share))
            if share > max_hidden or far.hidden + sum(h for t, h in behind if t is far) > 0.55:
                return False
        for far, share in behind:
            far.hidden += share
        self.objects.append(obj)
        return True

    def add_stand(self, plane: SceneObject) -> None:
        """Mark the stand of a parked aircraft."""
        self.stands.append(Stand(plane.x, plane.y, plane.heading, *plane.half))
