"""Lays out made-up airport scenes: the light, where everything stands and from where it is seen.

A scene is a list of things on level ground, a camera and the weather; nothing is painted here. Objects are put where
their boxes get the sizes that are asked for, and where they neither stand in nor hide each other much.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from small_object.scenes import models
from small_object.scenes.models import Camera, Mesh, bgr, place
from small_object.sizes import COCO_LARGE, COCO_SMALL

if TYPE_CHECKING:
    from small_object.scenes.generate import DemoSet

WOODS = 3000.0  # metres to the trees that close the view


# Light ----------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Light:
    """Colours (BGR, 1 = full white for lights) and geometry of a scene's light."""

    zenith: np.ndarray
    haze: np.ndarray
    sun: np.ndarray
    ambient: np.ndarray
    direction: np.ndarray  # unit vector to the sun
    shadow: float  # how dark shadows are, 0 to 1
    clouds: float  # share of the sky under clouds, 0 to 1
    reach: float  # metres at which haze takes 63 %


# zenith, haze, sun, ambient (RGB), sun's elevation in degrees, shadow, clouds, reach
WEATHER = {
    "clear": ("#3f78b8", "#c5d6e4", (0.78, 0.75, 0.68), (0.40, 0.43, 0.48), (32, 62), 0.56, (0.1, 0.4), (6000, 12000)),
    "fair": ("#4d82b8", "#ccd8e2", (0.70, 0.67, 0.61), (0.42, 0.44, 0.48), (25, 55), 0.50, (0.4, 0.7), (4500, 9000)),
    "low": ("#587fa8", "#e8cfae", (0.92, 0.72, 0.47), (0.33, 0.35, 0.41), (11, 22), 0.50, (0.15, 0.55), (3500, 7000)),
    "overcast": (
        "#a3abb3",
        "#cfd3d6",
        (0.16, 0.16, 0.16),
        (0.66, 0.67, 0.69),
        (50, 75),
        0.22,
        (0.9, 1.0),
        (2500, 6000),
    ),
    "hazy": ("#9db4c8", "#d8dcdc", (0.50, 0.48, 0.43), (0.52, 0.53, 0.55), (25, 50), 0.36, (0.2, 0.5), (1300, 2600)),
    "dusk": ("#3a4a72", "#d9a98b", (0.42, 0.30, 0.22), (0.36, 0.37, 0.44), (8, 14), 0.28, (0.3, 0.7), (3500, 7000)),
}


def _light(rng: np.random.Generator) -> Light:
    kind = rng.choice(list(WEATHER), p=[0.28, 0.26, 0.14, 0.18, 0.09, 0.05])
    zenith, haze, sun, ambient, elevation, shadow, clouds, reach = WEATHER[kind]
    up, side = math.radians(rng.uniform(*elevation)), rng.uniform(0, 2 * math.pi)
    direction = np.array([math.cos(up) * math.cos(side), math.cos(up) * math.sin(side), math.sin(up)], np.float32)
    gain = rng.uniform(0.92, 1.08)
    sun, ambient = (np.array(c[::-1], np.float32) * gain for c in (sun, ambient))
    tint = rng.uniform(0.95, 1.05, 3).astype(np.float32)
    return Light(
        np.minimum(bgr(zenith) * tint * gain, 255), np.minimum(bgr(haze) * tint * gain, 250), sun, ambient, direction,
        shadow, rng.uniform(*clouds), rng.uniform(*reach),
    )  # fmt: skip


# Scenes ---------------------------------------------------------------------------------------------------------------


class Pieces:
    """Convex quads (N, 4, 2) with what it takes to test them against others quickly."""

    def __init__(self, quads: list[np.ndarray]) -> None:
        self.quads = np.array(quads)
        edges = np.roll(self.quads, -1, 1) - self.quads
        self.normals = np.stack([-edges[..., 1], edges[..., 0]], -1)
        own = self.normals @ self.quads.transpose(0, 2, 1)
        self.low, self.high = own.min(-1), own.max(-1)  # (N, 4): along each edge's normal

    def clear_of(self, other: Pieces) -> np.ndarray:
        """Say of which quads of another an edge of these quads is clear: (N of this, N of the other) bool."""
        along = np.einsum("nek,mck->nmec", self.normals, other.quads)
        apart = (self.high[:, None] <= along.min(-1)) | (along.max(-1) <= self.low[:, None])
        return apart.any(-1)

    def overlaps(self, other: Pieces) -> bool:
        """Say whether any two quads of both overlap (separating axes)."""
        return not bool((self.clear_of(other) | other.clear_of(self).T).all())


