"""Made-up airport scenes: the demo data sets ASS1-demo (surface cameras) and ASS2-demo (panoramas).

They stand in for the real sets where those are not at hand, with the same classes and the same shares of classes and
object sizes. Every image is drawn from its own random stream, so a set is the same each time it is made.

    python -m ultralytics.data.scenes ASS1-demo --train 500 --val 100 --out datasets/ASS1-demo
"""

from __future__ import annotations

import argparse
import math
import os
import shutil
import sys
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import lru_cache
from pathlib import Path

import cv2
import numpy as np
from ultralytics.data import scene_models as models
from ultralytics.data.scene_models import Camera, Canvas, Mesh, bgr, place
from ultralytics.utils.errors import UserError

SMALL, LARGE = 32**2, 96**2  # COCO's limits on the box area, square pixels
MIN_VISIBLE = 0.25  # of an object's own area; what shows less of itself is taken out of the scene
MIN_SIDE = 3.0  # pixels; narrower boxes can't be told from noise


@dataclass(frozen=True)
class DemoSet:
    """One demo set: its image size, class names, default counts, objects an image and their shares.

    `shares` gives for each class its share of all objects in the small, medium and large bins; None leaves the sizes to
    the scene, and `classes` then gives the mean number of objects of each class in an image.
    """

    name: str
    key: int
    width: int
    height: int
    names: tuple[str, ...]
    train: int
    val: int
    shares: dict[str, tuple[float, float, float]] | None = None
    classes: dict[str, float] = field(default_factory=dict)
    density: float = 0.0
    empty: float = 0.0


# Of ASS1's 8,371 objects 41.4 % are airplanes, 35.8 % persons and 22.8 % trucks; 39.4 % are small and 15.6 % large.
# Large ones are airplanes and near trucks, so the bins are dealt out to the classes unevenly, with those sums kept.
DEMO_SETS = {
    "ASS1-demo": DemoSet(
        "ASS1-demo", 1, 1280, 720, ("airplane", "person", "truck"), 160, 40,
        shares={"airplane": (0.107, 0.189, 0.118), "person": (0.213, 0.140, 0.005), "truck": (0.074, 0.121, 0.033)},
        density=8371 / 2000, empty=0.03,
    ),
    "ASS2-demo": DemoSet(
        "ASS2-demo", 2, 3840, 1080, ("airplane", "truck"), 24, 8, classes={"airplane": 23.41, "truck": 60.73},
    ),
}  # fmt: skip
SPLITS = {"train": 0, "val": 1}


# The plan of a set ----------------------------------------------------------------------------------------------------


def _apportion(total: int, shares: np.ndarray) -> np.ndarray:
    """Split `total` into whole numbers in proportion to `shares` (largest remainders first)."""
    exact = total * shares / shares.sum()
    counts = np.floor(exact).astype(int)
    order = np.argsort(counts - exact, kind="stable")
    counts[order[: total - counts.sum()]] += 1
    return counts


def plan_split(demo: DemoSet, split: str, count: int, seed: int = 0) -> list[list[tuple[str, int]]]:
    """Say which objects each image of a split gets, so that the shares hold for the split as a whole.

    Args:
        demo (DemoSet): The set.
        split (str): "train" or "val".
        count (int): Number of images.
        seed (int): Seed of the set.

    Returns:
        (list[list[tuple[str, int]]]): For each image its objects as (class name, size): 0 small, 1 medium, 2 large,
            -1 as it comes.
    """
    rng = np.random.default_rng([seed, demo.key, SPLITS[split]])
    plan: list[list[tuple[str, int]]] = [[] for _ in range(count)]
    if demo.shares is None:
        spread = rng.uniform(0.8, 1.2, count)
        for name, mean in demo.classes.items():
            for image, n in zip(plan, _apportion(round(mean * count), spread), strict=True):
                image += [(name, -1)] * int(n)
        return plan
    total = round(demo.density * count)
    bins = [(name, size) for name in demo.names for size in range(3)]
    amounts = _apportion(total, np.array([demo.shares[n][s] for n, s in bins]))
    deck = [b for b, n in zip(bins, amounts, strict=True) for _ in range(int(n))]
    weights = rng.gamma(3.5, size=count)
    weights[rng.permutation(count)[: int(demo.empty * count)]] = 0
    cards = iter(rng.permutation(len(deck)))
    for image, n in zip(plan, _apportion(total, weights), strict=True):
        image += [deck[next(cards)] for _ in range(int(n))]
    return plan


# Light, sky and textures ----------------------------------------------------------------------------------------------


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


@lru_cache(maxsize=8)
def _texture(key: int, slope: float, size: int = 512) -> np.ndarray:
    """Make a tileable noise (size, size) float32 of mean 0 and deviation 1; larger slopes are smoother."""
    rng = np.random.default_rng([77, key])
    f = np.hypot(np.fft.fftfreq(size)[:, None], np.fft.rfftfreq(size)[None]) * size
    spectrum = np.fft.rfft2(rng.standard_normal((size, size))) / np.maximum(f, 1) ** slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (size, size))
    return (noise / noise.std()).astype(np.float32)


def _sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray) -> np.ndarray:
    """Read a tileable texture at float coordinates in texels, bilinearly."""
    size = texture.shape[0]
    tiled = cv2.copyMakeBorder(texture, 0, 1, 0, 1, cv2.BORDER_WRAP)
    u, v = (np.ascontiguousarray(c - np.floor(c / size) * size, dtype=np.float32) for c in (x, y))
    return cv2.remap(tiled, u, v, cv2.INTER_LINEAR)