@dataclass
class Thing:
    """Something that stands on the ground: an object if `label` is a class index, else scenery (-1).

    Positions in metres, heading in radians from +x to +y, `half` the half length and half width of the footprint.
    """

    label: int
    kind: str
    mesh: Mesh
    paint: dict[str, str]
    x: float
    y: float
    heading: float
    margin: float = 0.6
    box: np.ndarray = field(default_factory=lambda: np.zeros(4))  # xyxy pixels, set when it joins a scene
    distance: float = 0.0  # metres from the camera, likewise
    hidden: float = 0.0  # share of its box behind other things, summed
    pieces: Pieces | None = None  # its footprint, once it has joined a scene
    reach: float = 0.0  # metres from its middle to a corner of the footprint, likewise

    @property
    def half(self) -> tuple[float, float]:
        """Half length and half width of the footprint, metres."""
        return self.mesh.half_size

    def change_mesh(self, mesh: Mesh) -> None:
        """Take another level of detail."""
        self.mesh, self.pieces, self.reach = mesh, None, math.hypot(*mesh.half_size)

    def corners(self, margin: float = 0.0) -> np.ndarray:
        """Footprint's corners, (4, 2) metres."""
        a, b = self.half[0] + margin, self.half[1] + margin
        c, s = math.cos(self.heading), math.sin(self.heading)
        local = np.array([[a, b], [a, -b], [-a, -b], [-a, b]])
        return local @ np.array([[c, s], [-s, c]]) + (self.x, self.y)


def strokes(thing: Thing) -> list[np.ndarray]:
    """Footprint as convex pieces, (4, 2) each: an aircraft is hull, wings and tail, so that others fit between."""
    if not (thing.label == 0 and thing.kind in models.AIRFRAMES):
        return [thing.corners(thing.margin)]
    length, wide = thing.half
    d = models.AIRFRAMES[thing.kind].diameter
    sweep = 0.25 * wide
    pieces = [
        [(length + 1, d / 2 + 0.7), (length + 1, -d / 2 - 0.7), (-length, -d / 2 - 0.7), (-length, d / 2 + 0.7)],
        [(0.22 * length, d), (0.22 * length, -d), (-0.22 * length, -d), (-0.22 * length, d)],
        [(-0.66 * length, 0.4 * wide), (-0.66 * length, -0.4 * wide), (-length, -0.4 * wide), (-length, 0.4 * wide)],
    ]
    for side in (-1, 1):
        pieces.append([
            (0.36 * length, 0), (0.36 * length - sweep, side * wide * 0.5), (0.06 * length - sweep * 1.6, side * wide),
            (-0.12 * length - sweep * 1.4, side * wide),
        ])  # fmt: skip
        pieces.append(
            [
                (-0.12 * length - sweep * 1.4, side * wide),
                (0.06 * length - sweep, side * wide),
                (0.3 * length, 0),
                (-0.15 * length, 0),
            ]
        )
    c, s = math.cos(thing.heading), math.sin(thing.heading)
    turn = np.array([[c, s], [-s, c]])
    return [np.array(p) @ turn + (thing.x, thing.y) for p in pieces]


def overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Say whether two convex quads (4, 2) overlap."""
    return Pieces([a]).overlaps(Pieces([b]))


def _is_before(a: Thing, b: Thing) -> bool:
    """Say whether `a` stands between the camera and `b`, or nearer to it."""
    if b.label < 0 <= a.label:
        return not _is_before(b, a)
    if a.label >= 0 or a.half[1] < 8:
        return a.distance < b.distance
    # A building's middle says little, so follow the lines of sight
    sights = [[(-0.05, 0), (0.05, 0), (x + 0.05, y), (x - 0.05, y)] for x, y in [*b.corners().tolist(), (b.x, b.y)]]
    return Pieces([a.corners()]).overlaps(Pieces(sights))


@dataclass
class Scene:
    """Everything that a picture shows. `turn` rotates the airport's grid: u along the apron's edge, v away from it."""

    camera: Camera
    light: Light
    turn: float
    apron: float  # the concrete ends at this v, metres
    side: float  # and at this |u|
    things: list[Thing] = field(default_factory=list)
    strips: list[tuple[float, float, str]] = field(default_factory=list)  # v from, v to, "taxiway", "runway" or "road"
    lanes: list[float] = field(default_factory=list)  # v of the taxi lanes on the apron
    stands: list[tuple[float, float, float, float, float]] = field(
        default_factory=list
    )  # x, y, heading, half l, half w

    def grid(self, x, y):
        """Turn world x, y into grid u, v."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        return x * c + y * s, y * c - x * s

    def world(self, u, v):
        """Turn grid u, v into world x, y."""
        c, s = math.cos(self.turn), math.sin(self.turn)
        return u * c - v * s, u * s + v * c

    def outline(self, thing: Thing) -> tuple[np.ndarray, float]:
        """Box of a thing in the image if nothing hid it, xyxy pixels (4,), and its distance in metres."""
        pixels, depth = self.camera.project(place(thing.mesh, thing.x, thing.y, thing.heading))
        if depth.min() < models.NEAR:
            return np.array([0, 0, -1, -1], np.float32), 0.0
        return np.concatenate([pixels.min(0), pixels.max(0)], dtype=np.float32), math.hypot(thing.x, thing.y)

    def add(self, thing: Thing, hide: float = 0.35) -> bool:
        """Add a thing if it stands clear of the others and hides, or is hidden by, little of them in the picture."""
        thing.box, thing.distance = self.outline(thing)
        if thing.box[2] <= thing.box[0]:
            return False
        thing.reach, thing.pieces = math.hypot(*thing.half), None
        behind: list[tuple[Thing, float]] = []
        x0, y0, x1, y1 = thing.box.tolist()
        plane, scenery = thing.kind in models.AIRFRAMES, thing.label < 0
        for other in self.things:
            if math.hypot(thing.x - other.x, thing.y - other.y) < thing.reach + other.reach + 3:
                thing.pieces = thing.pieces or Pieces(strokes(thing))
                other.pieces = other.pieces or Pieces(strokes(other))
                if thing.pieces.overlaps(other.pieces):
                    return False
            if scenery and other.label < 0:
                continue
            a0, b0, a1, b1 = other.box.tolist()
            if x1 <= a0 or a1 <= x0 or y1 <= b0 or b1 <= y0:
                continue
            wide, tall = min(x1, a1) - max(x0, a0), min(y1, b1) - max(y0, b0)
            far = thing if _is_before(other, thing) else other
            if far.label < 0:  # scenery may be hidden
                continue
            # the box of an aircraft is mostly air
            weight = 0.6 if plane and other.kind in models.AIRFRAMES else 1.0
            f0, g0, f1, g1 = far.box.tolist()
            share = weight * wide * tall / ((f1 - f0) * (g1 - g0))
            behind.append((far, share))
            if share > hide or far.hidden + sum(h for t, h in behind if t is far) > 0.55:
                return False
        for far, share in behind:
            far.hidden += share
        self.things.append(thing)
        return True


# Placement ------------------------------------------------------------------------------------------------------------

AIRCRAFT_KINDS = (
    "narrow",
    "narrow",
    "narrow",
    "narrow_long",
    "wide",
    "heavy",
    "regional",
    "regional",
    "turboprop",
    "business",
)
TRUCK_KINDS = (
    "box",
    "catering",
    "catering",
    "tanker",
    "tanker",
    "flatbed",
    "tug",
    "tug",
    "bus",
    "van",
    "van",
    "fire",
    "stairs",
    "pushback",
    "belt",
)


def _make(name: str, label: int, rng: np.random.Generator, detail: int = 1) -> Thing:
    """Draw an object of a class, not yet placed."""
    if name == "airplane":
        kind = str(rng.choice(AIRCRAFT_KINDS))
        return Thing(label, kind, models.aircraft(kind, detail), models.aircraft_paint(rng), 0, 0, 0)
    if name == "truck":
        kind = str(rng.choice(TRUCK_KINDS))
        return Thing(label, kind, models.truck(kind, detail), models.truck_paint(kind, rng), 0, 0, 0)
    kind = str(rng.choice(models.POSES))
    return Thing(label, kind, models.person(kind, detail), models.person_paint(rng), 0, 0, 0, margin=0.15)


def _detailed(thing: Thing, pixels: float) -> Mesh:
    """Pick the level of detail for an object that is `pixels` wide or tall."""
    detail = 0 if pixels < 16 else 1 if pixels < (90 if thing.kind in models.AIRFRAMES else 40) else 2
    build = (
        models.aircraft
        if thing.kind in models.AIRFRAMES
        else models.truck
        if thing.kind in models.TRUCKS
        else models.person
    )
    return build(thing.kind, detail)


SIZE_RANGES = ((110.0, 900.0), (1180.0, 8000.0), (10600.0, 75000.0))  # box areas aimed at, clear of the limits