def _mix(a: np.ndarray, b: np.ndarray, t: np.ndarray) -> np.ndarray:
    return a + (b - a) * t


def _ramp(x: np.ndarray, low: float, high: float) -> np.ndarray:
    return np.clip((x - low) / (high - low), 0, 1)


# Scenes ---------------------------------------------------------------------------------------------------------------


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

    @property
    def half(self) -> tuple[float, float]:
        """Half length and half width of the footprint, metres."""
        return self.mesh.half_size

    def corners(self, margin: float = 0.0) -> np.ndarray:
        """Footprint's corners, (4, 2) metres."""
        a, b = self.half[0] + margin, self.half[1] + margin
        c, s = math.cos(self.heading), math.sin(self.heading)
        local = np.array([[a, b], [a, -b], [-a, -b], [-a, b]])
        return local @ np.array([[c, s], [-s, c]]) + (self.x, self.y)


def _strokes(thing: Thing) -> list[np.ndarray]:
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


def _overlap(a: np.ndarray, b: np.ndarray) -> bool:
    """Say whether two convex quads (4, 2) overlap (separating axes)."""
    for quad in (a, b):
        edges = np.roll(quad, -1, 0) - quad
        normals = np.stack([-edges[:, 1], edges[:, 0]], 1)
        pa, pb = normals @ a.T, normals @ b.T
        if ((pa.max(1) <= pb.min(1)) | (pb.max(1) <= pa.min(1))).any():
            return False
    return True


def _is_before(a: Thing, b: Thing) -> bool:
    """Say whether `a` stands between the camera and `b`, or nearer to it."""
    if b.label < 0 <= a.label:
        return not _is_before(b, a)
    if a.label >= 0 or a.half[1] < 8:
        return a.distance < b.distance
    quad = a.corners()  # a building: its middle says little, so follow the lines of sight
    sights = [np.array([(-0.05, 0), (0.05, 0), (x + 0.05, y), (x - 0.05, y)]) for x, y in [*b.corners(), (b.x, b.y)]]
    return any(_overlap(quad, sight) for sight in sights)


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
        return np.concatenate([pixels.min(0), pixels.max(0)]), math.hypot(thing.x, thing.y)

    def add(self, thing: Thing, hide: float = 0.35) -> bool:
        """Add a thing if it stands clear of the others and hides, or is hidden by, little of them in the picture."""
        thing.box, thing.distance = self.outline(thing)
        if thing.box[2] <= thing.box[0]:
            return False
        reach = math.hypot(*thing.half) + 3
        pieces = None
        behind: list[tuple[Thing, float]] = []
        x0, y0, x1, y1 = thing.box.tolist()
        for other in self.things:
            if math.hypot(thing.x - other.x, thing.y - other.y) < reach + math.hypot(*other.half):
                pieces = pieces or _strokes(thing)
                if any(_overlap(p, q) for p in pieces for q in _strokes(other)):
                    return False
            a0, b0, a1, b1 = other.box
            wide, tall = min(x1, a1) - max(x0, a0), min(y1, b1) - max(y0, b0)
            if wide <= 0 or tall <= 0 or (thing.label < 0 and other.label < 0):
                continue
            far = thing if _is_before(other, thing) else other
            if far.label < 0:  # scenery may be hidden
                continue
            # the box of an aircraft is mostly air
            weight = 0.6 if thing.kind in models.AIRFRAMES and other.kind in models.AIRFRAMES else 1.0
            f0, g0, f1, g1 = far.box
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


WOODS = 3000.0  # metres to the trees that close the view
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
    low, high = (0, SMALL * 1.08, LARGE * 1.08)[size], (SMALL * 0.95, LARGE * 0.92, 3e5)[size]
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
    thing.mesh = _detailed(thing, max(wide, tall))
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


def _surface_scene(demo: DemoSet, wanted: list[tuple[str, int]], rng: np.random.Generator) -> Scene:
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
    quad = thing.corners(0.2)
    for other in scene.things:
        if other.label < 0 or other is plane:
            continue
        shared = np.minimum(thing.box[2:], other.box[2:]) - np.maximum(thing.box[:2], other.box[:2])
        hides = (shared > 0).all() and other.distance > thing.distance
        if hides and shared.prod() > 0.15 * (other.box[2:] - other.box[:2]).prod():
            return
        if any(_overlap(quad, q) for q in _strokes(other)):
            return
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


def _panorama_scene(demo: DemoSet, wanted: list[tuple[str, int]], rng: np.random.Generator) -> Scene:
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
    thing.mesh = _detailed(thing, max(box[2:] - box[:2]))
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


# Drawing --------------------------------------------------------------------------------------------------------------


def _sky(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Draw the sky and what lies on the horizon: (rows, width, 3) float32 BGR, down to the horizon."""
    cam, light = scene.camera, scene.light
    rows = int(min(cam.height, max(0, math.ceil(cam.horizon)))) + 1
    angle = np.maximum(cam.horizon - np.arange(rows, dtype=np.float32), 0)[:, None] / cam.focal
    t = (1 - np.exp(-angle * 4.5))[..., None]
    sky = np.broadcast_to(_mix(light.haze, light.zenith, t), (rows, cam.width, 3)).copy()
    bearing = (np.arange(cam.width, dtype=np.float32)[None] - cam.width / 2) / cam.focal
    # A layer of clouds at a fixed height, so that they shrink towards the horizon
    far = 1 / (angle + 0.055)
    ox, oy = rng.uniform(0, 512, 2)
    texture = _texture(1, 1.75)
    x, y = far * np.sin(bearing) * 26 + ox, far * np.cos(bearing) * 26 + oy
    cloud = _sample(texture, x, y) + 0.35 * _sample(_texture(2, 1.3), x * 3.1, y * 3.1)
    level = 1.5 - 2.7 * light.clouds
    cover = _ramp(cloud, level, level + 0.9) * _ramp(angle, 0.004, 0.06)
    shade = _ramp(cloud, level + 0.3, level + 2.2)[..., None]
    bright = np.minimum(light.haze * 0.35 + 255 * 0.65 * np.minimum(light.sun + light.ambient, 1.05), 252)
    tone = _mix(bright, light.haze * 0.3 + light.zenith * 0.2 + bright * 0.34, shade)
    sky = _mix(sky, tone, cover[..., None] * (0.92 if light.clouds < 0.85 else 0.8))
    # Hills and a line of trees
    profile = _texture(3, 1.6)
    for index, (height, metres, colour) in enumerate(
        ((rng.uniform(0.008, 0.03), 9000, "#5d7460"), (rng.uniform(0.004, 0.012), 3800, "#4b6344"))
    ):
        wave = profile[int(rng.integers(512))]
        at = (bearing[0] + rng.uniform(0, 9)) * 240 * (index + 1)
        ridge = np.interp(np.mod(at, 512), np.arange(513), np.append(wave, wave[0]))
        top = cam.horizon - cam.focal * height * np.clip(0.55 + 0.5 * ridge, 0, 2)
        sky = _silhouette(sky, top, _aerial(light, bgr(colour), metres))
    wood = np.interp(
        np.mod(bearing[0] * 3000 + rng.uniform(0, 512), 512), np.arange(512), _texture(4, 0.9)[int(rng.integers(512))]
    )
    clump = np.interp(
        np.mod(bearing[0] * 130 + rng.uniform(0, 512), 512), np.arange(512), _texture(3, 1.6)[int(rng.integers(512))]
    )
    trees = cam.focal * (9 + 2.2 * wood + 4 * clump).clip(2) / WOODS
    sky = _silhouette(sky, cam.horizon - trees, _aerial(light, bgr("#33452b"), WOODS))
    return sky


def _silhouette(sky: np.ndarray, top: np.ndarray, colour: np.ndarray) -> np.ndarray:
    """Fill each column of an image from a row (float, (width,)) down."""
    rows = np.arange(len(sky), dtype=np.float32)[:, None]
    return _mix(sky, colour, np.clip(rows - top[None].astype(np.float32) + 0.5, 0, 1)[..., None])


def _aerial(light: Light, albedo: np.ndarray, metres: float) -> np.ndarray:
    """Colour of level ground or woods in this light at a distance."""
    lit = albedo * (light.ambient + light.sun * max(0.25, float(light.direction[2])))
    return _mix(lit, light.haze, 1 - math.exp(-metres / light.reach))


def _band(v: np.ndarray, low: float, high: float, pixel: np.ndarray) -> np.ndarray:
    """Share of each pixel, `pixel` metres long, that lies between two lines."""
    return np.clip((v - low) / pixel + 0.5, 0, 1) * np.clip((high - v) / pixel + 0.5, 0, 1)


class Ground:
    """The bare ground of a scene: slabs of concrete, grass, asphalt and far woods. Draws its random look once."""

    def __init__(self, scene: Scene, rng: np.random.Generator) -> None:
        self.scene = scene
        self.offset = rng.uniform(0, 9000, 2)
        self.slab = float(rng.choice([5.0, 6.0, 7.5]))
        self.tones = rng.normal(0, 1, (64, 64)).astype(np.float32)
        self.tones[rng.random((64, 64)) < 0.03] *= 4  # slabs that were replaced
        self.base = rng.uniform(148, 188) if rng.random() < 0.75 else rng.uniform(100, 125)
        self.asphalt = rng.uniform(92, 122)
        warm = np.array([0.955, 0.99, 1.0]) * rng.uniform(0.985, 1.0, 3)
        lawn = bgr(("#6d8050", "#7b8a56", "#627a4a", "#8f8d62")[rng.integers(4)])
        tar, woods = np.array([1.0, 0.99, 0.97]), bgr("#33452b")
        self.colours = np.stack([warm, lawn, tar, woods], 1).astype(np.float32)  # (BGR, surface)

    def rows(self, top: int, bottom: int) -> tuple[np.ndarray, np.ndarray]:
        """Paint image rows: albedo (rows, width, 3) float32 BGR and distance (rows, width) in metres."""
        scene, cam = self.scene, self.scene.camera
        x, y = cam.ground(top, bottom)
        u, v = (c.astype(np.float32) for c in scene.grid(x, y))
        distance = np.sqrt(x * x + y * y)
        across = distance / cam.focal  # metres a pixel, to the side and along the view
        pixel = np.maximum(distance * across / cam.mount, across)
        fine = np.clip(1.3 - pixel / 1.2, 0, 1)
        coarse = np.clip(1.3 - pixel / 14, 0, 1)
        su, sv = u + np.float32(self.offset[0]), v + np.float32(self.offset[1])
        blotch = _sample(_texture(5, 1.5), su * 1.7, sv * 1.7) * coarse
        grit = _sample(_texture(6, 0.7), su * 21, sv * 21) * fine if fine.any() else np.zeros_like(u)
        # Concrete in slabs, each with a tone of its own
        iu, iv = np.floor(u / self.slab), np.floor(v / self.slab)
        tone = self.tones[iv.astype(np.int32) & 63, iu.astype(np.int32) & 63] * np.clip(1.4 - pixel / self.slab, 0, 1)
        concrete = self.base + 4.5 * blotch + 3.0 * grit + 2.4 * tone
        clear = np.clip(1.4 - pixel / 3, 0, 1)
        if clear.any():  # oil and rubber
            concrete -= 30 * _ramp(_sample(_texture(7, 1.15), su * 4.3, sv * 4.3), 1.9, 2.9) * clear
        for coordinate, index, size in ((u, iu, np.minimum(across * 1.3, pixel)), (v, iv, pixel)):
            gap = np.abs(coordinate - (index + (coordinate - index * self.slab > self.slab / 2)) * self.slab)
            joint = (
                np.clip((0.03 + size / 2 - gap) / size, 0, 1)
                * np.minimum(1, 0.06 / size)
                * np.clip(1.5 - size / 2, 0, 1)
            )
            concrete -= 46 * joint
        lawn = 1 + 0.07 * blotch + 0.05 * grit + 0.025 * np.sin(v / 9.0) * np.clip(1.2 - pixel / 9, 0, 1)
        tar = self.asphalt + 3.5 * blotch + 3.0 * grit
        # Shares of each pixel: concrete, asphalt, woods; the rest is grass
        is_apron = _band(v, -1e6, scene.apron, pixel) * _band(
            u, -scene.side, scene.side, np.maximum(across, pixel * 0.5)
        )
        is_tar = np.zeros_like(u)
        for low, high, kind in scene.strips:
            strip = _band(v, low, high, pixel)
            is_tar = np.maximum(is_tar, strip * (0.94 if kind == "runway" else 1.0))
        last = max((s[1] for s in scene.strips if s[2] != "road"), default=0.0)
        for u0 in (-260.0, 330.0) if last else ():  # links between the apron and the strips
            link = _band(u, u0 - 12, u0 + 12, np.maximum(across, pixel * abs(math.sin(scene.turn))))
            is_tar = np.maximum(is_tar, link * _band(v, scene.apron - 1, last, pixel))
        is_tar *= 1 - is_apron
        woods = _ramp(distance, WOODS * 0.94, WOODS)
        is_apron *= 1 - woods
        is_tar *= 1 - woods
        is_lawn = (1 - is_apron - is_tar) * (1 - woods)
        layers = cv2.merge([is_apron * concrete, is_lawn * lawn, is_tar * tar, woods])
        return cv2.transform(layers, self.colours), np.minimum(distance, WOODS)


class _Paint:
    """A layer of ground markings of one colour: coverage (height, width) uint8."""

    def __init__(self, scene: Scene) -> None:
        self.scene = scene
        self.mask = np.zeros((scene.camera.height, scene.camera.width), np.uint8)

    def path(
        self, points, width: float, step: float = 4.0, dash: tuple[float, float] | None = None, level: float = 1.0
    ) -> None:
        """Draw a line through world points (N, 2), `width` metres wide, dashed as (on, off) metres."""
        p = np.asarray(points, np.float64)
        length = np.append(0, np.cumsum(np.hypot(*np.diff(p, axis=0).T)))
        if length[-1] < 0.05:
            return
        n = max(2, int(length[-1] / step) + 1) if dash is None else max(2, int(length[-1] / min(dash)) * 2)
        s = np.linspace(0, length[-1], n)
        q = np.stack([np.interp(s, length, p[:, i]) for i in (0, 1)], 1)
        way = np.gradient(q, axis=0)
        way /= np.maximum(np.hypot(way[:, 0], way[:, 1]), 1e-9)[:, None]
        side = np.stack([-way[:, 1], way[:, 0]], 1) * width / 2
        keep = np.ones(n - 1, bool) if dash is None else np.mod((s[:-1] + s[1:]) / 2, sum(dash)) < dash[0]
        left, right = (np.c_[q + d, np.zeros(n)] for d in (side, -side))
        (pl, dl), (pr, dr) = (self.scene.camera.project(e) for e in (left, right))
        quads = np.stack([pl[:-1], pl[1:], pr[1:], pr[:-1]], 1)
        deep = np.minimum(dl, dr)
        keep &= np.minimum(deep[:-1], deep[1:]) > 2
        low, high = quads.min(1), quads.max(1)
        cam = self.scene.camera
        keep &= (
            (low[:, 0] < cam.width)
            & (high[:, 0] > 0)
            & (low[:, 1] < cam.height)
            & (high[:, 1] > 0)
            & (high - low < 3000).all(1)
        )
        # Where a line is thinner than a pixel it covers only a part of those that it touches
        a, b = quads[:, 1] - quads[:, 0], quads[:, 3] - quads[:, 0]
        thin = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / np.maximum(np.hypot(a[:, 0], a[:, 1]), 0.3)
        shade = np.minimum(1, thin / 1.1) * 255 * level
        for quad, value in zip(np.round(quads[keep] * 16 - 8).astype(np.int32), shade[keep], strict=True):
            if value > 6:
                cv2.fillConvexPoly(self.mask, quad, int(value), cv2.LINE_AA, 4)

    def local(self, x: float, y: float, heading: float, points, width: float, **kwargs) -> None:
        """Draw a line given in the frame of a stand."""
        c, s = math.cos(heading), math.sin(heading)
        p = np.asarray(points, np.float64)
        self.path(np.stack([x + p[:, 0] * c - p[:, 1] * s, y + p[:, 0] * s + p[:, 1] * c], 1), width, **kwargs)


def _markings(scene: Scene, rng: np.random.Generator) -> list[tuple[np.ndarray, np.ndarray, float]]:
    """Draw ground markings: (coverage (height, width) uint8, BGR colour, opacity) from the lowest layer up."""
    rubber, yellow, white, red = (_Paint(scene) for _ in range(4))
    wide = scene.side

    def line(u0: float, v0: float, u1: float, v1: float) -> np.ndarray:
        return np.array([scene.world(u0, v0), scene.world(u1, v1)])

    for v in scene.lanes:
        yellow.path(line(-wide, v, wide, v), 0.45)
        for offset in (-3.8, 3.8):
            rubber.path(line(-wide, v + offset, wide, v + offset), 1.5, level=0.5)
    cam = scene.camera
    for x, y, heading, half_l, half_w in scene.stands:
        if not cam.panorama and abs(x) - 70 > max(y, 0) * cam.width / 2 / cam.focal:
            continue  # out of view
        u, v = scene.grid(x, y)
        lane = min(scene.lanes, key=lambda w: abs(w - v))
        yellow.local(x, y, heading, [(-half_l - 6, 0), (half_l - 2, 0)], 0.4)
        yellow.local(x, y, heading, [(half_l - 4, -2.5), (half_l - 4, 2.5)], 0.5)
        relative = heading - scene.turn
        if abs(math.cos(relative)) < 0.4:  # at right angles to the lane: a lead-in that curves off it
            tail_u, tail_v = scene.grid(x - (half_l + 6) * math.cos(heading), y - (half_l + 6) * math.sin(heading))
            radius, toward = min(24.0, abs(lane - tail_v)), math.copysign(1, lane - tail_v)
            t = np.linspace(0, math.pi / 2, 12)
            side = 1 if (round(u / 10) % 2) else -1
            curve = [(tail_u, tail_v)] + [
                (tail_u + side * radius * (1 - math.cos(a)), lane - toward * radius * (1 - math.sin(a))) for a in t
            ]
            curve = np.array([scene.world(*c) for c in curve])
            yellow.path(curve, 0.4, step=2.5)
            rubber.path(curve + 2.2, 1.0, level=0.4)
            rubber.path(curve - 2.2, 1.0, level=0.4)
        box = [
            (half_l + 5, -half_w - 4),
            (half_l + 5, half_w + 4),
            (-half_l - 4, half_w + 4),
            (-half_l - 4, -half_w - 4),
            (half_l + 5, -half_w - 4),
        ]
        red.local(x, y, heading, box, 0.35)
        white.local(x, y, heading, np.array(box) * (1.0, 0.985), 0.16)
        for offset in (-2.6, 2.6):
            rubber.local(x, y, heading, [(-half_l - 6, offset), (0, offset)], 0.7, level=0.45)
    # A vehicle road along the apron: white edges, dashed middle
    places = [scene.lanes[0] - 42, scene.lanes[0] - 70, scene.lanes[0] + 40, scene.apron - 12]
    spans = [(scene.grid(x, y)[1], max(half_l, half_w) + 10) for x, y, _, half_l, half_w in scene.stands]
    free = [v for v in places if v > 5 and all(abs(v - at) > half for at, half in spans)]
    for v in [scene.lanes[0] + 47.5, scene.lanes[1] - 45] if scene.camera.panorama else free[:1]:
        for offset in (-5.2, 5.2):
            white.path(line(-wide, v + offset, wide, v + offset), 0.25)
        white.path(line(-wide, v, wide, v), 0.2, dash=(3.0, 3.0))
    red.path(line(-wide, scene.apron - 3, wide, scene.apron - 3), 0.3)
    for low, high, kind in scene.strips:
        middle, reach = (low + high) / 2, 2200
        if kind == "runway":
            white.path(line(-reach, middle, reach, middle), 1.2, dash=(30.0, 30.0))
            for v in (low + 2, high - 2):
                white.path(line(-reach, v, reach, v), 1.0, step=20)
            rubber.path(line(-reach, middle - 4, reach, middle - 4), 4.0, step=20, level=0.7)
            rubber.path(line(-reach, middle + 4, reach, middle + 4), 4.0, step=20, level=0.7)
        elif kind == "taxiway":
            yellow.path(line(-reach, middle, reach, middle), 0.5, step=15)
            for v in (low + 1.5, high - 1.5):
                yellow.path(line(-reach, v, reach, v), 0.3, step=15)
        else:
            white.path(line(-reach, middle, reach, middle), 0.2, dash=(4.0, 6.0))
    # Tyre marks in curves
    for _ in range(12):
        cx, cy = scene.world(rng.uniform(-0.25, 0.25) * scene.apron * 2, rng.uniform(0.05, 0.9) * scene.apron)
        radius, a0, sweep = rng.uniform(12, 60), rng.uniform(0, 6.3), rng.uniform(0.4, 1.6)
        t = a0 + np.linspace(0, sweep, 16)
        gap = rng.uniform(0.9, 2.4)
        for r in (radius - gap, radius + gap):
            rubber.path(
                np.stack([cx + r * np.cos(t), cy + r * np.sin(t)], 1), 0.4, step=2.0, level=rng.uniform(0.2, 0.5)
            )
    dark = cv2.GaussianBlur(rubber.mask, (5, 5), 1.2)
    return [
        (dark, bgr("#3a3a3a"), 0.44),
        (white.mask, bgr("#e6e6e2"), 0.8),
        (red.mask, bgr("#b8352c"), 0.75),
        (yellow.mask, bgr("#e0b21e"), 0.85),
    ]


def _shadows(scene: Scene) -> np.ndarray:
    """Cast every thing's shadow on the ground: darkness (height, width) uint8."""
    cam, sun = scene.camera, scene.light.direction
    mask = np.zeros((cam.height, cam.width), np.uint8)
    soft = scene.light.shadow < 0.25
    for thing in scene.things:
        v = place(thing.mesh, thing.x, thing.y, thing.heading)
        quads = v[thing.mesh.faces[~thing.mesh.decal]]
        normal = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        quads = quads[normal @ sun > 0]
        flat = quads - sun * (quads[..., 2:] / sun[2])
        pixels, depth = cam.project(flat)
        ok = (depth.min(1) > 2) & (np.ptp(pixels[..., 0], 1) < 3000)
        corners = np.round(pixels[ok].clip(-20000, 20000) * 16 - 8).astype(np.int32)
        for quad in corners:
            cv2.fillConvexPoly(mask, quad, 255, cv2.LINE_8, 4)
    return cv2.GaussianBlur(mask, (0, 0), 3.0 if soft else 0.8)


def _lit_colours(scene: Scene, thing: Thing, vertices: np.ndarray) -> np.ndarray:
    """Shade a thing's faces: (F, 3) BGR, 0 to 255, with haze."""
    light, mesh = scene.light, thing.mesh
    paint = {**models.BASE_PAINT, **thing.paint}
    albedo = np.array([bgr(paint[name]) for name in mesh.materials])[mesh.slots]
    quads = vertices[mesh.faces]
    normal = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
    normal /= np.maximum(np.linalg.norm(normal, axis=1, keepdims=True), 1e-9)
    middle = quads.mean(1)
    toward = np.array([0, 0, scene.camera.mount], np.float32) - middle
    distance = np.linalg.norm(toward, axis=1, keepdims=True)
    open_sky = 0.84 + 0.16 * normal[:, 2:]  # what faces the ground gets light from there only
    lit = albedo * (light.ambient * open_sky + light.sun * np.clip(normal @ light.direction, 0, None)[:, None])
    half = toward / distance + light.direction
    half /= np.linalg.norm(half, axis=1, keepdims=True)
    gloss = np.array([0.0 if n in ("vest", "trousers", "tyre", "concrete") else 0.35 for n in mesh.materials])[
        mesh.slots
    ]
    lit += (255 * gloss * np.clip((normal * half).sum(1), 0, 1) ** 24)[:, None] * light.sun
    glass = np.array([n in ("glass", "glass_light", "cockpit") for n in mesh.materials])[mesh.slots]
    lit[glass] += 0.16 * light.haze  # windows mirror the sky a little
    return _mix(lit, light.haze, 1 - np.exp(-distance / light.reach)).astype(np.float32)


def _draw(scene: Scene, canvas: Canvas) -> tuple[list[Thing], np.ndarray, list[Thing]]:
    """Draw all things; give the objects that are seen, their boxes (N, 4) xyxy in pixels, and those hardly seen."""
    drawn = []
    for thing in scene.things:
        vertices = place(thing.mesh, thing.x, thing.y, thing.heading).astype(np.float32)
        faces, area, samples = canvas.draw(thing.mesh, vertices, _lit_colours(scene, thing, vertices))
        drawn.append((thing, faces, area, samples))
    seen, boxes, hidden = [], [], []
    for thing, faces, area, samples in drawn:
        if thing.label < 0:
            continue
        box, count = canvas.visible(faces, area)
        if box is None or count < MIN_VISIBLE * samples or min(box[2:] - box[:2]) < MIN_SIDE:
            hidden.append(thing)
        else:
            seen.append(thing)
            boxes.append(box)
    return seen, np.array(boxes, np.float32).reshape(-1, 4), hidden


def _resolve(scene: Scene, scale: int) -> tuple[Canvas, list[Thing], np.ndarray]:
    """Draw a scene, taking out objects that can hardly be seen: nothing is in a picture without its label."""
    while True:
        canvas = Canvas(scene.camera, scale)
        seen, boxes, hidden = _draw(scene, canvas)
        if not hidden:
            return canvas, seen, boxes
        scene.things = [t for t in scene.things if all(t is not h for h in hidden)]


def build_scene(demo: DemoSet, split: str, index: int, wanted: list[tuple[str, int]], seed: int = 0) -> Scene:
    """Lay out the scene of one image of a set."""
    rng = np.random.default_rng([seed, demo.key, SPLITS[split], index])
    return (_panorama_scene if demo.shares is None else _surface_scene)(demo, wanted, rng)


def label_scene(scene: Scene, scale: int = 2) -> tuple[np.ndarray, np.ndarray]:
    """Find a scene's boxes (N, 4) float32 xyxy in pixels and classes (N,) int64 without painting the picture."""
    _, seen, boxes = _resolve(scene, scale)
    return boxes, np.array([t.label for t in seen], np.int64)


def paint_scene(scene: Scene, rng: np.random.Generator, scale: int = 2) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Paint a scene.

    Args:
        scene (Scene): The scene.
        rng (np.random.Generator): Draws the sky, stains and sensor noise.
        scale (int): Samples a pixel along each side.

    Returns:
        image (np.ndarray): (height, width, 3) uint8 BGR.
        boxes (np.ndarray): (N, 4) float32 xyxy in pixels.
        classes (np.ndarray): (N,) int64.
    """
    cam, light = scene.camera, scene.light
    canvas, seen, boxes = _resolve(scene, scale)
    picture = np.empty((cam.height, cam.width, 3), np.uint8)
    sky = _sky(scene, rng)
    picture[: len(sky)] = np.clip(sky, 0, 255)
    ground, markings, shadows = Ground(scene, rng), _markings(scene, rng), _shadows(scene)
    sunlit = light.sun * max(0.3, float(light.direction[2]))
    sheltered = light.ambient * (1 - (light.shadow if light.shadow < 0.25 else 0.12))
    first = int(max(0, math.floor(cam.horizon) + 1))
    step = max(8, 48000 // cam.width)  # few rows at a time stay in the processor's cache
    for top in range(first, cam.height, step):
        rows = slice(top, min(top + step, cam.height))
        albedo, distance = ground.rows(rows.start, rows.stop)
        for mask, colour, opacity in markings:
            on = np.nonzero(mask[rows])
            if len(on[0]):
                share = mask[rows][on].astype(np.float32) * np.float32(opacity / 255)
                albedo[on] = _mix(albedo[on], colour, share[:, None])
        lit = (255 - shadows[rows]).astype(np.float32)[..., None] * np.float32(1 / 255)
        albedo *= sheltered + (light.ambient - sheltered + sunlit) * lit
        haze = 1 - np.exp(distance * np.float32(-1 / light.reach))
        picture[rows] = np.clip(_mix(albedo, light.haze, haze[..., None]), 0, 255)
    canvas.composite(picture)
    return _expose(picture, rng), boxes, np.array([t.label for t in seen], np.int64)


def _expose(picture: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what a lens and a sensor add: a little blur, vignetting, a tone curve and noise."""
    height, width = picture.shape[:2]
    picture = cv2.GaussianBlur(picture, (3, 3), rng.uniform(0.3, 0.62))
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)[None]
    gain = rng.uniform(1.0, 1.16) * (1 - rng.uniform(0.02, 0.1) * (x * x + y * y))
    gamma = rng.uniform(0.92, 1.08)
    curve = (255 * np.linspace(0, 1, 256) ** gamma).astype(np.float32)
    image = cv2.LUT(picture, curve) * gain[..., None]
    # Noise of a few rows, shifted anew for each further set of rows
    tall = 120
    noise = rng.standard_normal((tall, width, 1), dtype=np.float32) * rng.uniform(1.2, 3.0)
    noise = noise + rng.standard_normal((tall, width, 3), dtype=np.float32) * rng.uniform(0.6, 1.8)
    for top in range(0, height, tall):
        part = image[top : top + tall]
        part += np.roll(noise, rng.integers(width), 1)[: len(part)]
    return np.clip(image + 0.5, 0, 255).astype(np.uint8)