def _settle(scene: Scene, thing: Thing, size: int, rng: np.random.Generator) -> bool:
    """Keep an object where it stands if the surface, the neighbours and the size of its box allow it."""
    cam, plane = scene.camera, thing.kind in models.AIRFRAMES
    u, v = scene.grid(thing.x, thing.y)
    strip = None
    if scene.apron - (thing.half[1] if plane else 4) < v < scene.apron:
        return False
    if v > scene.apron:  # beyond the apron: on a strip that is there or a new one
        room = 18.0 if plane else 5.0
        kinds = ("taxiway", "runway") if plane else ("taxiway", "road")
        inside = [s for s in scene.strips if s[0] < v < s[1] and s[2] in kinds]
        if thing.kind in models.POSES and not inside:
            return False
        if plane:
            if inside:  # onto the centre line
                thing.x, thing.y = scene.world(u, sum(inside[0][:2]) / 2)
            thing.heading = scene.turn + (math.pi if rng.random() < 0.5 else 0) + rng.normal(0, 0.02)
        if not inside:
            if len(scene.strips) > 4 or v - room < scene.apron + 15:
                return False
            if any(v + room + 12 > s[0] and v - room - 12 < s[1] for s in scene.strips):
                return False
            strip = (
                float(v - room),
                float(v + room),
                ("runway" if rng.random() < 0.3 else "taxiway") if plane else "road",
            )
    box, _ = scene.outline(thing)
    wide, tall = (box[2:] - box[:2]).tolist()
    low, high = (0, COCO_SMALL * 1.08, COCO_LARGE * 1.08)[size], (COCO_SMALL * 0.95, COCO_LARGE * 0.92, 3e5)[size]
    if wide <= 0 or not low < wide * tall < high or min(wide, tall) < 5:
        return False
    clipped = np.clip(box, 0, (cam.width, cam.height) * 2)
    if (clipped != box).any():  # only large ones may be cut off, and not at their feet
        inside_area = float((clipped[2:] - clipped[:2]).clip(0).prod())
        if size < 2 or inside_area < 0.75 * wide * tall or box[3] - cam.height > 0.1 * tall:
            return False
    if not scene.add(thing):
        return False
    if strip:
        scene.strips.append(strip)
    thing.change_mesh(_detailed(thing, max(wide, tall)))
    return True


def _beside(scene: Scene, thing: Thing, rng: np.random.Generator) -> bool:
    """Move a truck or person to an object that it could be busy with; say whether there is one."""
    worker = thing.kind in models.POSES
    hosts = [t for t in scene.things if t.label >= 0 and (worker or t.kind not in models.POSES)]
    if not hosts:
        return False
    host = hosts[rng.integers(len(hosts))]
    length, wide = host.half
    if host.kind in models.POSES:
        away, angle = rng.uniform(0.9, 4.0), rng.uniform(0, 2 * math.pi)
        dx, dy = away * math.cos(angle), away * math.sin(angle)
    elif worker:
        dx, dy = rng.uniform(-1.15, 1.15) * length, rng.choice((-1, 1)) * (rng.uniform(0.15, 1) * wide + 1.5)
    else:
        dx, dy = rng.uniform(-1.3, 1.3) * length, rng.choice((-1, 1)) * (rng.uniform(0.2, 1.2) * wide + 4)
    c, s = math.cos(host.heading), math.sin(host.heading)
    thing.x, thing.y = host.x + dx * c - dy * s, host.y + dx * s + dy * c
    thing.heading = (
        rng.uniform(0, 2 * math.pi) if worker else host.heading + rng.integers(4) * math.pi / 2 + rng.normal(0, 0.1)
    )
    return thing.y > 3


def _at_size(scene: Scene, thing: Thing, size: int, rng: np.random.Generator) -> bool:
    """Move an object to where its box has an area in the range of `size`; say whether there is such a place."""
    cam = scene.camera
    low, high = SIZE_RANGES[size]
    if thing.kind in models.POSES:
        low, high = max(low, 130.0), min(high, 16000.0)
    elif thing.kind in models.TRUCKS:
        high = min(high, 40000.0)
    target = math.exp(rng.uniform(math.log(low), math.log(high)))
    quarter = scene.turn + rng.integers(4) * math.pi / 2
    if thing.kind in models.AIRFRAMES:
        thing.heading = quarter + (rng.normal(0, 0.03) if rng.random() < 0.8 else rng.uniform(-0.8, 0.8))
    else:
        thing.heading = rng.uniform(0, 2 * math.pi) if thing.kind in models.POSES else quarter + rng.normal(0, 0.2)
    slope = rng.uniform(-0.42, 0.42) * cam.width / cam.focal
    distance = 90.0
    for _ in range(4):
        thing.y = distance / math.hypot(1, slope)
        thing.x = thing.y * slope
        box, _ = scene.outline(thing)
        if box[2] <= box[0]:
            return False
        distance *= math.sqrt(float((box[2:] - box[:2]).prod()) / target)
        if not 6 < distance < 2600:
            return False
    return True