def render_scene(
    demo: DemoSet, split: str, index: int, wanted: list[tuple[str, int]], seed: int = 0
) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Draw one image of a set.

    Args:
        demo (DemoSet): The set, a value of `DEMO_SETS`.
        split (str): "train" or "val".
        index (int): Number of the image.
        wanted (list[tuple[str, int]]): Its objects, an item of `plan_split`.
        seed (int): Seed of the set.

    Returns:
        image (np.ndarray): (height, width, 3) uint8 BGR.
        boxes (np.ndarray): (N, 4) float32 xyxy in pixels.
        classes (np.ndarray): (N,) int64.
    """
    scene = build_scene(demo, split, index, wanted, seed)
    return paint_scene(scene, np.random.default_rng([seed, demo.key, SPLITS[split], index, 1]))


# Data sets ------------------------------------------------------------------------------------------------------------


def yolo_lines(boxes: np.ndarray, classes: np.ndarray, width: int, height: int) -> str:
    """Write boxes (N, 4) xyxy in pixels as YOLO label lines, `class cx cy w h` as shares of the image's sides."""
    lines = []
    for cls, (x0, y0, x1, y1) in zip(classes.tolist(), boxes.astype(np.float64).tolist(), strict=True):
        values = ((x0 + x1) / 2 / width, (y0 + y1) / 2 / height, (x1 - x0) / width, (y1 - y0) / height)
        lines.append(f"{cls} " + " ".join(f"{v:.6f}" for v in values) + "\n")
    return "".join(lines)


def _write_image(root: Path, demo: DemoSet, split: str, index: int, wanted: list[tuple[str, int]], seed: int) -> None:
    image, boxes, classes = render_scene(demo, split, index, wanted, seed)
    stem = f"{split}_{index:05d}"
    done, data = cv2.imencode(".jpg", image, [cv2.IMWRITE_JPEG_QUALITY, 92])
    if not done:
        raise OSError(f"could not encode image {stem}")
    (root / "images" / split / f"{stem}.jpg").write_bytes(data.tobytes())
    (root / "labels" / split / f"{stem}.txt").write_text(yolo_lines(boxes, classes, demo.width, demo.height))


def _render_split(root: Path, demo: DemoSet, split: str, count: int, seed: int, threads: int) -> None:
    """Write one split's images and labels under `root`."""
    from ultralytics.utils import TQDM

    for kind in ("images", "labels"):
        (root / kind / split).mkdir(parents=True)
    plan = plan_split(demo, split, count, seed)
    pool = ThreadPoolExecutor(threads)
    try:
        jobs = [pool.submit(_write_image, root, demo, split, i, wanted, seed) for i, wanted in enumerate(plan)]
        for job in TQDM(jobs, desc=f"{demo.name} {split}", total=count):
            job.result()
    finally:
        pool.shutdown(cancel_futures=True)