def surface_scene(demo: DemoSet, wanted: list[tuple[str, int]], rng: np.random.Generator) -> Scene:
    """Lay out a camera view that holds the wanted objects at the wanted sizes."""
    light = _light(rng)
    close = any(n == "person" and s > 0 for n, s in wanted)
    order = sorted(wanted, key=lambda o: (o[0] != "airplane", -o[1], o[0] != "truck"))
    best: Scene | None = None
    for _ in range(12):
        mount = math.exp(rng.uniform(math.log(5.5), math.log(14 if close else 30)))
        focal = rng.uniform(900, 1900)
        horizon = (rng.uniform(0.08, 0.34) if rng.random() < 0.75 else rng.uniform(-0.2, 0.08)) * demo.height
        cam = Camera(demo.width, demo.height, focal, mount, horizon)
        scene = Scene(cam, light, math.radians(rng.uniform(-24, 24)), rng.uniform(190, 420), 700.0)
        scene.lanes = [rng.uniform(0.4, 0.62) * scene.apron]
        if rng.random() < 0.5:
            scene.lanes.append(rng.uniform(0.06, 0.2) * scene.apron)
        if rng.random() < 0.75:
            v = scene.apron + rng.uniform(90, 260)
            scene.strips.append((v, v + 45, "runway"))
        for name, size in order:
            for attempt in range(70):
                thing = _make(name, demo.names.index(name), rng)
                beside = attempt < 30 and name != "airplane"
                if (_beside(scene, thing, rng) if beside else _at_size(scene, thing, size, rng)) and _settle(
                    scene, thing, size, rng
                ):
                    break
        placed = sum(t.label >= 0 for t in scene.things)
        if best is None or placed > sum(t.label >= 0 for t in best.things):
            best = scene
        if placed == len(wanted):
            break
    assert best is not None
    _surroundings(best, rng)
    return best


def _facade_paint(rng: np.random.Generator) -> dict[str, str]:
    wall = ("#c9c7c0", "#d8d8d4", "#a9aeb3", "#b8ad9c", "#e3e2dc", "#8f979e")[rng.integers(6)]
    return {
        "wall": wall,
        "roof": "#9a9c9c",
        "trim": ("#f0f0ee", "#6d747a", wall)[rng.integers(3)],
        "gate": ("#6b7278", "#566068", "#9aa3aa")[rng.integers(3)],
        "bridge": ("#dcdedf", "#c9ced2", "#aeb6bd")[rng.integers(3)],
    }


def _add_scenery(
    scene: Scene, kind: str, mesh: Mesh, paint: dict, x: float, y: float, heading: float, hide: float = 0.12
) -> bool:
    """Add an unlabelled thing where it stands free and hides no object."""
    thing = Thing(-1, kind, mesh, paint, x, y, heading, margin=0.3)
    if not scene.camera.panorama and place(mesh, x, y, heading)[:, 1].min() < 4:
        return False
    return scene.add(thing, hide)


def _bridge_to(scene: Scene, plane: Thing, facade: float, paint: dict) -> None:
    """Put a jet bridge from a facade, `facade` metres before the nose, to the left front door of a plane."""
    frame = models.AIRFRAMES[plane.kind]
    door_x, door_y = plane.half[0] - 1.6 * frame.diameter, frame.diameter / 2 + 1.2
    start = np.array([plane.half[0] + facade + 1.0, door_y + 11.0])
    end = np.array([door_x, door_y])
    way = end - start
    c, s = math.cos(plane.heading), math.sin(plane.heading)
    x, y = plane.x + start[0] * c - start[1] * s, plane.y + start[0] * s + start[1] * c
    mesh = models.jet_bridge(round(float(np.hypot(*way)), 1), round(frame.axis - 0.35 * frame.diameter, 1))
    thing = Thing(-1, "bridge", mesh, paint, x, y, plane.heading + math.atan2(way[1], way[0]))
    thing.box, thing.distance = scene.outline(thing)
    if thing.box[2] <= thing.box[0]:
        return
    footprint = Pieces([thing.corners(0.2)])
    for other in scene.things:
        if other.label < 0 or other is plane:
            continue
        shared = np.minimum(thing.box[2:], other.box[2:]) - np.maximum(thing.box[:2], other.box[:2])
        hides = (shared > 0).all() and other.distance > thing.distance
        if hides and shared.prod() > 0.15 * (other.box[2:] - other.box[:2]).prod():
            return
        if footprint.overlaps(Pieces(strokes(other))):
            return
    thing.reach = math.hypot(*thing.half)
    scene.things.append(thing)


def _surroundings(scene: Scene, rng: np.random.Generator) -> None:
    """Add terminals, hangars, a tower, poles and cones around the objects of a surface view, hiding none of them."""
    planes = [t for t in scene.things if t.kind in models.AIRFRAMES and t.label >= 0]
    on_apron = [t for t in planes if scene.grid(t.x, t.y)[1] < scene.apron]
    for plane in on_apron:
        scene.stands.append((plane.x, plane.y, plane.heading, *plane.half))
    paint = _facade_paint(rng)
    # A terminal before the nose of a parked plane, with its bridge
    for plane in on_apron:
        gap, depth, height = rng.uniform(9, 14), rng.uniform(28, 50), rng.uniform(11, 17)
        away = plane.half[0] + gap + depth / 2 + 2
        c, s = math.cos(plane.heading), math.sin(plane.heading)
        shift = rng.uniform(-0.35, 0.35)
        for length in (rng.uniform(150, 260), 110.0, 70.0):
            mesh = models.building("terminal", round(length / 6) * 6.0, round(depth, 1), round(height, 1), True)
            x, y = plane.x + away * c - shift * length * -s, plane.y + away * s - shift * length * c
            if plane.kind != "business" and _add_scenery(scene, "terminal", mesh, paint, x, y, plane.heading + math.pi):
                if models.AIRFRAMES[plane.kind].axis > 3:
                    _bridge_to(scene, plane, gap, paint)
                break
        else:
            continue
        break
    # At the sides and the far end of the apron and beyond
    cam = scene.camera
    half_view = cam.width / 2 / cam.focal
    for _ in range(10):
        kind = str(rng.choice(["terminal", "hangar", "hangar", "office"]))
        length, depth, height = {"terminal": (160, 36, 14), "hangar": (66, 54, 19), "office": (48, 18, 15)}[kind]
        length *= rng.uniform(0.7, 1.3)
        height *= rng.uniform(0.8, 1.25)
        v = scene.apron + depth / 2 + 6 if rng.random() < 0.45 else rng.uniform(scene.apron + 260, scene.apron + 900)
        if any(v + depth / 2 + 12 > s[0] and v - depth / 2 - 12 < s[1] for s in scene.strips):
            continue
        mid = scene.grid(0, v)[0]
        u = mid + rng.uniform(-1.1, 1.1) * half_view * v
        x, y = scene.world(u, v)
        mesh = models.building(kind, round(length / 6) * 6.0, round(depth), round(height), y < 350)
        _add_scenery(scene, kind, mesh, _facade_paint(rng), x, y, scene.turn - math.pi / 2)
    if rng.random() < 0.6:
        y = rng.uniform(350, 1100)
        x = rng.uniform(-0.85, 0.85) * half_view * y
        v = scene.grid(x, y)[1]
        if not any(s[0] - 10 < v < s[1] + 10 for s in scene.strips):
            _add_scenery(scene, "tower", models.building("tower", 16.0, 16.0, 48.0, True), paint, x, y, 0)
    for _ in range(3):
        y = rng.uniform(0.6, 1.0) * scene.apron
        x = rng.uniform(-1, 1) * half_view * y
        _add_scenery(scene, "pole", models.clutter("pole"), {}, x, y, rng.uniform(0, 6.3), 0.02)
    _small_things(scene, on_apron, rng)
    # Empty stands, in line with the parked planes and in rows of their own
    spare = []
    for plane in on_apron[:2]:
        c, s = -math.sin(plane.heading), math.cos(plane.heading)
        for i in (-2, -1, 1, 2):
            gap = i * (2 * plane.half[1] + 9)
            spare.append((plane.x + gap * c, plane.y + gap * s, plane.heading, *plane.half))
    for v in (rng.uniform(14, 60), rng.uniform(0.3, 0.85) * scene.apron):
        heading, shift, half = (
            scene.turn + rng.choice((-1, 1)) * math.pi / 2,
            rng.uniform(0, 40),
            rng.uniform(13, 19, 2),
        )
        spare += [(*scene.world(u + shift, v), heading, *half) for u in np.arange(-240, 240, 2 * half[1] + 9)]
    for x, y, heading, half_l, half_w in spare:
        clear = all(math.hypot(x - p[0], y - p[1]) > max(p[3:]) + max(half_l, half_w) + 4 for p in scene.stands)
        if clear and all(abs(scene.grid(x, y)[1] - lane) > half_l + 8 for lane in scene.lanes):
            scene.stands.append((x, y, heading, half_l, half_w))
    # Things that stand about
    for _ in range(int(rng.integers(1, 6))):
        y = rng.uniform(18, 140)
        x, heading = rng.uniform(-1, 1) * half_view * y, scene.turn + rng.integers(4) * math.pi / 2
        kind, gap = (("container", 2.9), ("container", 2.9), ("cone", 4.0), ("barrier", 0.0))[rng.integers(4)]
        c, s = math.cos(heading), math.sin(heading)
        for i in range(int(rng.integers(2, 7)) if gap else 1):
            _add_scenery(scene, kind, models.clutter(kind), {}, x + i * gap * c, y + i * gap * s, heading, 0.04)