def _put_in_place(made: Path, root: Path) -> None:
    """Move `labels`, then `images`, from where they were made to where they belong, old ones aside until then."""
    aside: list[tuple[Path, Path]] = []
    try:
        for kind in ("images", "labels"):  # without images a set counts as missing, so they leave first and come last
            if (root / kind).exists():
                old = made / f"old-{kind}"
                (root / kind).rename(old)
                aside.append((old, root / kind))
        for kind in ("labels", "images"):
            (made / kind).rename(root / kind)
    except BaseException:
        for old, home in aside:
            if home.exists():
                shutil.rmtree(home)
            old.rename(home)
        raise
    for split in SPLITS:  # lists of the old images that training may have left
        for cache in root.glob(f"labels/{split}.cache*"):
            cache.unlink()


def make_demo(
    name: str,
    root: str | Path | None = None,
    train: int | None = None,
    val: int | None = None,
    seed: int = 0,
    overwrite: bool = False,
    threads: int | None = None,
) -> Path:
    """Make a demo set: `images/{train,val}/*.jpg` and `labels/{train,val}/*.txt` in YOLO's format.

    Nothing is left half-made: the set is built beside its place and moved there when complete.

    Args:
        name (str): "ASS1-demo" or "ASS2-demo".
        root (str | Path | None): Folder of the set, `datasets/<name>` under the working folder by default.
        train (int | None): Number of training images, the set's default if None.
        val (int | None): Number of validation images, the set's default if None.
        seed (int): Another seed gives another set.
        overwrite (bool): Replace images that are there already.
        threads (int | None): Images drawn at a time, the number of CPUs by default; the result does not depend on it.

    Returns:
        (Path): The folder.

    Raises:
        UserError: If the name or a number can't be used, or there are other images already and `overwrite` is not set.

    Examples:
        >>> from ultralytics.data.scenes import make_demo
        >>> make_demo("ASS1-demo", "datasets/ASS1-demo", train=8, val=2)
    """
    from ultralytics.utils import LOGGER

    if name not in DEMO_SETS:
        raise UserError(f"no demo set named '{name}': choose {' or '.join(DEMO_SETS)}")
    demo = DEMO_SETS[name]
    counts = {"train": demo.train if train is None else train, "val": demo.val if val is None else val}
    for split, count in counts.items():
        if count < 1:
            raise UserError(f"{split} must be at least 1 image, not {count}")
    if seed < 0:
        raise UserError(f"seed must not be negative, got {seed}")
    root = Path(root) if root is not None else Path("datasets") / name
    if (root / "images").exists() and not overwrite:
        found = {split: len(list((root / "images" / split).glob("*.jpg"))) for split in SPLITS}
        if found == counts:
            LOGGER.info(f"{name} is in {root} already: {found['train']} training and {found['val']} validation images")
            return root
        raise UserError(
            f"{root / 'images'} holds {found['train']} training and {found['val']} validation images, not "
            f"{counts['train']} and {counts['val']}: pass --overwrite (overwrite=True) to replace them"
        )
    made = root / f".making-{os.getpid()}"
    made.mkdir(parents=True)
    try:
        for split, count in counts.items():
            _render_split(made, demo, split, count, seed, threads or os.cpu_count() or 1)
        _put_in_place(made, root)
    finally:
        shutil.rmtree(made, ignore_errors=True)
    LOGGER.info(f"{name} is in {root}: {counts['train']} training and {counts['val']} validation images")
    return root


def main(argv: list[str] | None = None) -> int:
    """Run the command line; give the exit status."""
    parser = argparse.ArgumentParser(
        prog="python -m ultralytics.data.scenes",
        description="Make a demo data set of drawn airport scenes with YOLO labels.",
        epilog="example: python -m ultralytics.data.scenes ASS1-demo --train 500 --val 100 --out datasets/ASS1-demo",
    )
    parser.add_argument("name", help=f"which set: {' or '.join(DEMO_SETS)}")
    parser.add_argument(
        "--train", type=int, help="number of training images (default: 160 for ASS1-demo, 24 for ASS2-demo)"
    )
    parser.add_argument(
        "--val", type=int, help="number of validation images (default: 40 for ASS1-demo, 8 for ASS2-demo)"
    )
    parser.add_argument("--out", type=Path, help="folder of the set (default: datasets/NAME)")
    parser.add_argument("--seed", type=int, default=0, help="another seed gives another set (default: 0)")
    parser.add_argument("--overwrite", action="store_true", help="replace images that are there already")
    args = parser.parse_args(argv)
    try:
        make_demo(args.name, args.out, args.train, args.val, args.seed, args.overwrite)
    except (ValueError, OSError) as error:
        print(f"error: {error}", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        print("stopped: nothing was changed", file=sys.stderr)
        return 130
    return 0


if __name__ == "__main__":
    sys.exit(main())