def _small_things(scene: Scene, planes: list[Thing], rng: np.random.Generator) -> None:
    """Add cones at the planes' extremities and containers beside them."""
    for plane in planes:
        c, s = math.cos(plane.heading), math.sin(plane.heading)
        length, wide = plane.half
        spots = [(-0.3 * length, wide + 1.5), (-0.3 * length, -wide - 1.5), (length + 2, 0.8), (-length - 2, 0.0)]
        for fx, fy in spots:
            if rng.random() < 0.7:
                x, y = plane.x + fx * c - fy * s, plane.y + fx * s + fy * c
                _add_scenery(scene, "cone", models.clutter("cone"), {}, x, y, 0, 0.06)
        for _ in range(int(rng.integers(0, 4))):
            fx, fy = rng.uniform(-0.2, 0.9) * length, rng.choice((-1, 1)) * rng.uniform(0.35, 1.0) * wide
            x, y = plane.x + fx * c - fy * s, plane.y + fx * s + fy * c
            for i in range(int(rng.integers(1, 4))):
                heading = plane.heading + math.pi / 2
                _add_scenery(
                    scene, "container", models.clutter("container"), {}, x + 2.8 * i * c, y + 2.8 * i * s, heading, 0.1
                )


def panorama_scene(demo: DemoSet, wanted: list[tuple[str, int]], rng: np.random.Generator) -> Scene:
    """Lay out a panorama: rows of stands before a terminal, service traffic, depots and taxiing planes."""
    cam = Camera(
        demo.width,
        demo.height,
        demo.width / math.radians(rng.uniform(140, 172)),
        rng.uniform(32, 58),
        rng.uniform(0.27, 0.38) * demo.height,
        True,
    )
    scene = Scene(cam, _light(rng), math.radians(rng.uniform(-7, 7)), rng.uniform(430, 520), rng.uniform(620, 900))
    counts = {name: sum(n == name for n, _ in wanted) for name in demo.names}
    spacing, shift = rng.uniform(52, 60), rng.uniform(-25, 25)
    facade = rng.uniform(215, 265)  # v of the terminal's near side
    scene.strips = [
        (v, v + 45, k)
        for v, k in ((scene.apron + rng.uniform(50, 90), "taxiway"), (scene.apron + rng.uniform(200, 320), "runway"))
    ]
    scene.lanes = [facade - 130, facade + 175]
    paint = _facade_paint(rng)
    # The terminal's pier, with gaps, and buildings at the edges of the field
    depth = 40.0
    u0 = -scene.side * 0.75
    while u0 < scene.side * 0.75:
        length = round(rng.uniform(120, 320) / 6) * 6.0
        height = round(rng.uniform(11, 17), 1)
        x, y = scene.world(u0 + length / 2, facade + depth / 2)
        _add_scenery(
            scene,
            "terminal",
            models.building("terminal", length, depth, height, True),
            paint,
            x,
            y,
            scene.turn - math.pi / 2,
        )
        u0 += length + rng.uniform(25, 90)
    for _ in range(14):
        kind = str(rng.choice(["hangar", "office", "hangar"]))
        length, deep, height = {"hangar": (72, 56, 20), "office": (54, 20, 17)}[kind]
        v = rng.uniform(scene.apron + 420, scene.apron + 1100)
        x, y = scene.world(rng.uniform(-1500, 1500), v)
        _add_scenery(
            scene,
            kind,
            models.building(kind, length, deep, round(height * rng.uniform(0.8, 1.3)), False),
            _facade_paint(rng),
            x,
            y,
            scene.turn - math.pi / 2,
        )
    x, y = scene.world(rng.uniform(-500, 500), scene.apron + rng.uniform(-60, -20))
    _add_scenery(scene, "tower", models.building("tower", 16.0, 16.0, 55.0, True), paint, x, y, 0)
    # Stands: (u, v, heading) nose-in at both sides of the pier and remote rows
    slots = []
    for i in np.arange(-scene.side * 0.8, scene.side * 0.8, spacing):
        u = i + shift
        slots.append((u, facade, -1, math.pi / 2, True))
        slots.append((u, facade + depth, 1, -math.pi / 2, True))
        if abs(u) > 60:
            slots.append((u, facade - 165, 1, math.pi / 2 * rng.choice((-1, 1)), False))
        slots.append((u, facade + depth + 160, 1, math.pi / 2, False))
    rng.shuffle(slots)
    left = counts["airplane"]
    moving = min(left, int(rng.integers(3, 7)))
    for u, v, way, heading, nose_in in slots:
        if left <= moving:
            break
        plane = _make("airplane", 0, rng)
        if plane.half[1] * 2 + 5 > spacing:
            if nose_in:
                scene.stands.append((*scene.world(u, v + way * 34), scene.turn + heading, 20.0, 18.0))
            continue
        gap = 11.0
        plane.x, plane.y = scene.world(u, v + way * (plane.half[0] + gap if nose_in else 0))
        plane.heading = scene.turn + heading
        if _try_panorama(scene, plane, rng):
            left -= 1
            scene.stands.append((plane.x, plane.y, plane.heading, *plane.half))
            if nose_in and models.AIRFRAMES[plane.kind].axis > 3:
                _bridge_to(scene, plane, gap, paint)
    for _ in range(600):
        if left <= 0:
            break
        plane = _make("airplane", 0, rng)
        on = rng.integers(len(scene.lanes) + len(scene.strips))
        v = ([*scene.lanes] + [(a + b) / 2 for a, b, _ in scene.strips])[on]
        plane.x, plane.y = scene.world(rng.uniform(-1.1, 1.1) * (scene.side + v), v)
        plane.heading = scene.turn + (0 if rng.random() < 0.5 else math.pi) + rng.normal(0, 0.015)
        left -= _try_panorama(scene, plane, rng)
    planes = [t for t in scene.things if t.label == 0]
    _panorama_trucks(scene, planes, counts["truck"], facade, rng)
    near = [p for p in planes if math.hypot(p.x, p.y) < 330]
    _small_things(scene, near[:8], rng)
    for u in np.arange(-scene.side, scene.side, 110):
        x, y = scene.world(u + 20, facade - 6)
        _add_scenery(scene, "pole", models.clutter("pole"), {}, x, y, scene.turn, 0.05)
    return scene


def _try_panorama(scene: Scene, thing: Thing, rng: np.random.Generator) -> bool:
    """Add an object to a panorama if it is in view, large enough and free."""
    box, distance = scene.outline(thing)
    inside = box[0] > 2 and box[2] < scene.camera.width - 2 and box[3] < scene.camera.height - 2
    if (
        thing.y < 5
        or not inside
        or not 25 < distance < 1500
        or min(box[2:] - box[:2]) < 6
        or (box[2:] - box[:2]).max() > 500
        or not scene.add(thing, 0.42)
    ):
        return False
    thing.change_mesh(_detailed(thing, max(box[2:] - box[:2])))
    return True


def _panorama_trucks(scene: Scene, planes: list[Thing], count: int, facade: float, rng: np.random.Generator) -> None:
    """Spread trucks: at the planes, on the roads before the terminal and in depots."""
    road = facade - 4.0 - 76.0  # behind the tails of the first row
    rows = [(road, 0), (road - 5, math.pi), (facade + 130, 0), (facade + 135, math.pi)]
    depots = [
        (rng.uniform(-0.55, 0.55) * scene.side, v) for v in (facade - 130, facade - 112, facade + 205, scene.apron - 40)
    ]
    for _ in range(count * 60):
        if count <= 0:
            return
        vehicle = _make("truck", 1, rng)
        pick = rng.random()
        if pick < 0.45 and planes:
            plane = planes[rng.integers(len(planes))]
            spot = rng.integers(6)
            length, wide = plane.half
            d = models.AIRFRAMES[plane.kind].diameter
            lx, ly = (
                (0.62 * length, -d / 2 - vehicle.half[0] - 1), (-0.55 * length, -d / 2 - vehicle.half[0] - 1),
                (-0.05 * length, -wide - 5), (length + vehicle.half[0] + 1.5, 0), (0.55 * length, d / 2 + 7),
                (rng.uniform(-1, 1) * length, rng.choice((-1, 1)) * (wide * 0.7 + 3)),
            )[spot]  # fmt: skip
            turn = (math.pi / 2, math.pi / 2, 0, math.pi, rng.uniform(0, 6.3), rng.integers(4) * math.pi / 2)[spot]
            c, s = math.cos(plane.heading), math.sin(plane.heading)
            vehicle.x, vehicle.y = plane.x + lx * c - ly * s, plane.y + lx * s + ly * c
            vehicle.heading = plane.heading + turn + rng.normal(0, 0.08)
        elif pick < 0.72:
            v, way = rows[rng.integers(len(rows))]
            vehicle.x, vehicle.y = scene.world(rng.uniform(-0.9, 0.9) * scene.side, v)
            vehicle.heading = scene.turn + way + rng.normal(0, 0.03)
        else:
            u, v = depots[rng.integers(len(depots))]
            column, row = rng.integers(12), rng.integers(2)
            vehicle.x, vehicle.y = scene.world(u + column * 5.0, v + row * 16)
            vehicle.heading = scene.turn + math.pi / 2 * (1 if row else -1) + rng.normal(0, 0.03)
        count -= _try_panorama(scene, vehicle, rng)
