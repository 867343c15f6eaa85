"""Low-poly airport models, the camera that sees them and the z-buffer that draws them.

Models are in metres in their own frame: x forward, y left, z up, the origin on the ground under the middle. The world
has x to the right, y away from the camera, z up; the camera stands above the world's origin.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from itertools import pairwise

import cv2
import numpy as np

NEAR = 1.0  # metres; nothing nearer to the camera is drawn
DULL = ("vest", "trousers", "tyre", "concrete")  # materials that do not shine
GLASS = ("glass", "glass_light", "cockpit")


@lru_cache(maxsize=512)
def bgr(code: str) -> np.ndarray:
    """Turn "#rrggbb" into BGR as float32, shape (3,), 0 to 255; not to be written to."""
    colour = np.array([int(code[i : i + 2], 16) for i in (5, 3, 1)], np.float32)
    colour.setflags(write=False)
    return colour


def normals(quads: np.ndarray) -> np.ndarray:
    """Find the normals of quads (N, 4, 3), not scaled: (N, 3). `np.cross` costs more for the few faces of a part."""
    a, b = (quads[:, 2] - quads[:, 0]).T, (quads[:, 3] - quads[:, 1]).T
    normal = np.empty((len(quads), 3), quads.dtype)
    for i, j, k in ((0, 1, 2), (1, 2, 0), (2, 0, 1)):
        np.subtract(a[j] * b[k], a[k] * b[j], out=normal[:, i])
    return normal


def each_corner(combine: np.ufunc, quads: np.ndarray) -> np.ndarray:
    """Combine the corners of quads (N, 4, ...) as a reduction along axis 1 would, which is slow for so few."""
    return combine(combine(quads[:, 0], quads[:, 1]), combine(quads[:, 2], quads[:, 3]))


@dataclass(frozen=True)
class Mesh:
    """Faces of one model.

    Attributes:
        vertices (np.ndarray): (V, 3) float32, metres.
        faces (np.ndarray): (F, 4) int32 vertex indices, counter-clockwise seen from outside; triangles repeat the last.
        slots (np.ndarray): (F,) index into `materials`.
        decal (np.ndarray): (F,) bool, True for paint on another face, which wins over it at the same depth.
        materials (tuple[str, ...]): Names that a paint scheme maps to colours.
    """

    vertices: np.ndarray
    faces: np.ndarray
    slots: np.ndarray
    decal: np.ndarray
    materials: tuple[str, ...]

    @cached_property
    def half_size(self) -> tuple[float, float]:
        """Half length and half width of the footprint, metres."""
        return float(np.abs(self.vertices[:, 0]).max()), float(np.abs(self.vertices[:, 1]).max())

    @cached_property
    def gloss(self) -> np.ndarray:
        """How much each face shines, (F,) 0 to 1."""
        return np.array([0.0 if n in DULL else 0.35 for n in self.materials], np.float32)[self.slots]

    @cached_property
    def glass(self) -> np.ndarray:
        """Which faces are windows, (F,) bool."""
        return np.array([n in GLASS for n in self.materials])[self.slots]

    @cached_property
    def solid(self) -> np.ndarray:
        """Faces that cast a shadow, all but the painted ones, (N, 4) vertex indices."""
        return self.faces[~self.decal]


FIRST_QUAD = np.arange(4, dtype=np.int32)[None]
BOX_CORNERS = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)], np.float32)
BOX_FACES = np.array([[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]], np.int32)


class MeshBuilder:
    """Collects parts into a `Mesh`. Faces are turned outward by a point that is known to lie inside the part."""

    def __init__(self) -> None:
        self.vertices: list[np.ndarray] = []
        self.faces: list[np.ndarray] = []
        self.names: list[str] = []
        self.inside: list[np.ndarray] = []
        self.decals: list[bool] = []
        self.count = 0

    def add(self, vertices, faces, materials: str | list[str], inside, decal: bool = False) -> None:
        """Add faces.

        Args:
            vertices (array): (V, 3) metres.
            faces (array): (F, 4) indices into `vertices`.
            materials (str | list[str]): One name for all faces or one a face.
            inside (array): (3,) or (F, 3), a point behind each face.
            decal (bool): Whether the faces are paint on other faces.
        """
        v = np.asarray(vertices, np.float32).reshape(-1, 3)
        f = np.asarray(faces, np.int32).reshape(-1, 4)
        self.vertices.append(v)
        self.faces.append(f + self.count)
        behind = np.empty((len(f), 3), np.float32)
        behind[:] = inside
        self.inside.append(behind)
        self.names += [materials] * len(f) if isinstance(materials, str) else materials
        self.decals += [decal] * len(f)
        self.count += len(v)

    def quad(self, corners, material: str, inside) -> None:
        """Add one painted quad (4, 3)."""
        self.add(corners, FIRST_QUAD, material, inside, decal=True)

    def quads(self, corners: list, materials: str | list[str], inside) -> None:
        """Add painted quads (N, 4, 3)."""
        if corners:
            self.add(corners, np.arange(4 * len(corners)), materials, inside, decal=True)

    def box(self, centre, size, material: str, top: str | None = None) -> None:
        """Add a box by its centre and (length, width, height)."""
        v = BOX_CORNERS * np.asarray(size, np.float32) / 2 + np.asarray(centre, np.float32)
        self.add(v, BOX_FACES, [material, top or material] + [material] * 4, centre)

    def loft(self, rings, material, caps: tuple[str | None, str | None] = (None, None)) -> None:
        """Add a tube through rings.

        Args:
            rings (array): (R, N, 3), N points each.
            material (str | Callable): A name, or a function of (ring, side) that gives one.
            caps (tuple): Materials of the two ends, None for an open end.
        """
        rings = np.asarray(rings, np.float32)
        count, sides = rings.shape[:2]
        centres = rings.mean(1)
        r, s = (a.ravel() for a in np.mgrid[: count - 1, :sides])
        nxt = (s + 1) % sides
        faces = np.stack([r * sides + s, r * sides + nxt, (r + 1) * sides + nxt, (r + 1) * sides + s], 1)
        names = [material(i, j) for i, j in zip(r, s, strict=True)] if callable(material) else material
        self.add(rings.reshape(-1, 3), faces, names, (centres[r] + centres[r + 1]) / 2)
        for end, name in zip((0, -1), caps, strict=True):
            if name:
                middle = centres[1] if end == 0 else centres[-2]
                self.polygon(rings[end], name, middle)

    def polygon(self, points, material: str, inside, decal: bool = False) -> None:
        """Add a convex polygon (N, 3) as quads."""
        n = len(points)
        faces = [[0, i, min(i + 1, n - 1), min(i + 2, n - 1)] for i in range(1, n - 1, 2)]
        self.add(points, faces, material, inside, decal)

    def tube(self, a, b, ra: float, rb: float, material: str, sides: int = 6, caps=(None, None)) -> None:
        """Add a tapered cylinder from point a (radius ra) to point b (radius rb)."""
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        axis = (b - a) / np.linalg.norm(b - a)
        helper = np.array([0, 0, 1] if abs(axis[2]) < 0.9 else [1, 0, 0], np.float32)
        e1 = np.cross(axis, helper)
        e1 /= np.linalg.norm(e1)
        e2 = np.cross(axis, e1)
        t = (np.arange(sides) + 0.5) * 2 * np.pi / sides
        ring = np.cos(t)[:, None] * e1 + np.sin(t)[:, None] * e2
        self.loft([a + ra * ring, b + rb * ring], material, caps)

    def extrude(self, profile, half_width: float, material: str | list[str], sides: str) -> None:
        """Add a convex profile (N, 2) in the x-z plane, drawn out to both sides.

        Args:
            profile (list): Corners in order.
            half_width (float): Metres to each side.
            material (str | list[str]): Of the faces along the edges, edge i going from corner i to i + 1.
            sides (str): Material of the two flat sides.
        """
        p = np.asarray(profile, np.float32)
        left, right = (
            np.stack([p[:, 0], np.full(len(p), y, np.float32), p[:, 1]], 1) for y in (half_width, -half_width)
        )
        names = (lambda _, j: material[j]) if isinstance(material, list) else material
        self.loft([left, right], names)
        middle = np.array([p[:, 0].mean(), 0, p[:, 1].mean()], np.float32)
        self.polygon(left, sides, middle)
        self.polygon(right, sides, middle)

    def wheel(self, x: float, y: float, radius: float, width: float = 0.3, sides: int = 8) -> None:
        """Add a wheel that stands on the ground."""
        a, b = (x, y - width / 2, radius), (x, y + width / 2, radius)
        self.tube(a, b, radius, radius, "tyre", sides, ("tyre", "tyre"))
        if sides >= 8:
            for side, end in ((-1, a), (1, b)):
                t = np.arange(6) * np.pi / 3
                r = radius * 0.5
                rim = np.stack([x + r * np.cos(t), np.full(6, end[1] + side * 0.02), radius + r * np.sin(t)], 1)
                self.polygon(rim, "rim", (x, y, radius), decal=True)

    def build(self) -> Mesh:
        """Join all parts."""
        materials = tuple(dict.fromkeys(self.names))
        index = {name: i for i, name in enumerate(materials)}
        slots = np.array([index[n] for n in self.names], np.int32)
        vertices, faces = np.concatenate(self.vertices), np.concatenate(self.faces)
        p = vertices[faces]
        inward = (normals(p) * (p.mean(1) - np.concatenate(self.inside))).sum(1) < 0
        faces[inward] = faces[inward, ::-1]
        return Mesh(vertices, faces, slots, np.array(self.decals), materials)


# Aircraft -------------------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Airframe:
    """Sizes of an aircraft in metres: length, fuselage diameter, span, height of the fuselage's axis, engine layout."""

    length: float
    diameter: float
    span: float
    axis: float
    engines: str  # wing2, wing4, tail or prop
    sweep: float = 27.0  # degrees
    chord: float = 0.19  # of the length, at the root
    engine: float = 2.2  # diameter


AIRFRAMES = {
    "narrow": Airframe(38.0, 4.0, 35.0, 3.7, "wing2"),
    "narrow_long": Airframe(44.5, 4.0, 35.8, 3.8, "wing2", chord=0.165),
    "wide": Airframe(62.0, 5.7, 60.5, 5.3, "wing2", 30.0, 0.18, 3.3),
    "heavy": Airframe(70.5, 6.4, 64.5, 5.8, "wing4", 34.0, 0.19, 2.8),
    "regional": Airframe(32.5, 2.8, 24.5, 2.5, "tail", 25.0, 0.15, 1.45),
    "turboprop": Airframe(27.2, 2.9, 27.0, 2.3, "prop", 3.0, 0.1, 1.2),
    "business": Airframe(20.5, 2.1, 19.5, 1.9, "tail", 28.0, 0.17, 1.1),
}


def _wing_section(lead, chord: float, thick: float, up) -> np.ndarray:
    """One aerofoil ring (6, 3) from its leading edge backward, `up` the direction of its thickness."""
    along = np.array([0, 0.22, 0.7, 1.0, 0.7, 0.22], np.float32)
    over = np.array([0, 0.5, 0.3, 0, -0.25, -0.4], np.float32) * thick
    return np.asarray(lead, np.float32) - np.outer(along * chord, (1, 0, 0)) + np.outer(over, up)


@lru_cache(maxsize=64)
def aircraft(kind: str, detail: int) -> Mesh:
    """Build an aircraft.

    Args:
        kind (str): Key of `AIRFRAMES`.
        detail (int): 0 (a few pixels wide), 1 (tens) or 2 (hundreds).
    """
    a, m = AIRFRAMES[kind], MeshBuilder()
    length, d, z0 = a.length, a.diameter, a.axis
    sides = (8, 16, 28)[detail]
    tail_len = 3.2 * d if a.engines != "prop" else 2.9 * d
    # Fuselage: (distance from the nose in diameters, radius, droop of the nose)
    nose = [(0.0, 0.04, 0.16), (0.07, 0.25, 0.15), (0.22, 0.46, 0.12), (0.42, 0.64, 0.09), (0.62, 0.79, 0.055)]
    nose += [(0.85, 0.89, 0.03), (1.2, 0.965, 0.01), (1.6, 1.0, 0.0)]
    if detail == 0:
        nose = nose[::2] + nose[-1:]
    rings = [(length / 2 - s * d, r, -drop * d) for s, r, drop in nose]
    cone = [(0.0, 1.0), (0.2, 0.955), (0.42, 0.82), (0.65, 0.6), (0.86, 0.35), (1.0, 0.14)]
    rings += [(-length / 2 + tail_len * (1 - t), r, 0.43 * d * (1 - r)) for t, r in cone]
    theta = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    hull = np.array(
        [
            np.stack([np.full(sides, x), r * d / 2 * np.cos(theta), z0 + dz + r * d / 2 * np.sin(theta)], 1)
            for x, r, dz in rings
        ]
    )
    glass_from, glass_to = (3, 5) if detail else (1, 2)

    def skin(i: int, j: int) -> str:
        up = math.sin((j + 1) * 2 * np.pi / sides)
        if glass_from <= i < glass_to and 0.3 < up < 0.93:
            return "cockpit"
        if i >= len(nose) + 1 and detail:
            return "rear"
        return "belly" if up < -0.42 else "cheat" if up < -0.1 else "body"

    m.loft(hull, skin, ("body", "metal"))
    # Cabin windows and doors
    r = d / 2 * 1.006
    first, last = length / 2 - 2.1 * d, -length / 2 + tail_len * 0.95
    for side in (-1, 1):

        def on_hull(x0: float, x1: float, low: float, high: float, side: int = side) -> list:
            return [
                (x, side * r * math.cos(f), z0 + r * math.sin(f))
                for x, f in ((x0, low), (x1, low), (x1, high), (x0, high))
            ]

        inside = (0.0, 0.0, z0)
        if detail == 2:
            step = 1.05 if d > 2.5 else 1.5
            for x in np.arange(last, first, step):
                m.quad(on_hull(x, x + 0.5 * step, 0.2, 0.2 + 0.48 / d * 2), "window", inside)
            for x in (length / 2 - 1.75 * d, -length / 2 + tail_len * 0.88):
                m.quad(on_hull(x, x + 0.9, -0.22, 0.62), "door", inside)
        elif detail == 1:
            for x0, x1 in pairwise(np.linspace(last, first, 5)):
                m.quad(on_hull(x0, x1, 0.2, 0.2 + 0.42 / d * 2), "window_strip", inside)
    # Wings
    semi, root = a.span / 2, a.chord * length
    high = a.engines == "prop"
    wing_z = z0 + d * 0.48 if high else z0 - d * 0.3
    lead = length * (0.5 - (0.4 if high else 0.44 if a.engines == "tail" else 0.31))
    tan, dihedral = math.tan(math.radians(a.sweep)), 0.015 if high else 0.095
    tip_chord = root * (0.6 if high else 0.22)
    kink = 0.36
    for side in (-1, 1):

        def station(f: float, chord: float, thick: float, side: int = side) -> np.ndarray:
            y = f * semi
            return _wing_section((lead - y * tan, side * y, wing_z + y * dihedral), chord, thick, (0, 0, 1))

        kink_chord = root * (0.9 if high else 0.58)
        stations = [station(0.02, root * 1.12, root * 0.14), station(kink, kink_chord, kink_chord * 0.12)]
        stations += [station(1.0, tip_chord, tip_chord * 0.11)]
        m.loft(stations, lambda i, j: "wing_edge" if j in (0, 5) else "wing", (None, "wing"))
        if not high and a.engines != "wing4":
            tip = np.array([lead - semi * tan, side * semi, wing_z + semi * dihedral])
            rise = 0.065 * semi
            sharklet = [
                _wing_section(tip, tip_chord, 0.12, (0, 1, 0)),
                _wing_section(
                    np.add(tip, (-0.6 * rise - tip_chord * 0.4, side * 0.35 * rise, rise)),
                    tip_chord * 0.45,
                    0.08,
                    (0, 1, 0),
                ),
            ]
            m.loft(sharklet, "fin", (None, "fin"))
        # Engines
        places = {"wing2": (0.33,), "wing4": (0.3, 0.58), "tail": (0.0,), "prop": (0.31,)}[a.engines]
        n_engine = (6, 10, 16)[detail]
        t = (np.arange(n_engine) + 0.5) * 2 * np.pi / n_engine
        for f in places:
            y, dia = f * semi, a.engine
            if a.engines == "tail":
                x, y, z = -length / 2 + tail_len * 1.25, d * 0.5 + dia * 0.55, z0 + d * 0.22
                profile = [(0, 0.42), (0.06, 0.5), (0.5, 0.5), (1.0, 0.33)]
                size = dia * 2.7
                m.box((x - size * 0.5, side * (d * 0.5), z), (size * 0.6, dia * 0.8, dia * 0.16), "body")
            elif high:
                x, z, size = lead - y * tan + 2.2, wing_z - 0.15, 5.2
                profile = [(0, 0.18), (0.12, 0.42), (0.45, 0.5), (1.0, 0.2)]
                for blade in range(6) if detail else ():
                    ang = blade * np.pi / 3
                    c, s = math.cos(ang), math.sin(ang)
                    edge = [
                        (x + 0.05, side * y + 0.1 * s, z - 0.1 * c),
                        (x + 0.05, side * y + 1.95 * c + 0.16 * s, z + 1.95 * s - 0.16 * c),
                    ]
                    edge += [
                        (x + 0.05, side * y + 1.95 * c - 0.16 * s, z + 1.95 * s + 0.16 * c),
                        (x + 0.05, side * y - 0.1 * s, z + 0.1 * c),
                    ]
                    m.add(edge, [[0, 1, 2, 3]], "prop", (x - 1, side * y, z))
                    m.add(edge, [[0, 1, 2, 3]], "prop", (x + 1, side * y, z))
            else:
                size = dia * 1.75
                x = lead - y * tan + size * 0.62
                z = max(wing_z + y * dihedral - dia * 0.72, dia / 2 + 0.45)
                profile = [(0, 0.43), (0.05, 0.49), (0.25, 0.52), (0.62, 0.48), (0.8, 0.36), (1.0, 0.22)]
                chord = root * 0.5
                pylon = [(x - size * 0.25, z + dia * 0.45), (x - size * 0.2, z + dia * 0.55)]
                pylon += [(x - size * 0.62 - chord * 0.4, wing_z + y * dihedral + 0.1), (x - size * 0.8, z + dia * 0.2)]
                p3 = np.array([[(px, side * y + w, pz) for px, pz in pylon] for w in (-0.2, 0.2)])
                m.loft(p3, "wing", ("wing", "wing"))
            tube = np.array(
                [
                    np.stack(
                        [np.full(n_engine, x - s * size), side * y + q * dia * np.cos(t), z + q * dia * np.sin(t)], 1
                    )
                    for s, q in profile
                ]
            )
            m.loft(tube, lambda i, j: "metal" if i == 0 or i >= 4 else "engine", ("fan", "fan"))
            if detail == 2 and not high:
                hub = tube[0].mean(0) + (tube[0] - tube[0].mean(0)) * 0.3 + (0.03, 0, 0)
                m.polygon(hub, "metal", tube[1].mean(0), decal=True)
    # Fin and tailplane
    t_tail = a.engines in ("tail", "prop")
    fin_h = (1.5 if not t_tail else 1.35) * d if d < 3.5 else 1.42 * d
    base_z = z0 + 0.36 * d
    fin_root = length * (0.16 if d > 3 else 0.15)
    fin_x = -length / 2 + fin_root * 1.18
    slope = 0.72 if not high else 0.45
    fin_tip = fin_root * (0.36 if not t_tail else 0.55)
    fin = [
        _wing_section((fin_x + fin_root * 0.25, 0, base_z), fin_root * 1.15, d * 0.1, (0, 1, 0)),
        _wing_section((fin_x - fin_h * 0.12 * slope, 0, base_z + fin_h * 0.2), fin_root * 0.9, d * 0.1, (0, 1, 0)),
        _wing_section((fin_x - fin_h * 1.05 * slope, 0, base_z + fin_h), fin_tip, d * 0.06, (0, 1, 0)),
    ]
    m.loft(fin, lambda i, j: "fin_edge" if j in (2, 3) else "fin", (None, "fin"))
    span_t = a.span * (0.17 if not t_tail else 0.15)
    for side in (-1, 1):
        if t_tail:
            x, z = fin_x - fin_h * slope * 0.98, base_z + fin_h * 0.97
        else:
            x, z = -length / 2 + fin_root * 0.98, z0 + 0.26 * d
        chord = fin_root * (0.68 if not t_tail else 0.55)
        tail = [
            _wing_section((x, 0, z), chord, chord * 0.1, (0, 0, 1)),
            _wing_section(
                (x - span_t * (0.62 if not high else 0.2), side * span_t, z + span_t * (0.1 if not t_tail else 0)),
                chord * 0.42,
                0.1,
                (0, 0, 1),
            ),
        ]
        m.loft(tail, "wing", (None, "wing"))
    # Undercarriage
    wheel = 0.14 * d + 0.05
    gear_x = 0.0 if a.engines != "tail" else -0.06 * length
    track = 0.9 * d if not high else 0.7 * d
    legs = [(length / 2 - 1.25 * d, 0.0), (gear_x - 0.02 * length, track), (gear_x - 0.02 * length, -track)]
    for x, y in legs:
        m.tube((x, y, wheel), (x, y, z0 - 0.25 * d), 0.12, 0.16, "strut", 4 if detail < 2 else 6)
        for dy in (-0.4, 0.4) if detail else (0.0,):
            for dx in (-0.8, 0.8) if d > 5 and y else (0.0,):
                m.wheel(x + dx, y + dy, wheel if y else wheel * 0.75, 0.4, (5, 6, 10)[detail])
    return m.build()


# (body, belly, cheat line, fin, rear fuselage, engines)
LIVERIES = (
    ("#f1f2f3", "#f1f2f3", "#f1f2f3", "#0b3c8c", "#f1f2f3", "#f1f2f3"),
    ("#f4f4f2", "#b9bdc2", "#f4f4f2", "#c8102e", "#f4f4f2", "#c8102e"),
    ("#eef0f2", "#9aa2ab", "#1c3f94", "#1c3f94", "#1c3f94", "#d8dcdf"),
    ("#f6f6f6", "#f6f6f6", "#f6f6f6", "#f58220", "#f58220", "#f58220"),
    ("#ffffff", "#2a6db0", "#2a6db0", "#2a6db0", "#ffffff", "#ffffff"),
    ("#e9ebee", "#c4c8cd", "#00843d", "#00843d", "#e9ebee", "#e9ebee"),
    ("#f2efe6", "#d9d4c5", "#f2efe6", "#7a1f3d", "#7a1f3d", "#f2efe6"),
    ("#f7d417", "#f7d417", "#f7d417", "#c8102e", "#f7d417", "#f7d417"),
    ("#d6dbe0", "#9aa2ab", "#c8102e", "#1f2a44", "#d6dbe0", "#1f2a44"),
    ("#ffffff", "#ffffff", "#ffffff", "#06174e", "#06174e", "#ffffff"),
    ("#f4f5f6", "#f4f5f6", "#5c2d91", "#5c2d91", "#5c2d91", "#5c2d91"),
    ("#e8edf2", "#e8edf2", "#e8edf2", "#00a3b4", "#00a3b4", "#00a3b4"),
    ("#5b3a1e", "#5b3a1e", "#5b3a1e", "#f2b705", "#5b3a1e", "#f0f0f0"),
    ("#2f6f4f", "#f0f0ee", "#2f6f4f", "#2f6f4f", "#2f6f4f", "#f0f0ee"),
    ("#f5f5f5", "#d0d3d8", "#d9252b", "#d9252b", "#f5f5f5", "#f5f5f5"),
    ("#9fc8e8", "#f0f2f4", "#f0f2f4", "#16345f", "#9fc8e8", "#f0f2f4"),
)

BASE_PAINT = {
    "cockpit": "#1a2129", "window": "#2b333c", "window_strip": "#7d858e", "door": "#c9cdd2", "metal": "#a7adb4",
    "wing": "#b4bac0", "wing_edge": "#cdd2d6", "fan": "#22262b", "strut": "#8b9096", "tyre": "#1d1e20",
    "rim": "#8d9298", "prop": "#2e3236", "glass": "#1f2a33", "glass_light": "#5c7c8c", "chassis": "#33363a",
    "light": "#f3d9a0", "amber": "#ff9a1a", "skin": "#c98f6c", "shoe": "#191919", "reflect": "#e4e7e4",
    "concrete": "#a5a49d", "roof": "#8d9194", "steel": "#9ea4a8", "dark": "#3a3e43", "container": "#b8bec4",
    "cone": "#f0601c", "white": "#e8e8e4", "red": "#c22a22",
}  # fmt: skip


def aircraft_paint(rng: np.random.Generator) -> dict[str, str]:
    """Draw an airline's colours."""
    body, belly, cheat, fin, rear, engine = LIVERIES[rng.integers(len(LIVERIES))]
    return {"body": body, "belly": belly, "cheat": cheat, "fin": fin, "fin_edge": fin, "rear": rear, "engine": engine}


# Ground vehicles ------------------------------------------------------------------------------------------------------


def _cab(m: MeshBuilder, front: float, length: float, width: float, low: float, high: float, detail: int) -> None:
    """Add a cab with a sloped windscreen; `front` is the x of its bumper, `low` and `high` its z range."""
    w, waist = width / 2, low + (high - low) * 0.48
    profile = [
        (front, low),
        (front, waist),
        (front - 0.28 * length, high),
        (front - length, high),
        (front - length, low),
    ]
    m.extrude(profile, w, ["cab", "glass", "cab_roof", "cab", "chassis"], "cab")
    middle = (front - length / 2, 0, waist)
    for side in (-1, 1):
        y = side * (w + 0.02)
        top = high - 0.12 * (high - low)
        window = [
            (front - 0.14 * length, y, waist),
            (front - 0.3 * length, y, top),
            (front - 0.85 * length, y, top),
            (front - 0.85 * length, y, waist),
        ]
        m.quad(window, "glass", middle)
        if detail == 2:
            m.quad(
                [
                    (front + 0.02, y * s, z)
                    for s, z in ((0.6, low + 0.15), (0.92, low + 0.15), (0.92, low + 0.4), (0.6, low + 0.4))
                ],
                "light",
                middle,
            )
            m.box((front - 0.05, side * (w + 0.16), waist + 0.3), (0.08, 0.2, 0.4), "dark")
    if detail:
        m.box((front - 0.6 * length, 0, high + 0.08), (0.25, 0.6 * width, 0.16), "amber")


def _axles(m: MeshBuilder, places: tuple[float, ...], width: float, radius: float, detail: int) -> None:
    for x in places:
        for side in (-1, 1):
            m.wheel(x, side * (width / 2 - 0.15), radius, 0.34, (5, 8, 12)[detail])


def _stripe(m: MeshBuilder, x0: float, x1: float, half: float, z0: float, z1: float, material: str) -> None:
    """Paint a band along both sides of a vehicle."""
    for side in (-1, 1):
        y = side * (half + 0.02)
        m.quad([(x0, y, z0), (x1, y, z0), (x1, y, z1), (x0, y, z1)], material, ((x0 + x1) / 2, 0, (z0 + z1) / 2))


TRUCKS = ("box", "catering", "tanker", "flatbed", "tug", "bus", "van", "fire", "stairs", "pushback", "belt")


@lru_cache(maxsize=64)
def truck(kind: str, detail: int) -> Mesh:
    """Build a ground vehicle of a kind in `TRUCKS`; `detail` as in `aircraft`."""
    m = MeshBuilder()
    if kind == "box":
        m.box((0, 0, 0.75), (7.8, 2.0, 0.3), "chassis")
        _cab(m, 4.0, 1.9, 2.35, 0.55, 2.75, detail)
        m.box((-0.95, 0, 2.2), (5.7, 2.5, 2.7), "load", "load_top")
        _stripe(m, -3.6, 1.7, 1.25, 1.5, 2.1, "mark")
        _axles(m, (3.0, -1.9, -3.0), 2.4, 0.5, detail)
    elif kind == "catering":
        m.box((0, 0, 0.75), (8.6, 2.0, 0.3), "chassis")
        _cab(m, 4.4, 1.9, 2.4, 0.55, 2.6, detail)
        for x in (-2.9, 1.2):
            for side in (-1, 1):
                m.tube(
                    (x, side * 0.8, 0.9), (x - (x > 0) * 1.6 + (x < 0) * 1.6, side * 0.8, 2.7), 0.09, 0.09, "steel", 4
                )
        m.box((-0.8, 0, 3.9), (6.6, 2.5, 2.4), "load", "load_top")
        m.box((3.3, 0, 2.75), (1.7, 2.2, 0.14), "steel")
        _stripe(m, -3.9, 2.3, 1.25, 3.2, 3.8, "mark")
        _axles(m, (3.2, -2.4, -3.4), 2.4, 0.5, detail)
    elif kind == "tanker":
        m.box((0, 0, 0.8), (10.2, 2.0, 0.35), "chassis")
        _cab(m, 5.2, 2.0, 2.45, 0.55, 2.85, detail)
        n = (8, 10, 16)[detail]
        t = (np.arange(n) + 0.5) * 2 * np.pi / n
        rings = [
            np.stack([np.full(n, x), s * 1.2 * np.cos(t), 2.15 + s * 1.05 * np.sin(t)], 1)
            for x, s in ((2.8, 0.8), (2.6, 1), (-4.8, 1), (-5.0, 0.8))
        ]
        m.loft(
            rings,
            lambda i, j: "mark" if i == 1 and abs(math.sin((j + 1) * 2 * np.pi / n)) < 0.25 else "load",
            ("load", "load"),
        )
        m.box((-1.2, 0, 3.22), (6.0, 0.7, 0.12), "steel")
        _axles(m, (4.1, -2.6, -3.8), 2.45, 0.52, detail)
    elif kind == "flatbed":
        m.box((-0.9, 0, 1.0), (6.2, 2.4, 0.25), "chassis", "steel")
        _cab(m, 4.0, 1.9, 2.3, 0.5, 2.6, detail)
        m.box((0.6, 0, 1.85), (1.7, 2.0, 1.5), "container")
        m.box((-1.6, 0, 1.85), (1.7, 2.0, 1.5), "load")
        _axles(m, (2.9, -1.8, -3.0), 2.3, 0.48, detail)
    elif kind == "tug":  # a baggage tractor with two loaded dollies
        m.box((3.6, 0, 0.75), (2.7, 1.5, 0.7), "cab")
        m.box((3.1, 0, 1.25), (0.9, 1.3, 0.4), "dark")
        m.box((3.2, 0, 2.05), (1.5, 1.45, 0.1), "cab_roof")
        for x in (2.55, 3.85):
            for side in (-1, 1):
                m.box((x, side * 0.65, 1.5), (0.1, 0.1, 1.1), "dark")
        _axles(m, (4.4, 2.8), 1.6, 0.36, detail)
        for x, load in ((0.2, "container"), (-3.2, "load")):
            m.box((x, 0, 0.55), (2.9, 1.6, 0.15), "chassis")
            m.box((x, 0, 1.35), (2.5, 1.6, 1.45), load)
            m.box((x + 1.7, 0, 0.45), (0.9, 0.12, 0.1), "dark")
            _axles(m, (x + 0.9, x - 0.9), 1.5, 0.25, min(detail, 1))
    elif kind == "bus":
        profile = [(6.4, 0.4), (6.4, 1.2), (6.15, 2.95), (-6.4, 2.95), (-6.4, 0.4)]
        m.extrude(profile, 1.45, ["cab", "glass", "cab_roof", "cab", "chassis"], "cab")
        step = 1.75
        for i in range(7) if detail else ():
            x = -5.9 + i * step
            _stripe(m, x, x + step * 0.9, 1.45, 1.3, 2.45, "glass")
        if not detail:
            _stripe(m, -5.9, 5.9, 1.45, 1.3, 2.45, "glass")
        _stripe(m, -6.3, 6.3, 1.45, 0.65, 1.0, "mark")
        m.box((-1, 0, 3.05), (3.0, 1.6, 0.25), "cab_roof")
        _axles(m, (4.0, -3.6), 2.9, 0.48, detail)
    elif kind == "van":
        profile = [(2.7, 0.45), (2.7, 1.05), (1.9, 1.25), (1.2, 2.2), (-2.6, 2.25), (-2.7, 0.45)]
        m.extrude(profile, 1.0, ["cab", "cab", "glass", "cab_roof", "cab", "chassis"], "cab")
        _stripe(m, 0.0, 1.35, 1.0, 1.3, 1.95, "glass")
        _stripe(m, -2.6, 2.6, 1.0, 0.8, 1.02, "mark")
        if detail:
            m.box((0.6, 0, 2.33), (0.3, 1.2, 0.18), "amber")
        _axles(m, (1.75, -1.7), 2.0, 0.36, detail)
    elif kind == "fire":
        m.box((0, 0, 0.85), (9.6, 2.2, 0.4), "chassis")
        _cab(m, 5.0, 2.5, 2.8, 0.65, 3.3, detail)
        m.box((-1.3, 0, 2.15), (7.2, 2.9, 2.3), "fire", "fire")
        _stripe(m, -4.8, 2.2, 1.45, 1.35, 1.75, "reflect")
        m.tube((2.2, 0, 3.45), (4.0, 0, 3.75), 0.14, 0.1, "steel", 6, (None, "dark"))
        _axles(m, (3.7, -1.9, -3.6), 2.8, 0.65, detail)
    elif kind == "stairs":
        m.box((0, 0, 0.75), (7.4, 1.9, 0.3), "chassis")
        m.box((2.7, 0, 1.2), (1.8, 2.0, 1.1), "cab")
        ramp = [(-3.9, 0.9), (-3.9, 1.2), (2.4, 4.3), (3.9, 4.3), (3.9, 4.05), (2.5, 4.05)]
        m.extrude(ramp, 0.95, "steel", "load")
        for side in (-1, 1):
            rail = [
                (-3.9, side * 0.95, 1.1),
                (2.4, side * 0.95, 4.2),
                (2.4, side * 0.95, 5.25),
                (-3.9, side * 0.95, 2.15),
            ]
            for inner in (-1, 1):
                m.add(rail, [[0, 1, 2, 3]], "load", (0, side * 0.95 + inner, 3.0))
        m.box((3.15, 0, 2.6), (0.15, 1.5, 2.9), "steel")
        m.box((0.6, 0, 1.7), (0.15, 1.5, 1.7), "steel")
        _axles(m, (2.6, -2.3), 2.0, 0.42, detail)
    elif kind == "pushback":
        m.box((0, 0, 0.85), (6.2, 2.7, 0.9), "cab", "cab_roof")
        _stripe(m, -3.0, 3.0, 1.35, 0.75, 1.0, "mark")
        profile = [(-0.2, 1.3), (-0.45, 2.25), (-2.1, 2.25), (-2.3, 1.3)]
        m.extrude(profile, 1.0, ["glass", "cab_roof", "glass", "cab"], "glass")
        if detail:
            m.box((-1.2, 0, 2.33), (0.25, 0.5, 0.18), "amber")
        _axles(m, (2.0, -2.0), 2.7, 0.55, detail)
    elif kind == "belt":
        m.box((-0.2, 0, 0.7), (5.8, 1.7, 0.55), "cab")
        m.box((-1.4, 0.45, 1.3), (1.0, 0.8, 0.75), "dark")
        belt = [(-3.4, 1.0), (-3.4, 1.2), (3.6, 2.75), (3.6, 2.5)]
        m.extrude(belt, 0.45, ["dark", "dark", "dark", "steel"], "load")
        m.box((2.0, 0, 1.6), (0.15, 0.7, 1.4), "steel")
        _axles(m, (1.9, -2.1), 1.8, 0.4, detail)
    else:
        raise ValueError(f"no such truck: {kind}")
    return m.build()


VEHICLE_COLOURS = (
    "#f0f0ec",
    "#f0f0ec",
    "#e2e4e6",
    "#f2c417",
    "#e9a313",
    "#1f5fae",
    "#d7372b",
    "#3c7d4e",
    "#c8ccd0",
    "#2f3f57",
)
MARK_COLOURS = ("#1f5fae", "#d7372b", "#f07f1a", "#2c8a4b", "#30363d", "#e8b61a")


def truck_paint(kind: str, rng: np.random.Generator) -> dict[str, str]:
    """Draw an operator's colours."""
    cab, mark = VEHICLE_COLOURS[rng.integers(len(VEHICLE_COLOURS))], MARK_COLOURS[rng.integers(len(MARK_COLOURS))]
    load = ("#f3f3f0", "#f3f3f0", "#dfe2e4", "#c9ced2", cab, "#4877a8")[rng.integers(6)]
    if kind == "fire":
        cab = ("#c81e1e", "#c81e1e", "#c6d92c")[rng.integers(3)]
    return {"cab": cab, "cab_roof": cab, "load": load, "load_top": load, "mark": mark, "fire": cab}


# Persons --------------------------------------------------------------------------------------------------------------

POSES = ("stand", "walk", "stride", "signal", "carry")


@lru_cache(maxsize=64)
def person(pose: str, detail: int) -> Mesh:
    """Build a ground worker, 1.78 m tall, in a pose of `POSES`; `detail` as in `aircraft`."""
    m = MeshBuilder()
    n = (4, 6, 10)[detail]
    swing = {"stand": 0.03, "walk": 0.2, "stride": 0.34, "signal": 0.04, "carry": 0.12}[pose]
    t = (np.arange(n) + 0.5) * 2 * np.pi / n

    def ellipse(z: float, depth: float, width: float, x: float = 0.0) -> np.ndarray:
        return np.stack([x + depth * np.cos(t), width * np.sin(t), np.full(n, z)], 1)

    for side in (-1, 1):
        step = swing * side
        hip, knee, ankle = (
            (0, side * 0.1, 0.9),
            (step * 0.55 + 0.04, side * 0.11, 0.49),
            (step - 0.02, side * 0.12, 0.08),
        )
        m.tube(hip, knee, 0.1, 0.075, "trousers", n)
        m.tube(knee, ankle, 0.078, 0.058, "trousers", n)
        m.box((step + 0.05, side * 0.12, 0.045), (0.28, 0.1, 0.09), "shoe")
        shoulder = np.array((0, side * 0.215, 1.42))
        if pose == "signal":
            elbow, hand = np.add(shoulder, (0.06, side * 0.2, 0.1)), np.add(shoulder, (0.12, side * 0.25, 0.4))
            m.tube(hand, np.add(hand, (0.02, side * 0.05, 0.38)), 0.03, 0.03, "amber", 5)
        elif pose == "carry":
            elbow, hand = np.add(shoulder, (0.05, side * 0.05, -0.28)), np.add(shoulder, (0.3, side * -0.02, -0.32))
        else:
            elbow, hand = (
                np.add(shoulder, (-step * 0.45, side * 0.05, -0.28)),
                np.add(shoulder, (-step * 0.7 + 0.08, side * 0.05, -0.54)),
            )
        m.tube(shoulder, elbow, 0.062, 0.05, "sleeve", n)
        m.tube(elbow, hand, 0.05, 0.035, "sleeve", n)
        m.box(hand, (0.08, 0.07, 0.09), "skin")
    torso = [
        (0.84, 0.11, 0.165),
        (1.0, 0.115, 0.17),
        (1.06, 0.118, 0.172),
        (1.22, 0.13, 0.19),
        (1.28, 0.13, 0.195),
        (1.42, 0.12, 0.215),
        (1.5, 0.07, 0.12),
    ]
    bands = ("vest", "reflect", "vest", "reflect", "vest", "vest")
    m.loft([ellipse(*ring) for ring in torso], lambda i, j: bands[i], ("trousers", "vest"))
    head = [(1.49, 0.055, 0.05), (1.56, 0.085, 0.075), (1.65, 0.1, 0.082), (1.72, 0.09, 0.075), (1.78, 0.035, 0.03)]
    m.loft([ellipse(*ring, 0.015) for ring in head], lambda i, j: "hat" if i >= 2 else "skin", (None, "hat"))
    if pose == "carry":
        m.box((0.42, 0, 1.08), (0.3, 0.42, 0.3), "load")
    return m.build()


def person_paint(rng: np.random.Generator) -> dict[str, str]:
    """Draw a worker's clothes."""
    vest = ("#d9f022", "#d9f022", "#c6e81c", "#ff6a13", "#ff7a1c", "#f04a1a")[rng.integers(6)]
    trousers = ("#1f2a44", "#23262b", "#2c3440", vest, "#3a3a36")[rng.integers(5)]
    sleeve = (vest, vest, "#1f2a44", "#2d3138", "#d8d8d4")[rng.integers(5)]
    hat = ("#2a211b", "#3b2a1e", "#f0f0ee", "#e8b61a", "#1a1a1a", "#6d4a2f")[rng.integers(6)]
    skin = ("#d9a582", "#c98f6c", "#8d5a3c", "#5f3b28", "#e3b594")[rng.integers(5)]
    load = ("#8a6a43", "#2d3138", "#7a2630")[rng.integers(3)]
    return {"vest": vest, "trousers": trousers, "sleeve": sleeve, "hat": hat, "skin": skin, "load": load}


# Unlabelled things ----------------------------------------------------------------------------------------------------


@lru_cache(maxsize=256)
def building(kind: str, length: float, depth: float, height: float, near: bool) -> Mesh:
    """Build a terminal, hangar, office block or control tower.

    The facade faces +x; it is `length` wide along y. `near` adds panes and panels, which only show at close range.
    """
    m = MeshBuilder()
    module = 6.0 if near else 18.0
    parts = max(1, round(length / module))
    ys = np.linspace(-length / 2, length / 2, parts + 1)
    if kind == "tower":
        m.tube((0, 0, 0), (0, 0, height * 0.8), 4.0, 3.2, "concrete", 10)
        m.tube((0, 0, height * 0.78), (0, 0, height * 0.86), 4.5, 7.2, "concrete", 10)
        m.tube((0, 0, height * 0.86), (0, 0, height * 0.95), 6.6, 7.6, "glass", 10)
        m.tube((0, 0, height * 0.95), (0, 0, height), 7.8, 7.0, "roof", 10, (None, "roof"))
        m.tube((0, 0, height), (0, 0, height * 1.15), 0.25, 0.1, "red", 4)
        return m.build()
    if kind == "hangar":
        arc = [(-depth / 2, 0.0), (-depth / 2, height * 0.75), (-depth / 4, height * 0.93), (0, height)]
        arc += [(depth / 4, height * 0.93), (depth / 2, height * 0.75), (depth / 2, 0.0)]
        flat = [(y, z) for y, z in arc]
        for y0, y1 in pairwise(ys):  # in pieces, since a panorama bends long edges
            rings = [np.array([(x, y, z) for x, z in flat]) for y in (y0, y1)]
            m.loft(
                rings,
                lambda i, j: "roof" if 1 <= j <= 4 else "wall",
                ("wall" if y0 == ys[0] else None, "wall" if y1 == ys[-1] else None),
            )
            gap = 0.06 * (y1 - y0)
            x = depth / 2 + 0.1
            m.quad(
                [(x, y0 + gap, 0.2), (x, y1 - gap, 0.2), (x, y1 - gap, height * 0.62), (x, y0 + gap, height * 0.62)],
                "gate",
                (0, (y0 + y1) / 2, height / 2),
            )
        return m.build()
    for y0, y1 in pairwise(ys):
        mid, wide = (y0 + y1) / 2, y1 - y0
        m.box((0, mid, height / 2), (depth, wide, height), "wall", "roof")
        inside, x = (0, mid, height / 2), depth / 2 + 0.08
        for back in (x, -x):
            if kind == "terminal":
                bands = [(height * 0.3, height * 0.55), (height * 0.6, height * 0.88)]
                m.quad(
                    [
                        (back, y0 + 0.25, 0.3),
                        (back, y1 - 0.25, 0.3),
                        (back, y1 - 0.25, height * 0.22),
                        (back, y0 + 0.25, height * 0.22),
                    ],
                    "gate",
                    inside,
                )
            else:
                floors = max(2, round(height / 3.6))
                bands = [((i + 0.3) * height / floors, (i + 0.78) * height / floors) for i in range(floors)]
            corners, names, panes = [], [], 2 if near else 1
            for low, high in bands:
                for p in range(panes):
                    a, b = y0 + wide * p / panes + 0.12, y0 + wide * (p + 1) / panes - 0.12
                    names.append("glass_light" if (p + round(mid) + round(low)) % 3 == 0 else "glass")
                    corners.append([(back, a, low), (back, b, low), (back, b, high), (back, a, high)])
            m.quads(corners, names, inside)
        m.box((0.6, mid, height + 0.35), (depth + 3.0, wide, 0.7), "trim", "roof")
    for i, y in enumerate(ys[1:-1:2]):
        m.box(((-1) ** i * depth * 0.2, y, height + 1.8), (5.0, 4.0, 2.4), "steel")
    for end, y in ((-1, ys[0]), (1, ys[-1])):
        corners, yy = [], y + end * 0.08
        for low, high in ((0.3 * height, 0.55 * height), (0.6 * height, 0.88 * height)):
            for a in np.arange(-depth / 2 + 1, depth / 2 - 4, 6.0 if near else 15.0).tolist():
                b = a + (5.0 if near else 12.0)
                corners.append([(a, yy, low), (b, yy, low), (b, yy, high), (a, yy, high)])
        m.quads(corners, "glass", (0, 0, height / 2))
    return m.build()


@lru_cache(maxsize=128)
def jet_bridge(reach: float, door: float) -> Mesh:
    """Build a jet bridge from the facade at x = 0 to a cab at x = `reach`, its floor at `door` metres."""
    m = MeshBuilder()
    m.tube((-1.0, 0, 0), (-1.0, 0, door + 2.9), 2.1, 2.1, "wall", 10, (None, "roof"))
    half = reach * 0.55
    for x0, x1, w in ((0, half, 3.1), (half, reach - 1.5, 2.7)):
        m.box(((x0 + x1) / 2, 0, door + 1.35), (x1 - x0, w, 2.7), "bridge", "roof")
        for side in (-1, 1):
            y, low, high = side * (w / 2 + 0.05), door + 1.1, door + 2.1
            corners = [
                [(a, y, low), (a + 2.2, y, low), (a + 2.2, y, high), (a, y, high)]
                for a in np.arange(x0 + 0.6, x1 - 2.0, 3.0).tolist()
            ]
            m.quads(corners, "glass_light", ((x0 + x1) / 2, 0, door + 1))
    m.box((reach - 0.6, 0, door + 1.4), (2.4, 3.7, 3.0), "dark", "roof")
    x = reach - 4.5
    for side in (-1, 1):
        m.box((x, side * 1.3, door / 2 + 0.3), (0.35, 0.35, door), "steel")
        m.wheel(x, side * 1.3, 0.5, 0.5, 8)
    m.box((x, 0, 0.8), (0.6, 3.2, 0.4), "steel")
    return m.build()


@lru_cache(maxsize=16)
def clutter(kind: str) -> Mesh:
    """Build a small unlabelled thing: cone, pole, container or barrier."""
    m = MeshBuilder()
    if kind == "cone":
        m.box((0, 0, 0.03), (0.42, 0.42, 0.06), "dark")
        m.tube((0, 0, 0.06), (0, 0, 0.3), 0.16, 0.1, "cone", 6)
        m.tube((0, 0, 0.3), (0, 0, 0.48), 0.1, 0.07, "white", 6)
        m.tube((0, 0, 0.48), (0, 0, 0.75), 0.07, 0.03, "cone", 6, (None, "cone"))
    elif kind == "pole":
        m.box((0, 0, 0.5), (1.2, 1.2, 1.0), "concrete")
        m.tube((0, 0, 1.0), (0, 0, 24.0), 0.3, 0.16, "steel", 6)
        m.box((0, 0, 24.3), (0.8, 4.2, 0.5), "steel")
        for y in (-1.6, -0.55, 0.55, 1.6):
            m.box((0.5, y, 24.2), (0.3, 0.8, 0.7), "white")
    elif kind == "container":
        profile = [(1.0, 0.5), (1.0, 2.1), (-1.0, 2.1), (-1.0, 1.0), (-0.6, 0.5)]
        m.extrude(profile, 0.75, ["container", "white", "container", "container", "dark"], "container")
        m.box((0, 0, 0.4), (2.4, 1.6, 0.12), "dark")
        for x in (-0.9, 0.9):
            for y in (-0.6, 0.6):
                m.box((x, y, 0.18), (0.3, 0.14, 0.36), "tyre")
    elif kind == "barrier":
        for i in range(4):
            m.box((0, -3.0 + i * 2.0, 0.4), (0.45, 1.95, 0.8), "red" if i % 2 else "white")
    else:
        raise ValueError(f"no such clutter: {kind}")
    return m.build()


# Camera and rasteriser ------------------------------------------------------------------------------------------------


@dataclass(frozen=True)
class Camera:
    """A camera `mount` metres above the ground, looking along +y.

    Attributes:
        width (int): Image width, pixels.
        height (int): Image height, pixels.
        focal (float): Focal length in pixels (pixels a radian along the row for a panorama).
        mount (float): Metres above the ground.
        horizon (float): Row of the horizon, pixels from the top.
        panorama (bool): Cylindrical projection (as stitched panoramas have) instead of a tilted pinhole.
    """

    width: int
    height: int
    focal: float
    mount: float
    horizon: float
    panorama: bool = False

    @cached_property
    def pitch(self) -> float:
        """Downward tilt of the pinhole, radians."""
        return math.atan2(self.height / 2 - self.horizon, self.focal)

    def project(self, points: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """Project world points (..., 3) to pixels (..., 2) and depths (...) in metres; below `NEAR` pixels are junk."""
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
        """Find the ground points x and y in metres of the pixel rows `top` to `bottom`, (rows, width) float32 each."""
        u = (np.arange(self.width, dtype=np.float32) + 0.5 - self.width / 2)[None] / self.focal
        v = np.arange(top, bottom, dtype=np.float32)[:, None] + 0.5
        if self.panorama:
            r = self.mount * self.focal / np.maximum(v - self.horizon, 0.05)
            return r * np.sin(u), r * np.cos(u)
        d = (v - self.height / 2) / self.focal
        c, s = math.cos(self.pitch), math.sin(self.pitch)
        t = self.mount / np.maximum(d * c + s, 0.05 / self.focal)
        return u * t, np.broadcast_to((c - d * s) * t, (len(v), self.width))


def place(mesh: Mesh, x: float, y: float, heading: float, z: float = 0.0) -> np.ndarray:
    """Move a mesh's vertices into the world: (V, 3) float32, metres; `heading` in radians from +x to +y."""
    c, s = math.cos(heading), math.sin(heading)
    turn = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)
    return mesh.vertices @ turn + np.array([x, y, z], np.float32)


class Canvas:
    """A z-buffer at `scale` times the image's size, which keeps for each sample the face that is seen there."""

    def __init__(self, camera: Camera, scale: int) -> None:
        self.camera, self.scale = camera, scale
        shape = (camera.height * scale, camera.width * scale)
        self.near = np.zeros(shape, np.float32)  # inverse depth
        self.face = np.zeros(shape, np.int32)  # 0: nothing, else 1 + index of the face
        self.colours: list[np.ndarray] = [np.zeros((1, 4), np.uint8)]
        self.count = 1
        self.drawn: list[tuple[int, int, int, int]] = []  # touched areas in samples: x0, y0, x1, y1

    def draw(
        self, mesh: Mesh, vertices: np.ndarray, shade: Callable[[np.ndarray, np.ndarray, np.ndarray], np.ndarray]
    ) -> tuple[tuple[int, int], tuple[int, int, int, int], float]:
        """Draw a placed mesh.

        Args:
            mesh (Mesh): The model.
            vertices (np.ndarray): (V, 3) float32, its vertices in the world.
            shade (Callable): Gives the lit colours (N, 3), BGR, 0 to 255, from the quads (N, 4, 3) that face the
                camera, their normals (N, 3) and which of the mesh's faces they are (N,).

        Returns:
            faces (tuple[int, int]): Range of values in `self.face` that stand for this mesh.
            area (tuple[int, int, int, int]): x0, y0, x1, y1 in samples where it may have been drawn.
            samples (float): How many samples it would cover if nothing stood before it or cut it off.
        """
        start = self.count
        rows, cols = self.near.shape
        pixels, depth = self.camera.project(vertices)
        quads = vertices[mesh.faces]
        normal = normals(quads)
        eye = np.array([0, 0, self.camera.mount], np.float32)
        towards = np.einsum("ij,ij->i", each_corner(np.add, quads) - 4 * eye, normal)
        which = np.flatnonzero((towards < 0) & (each_corner(np.minimum, depth[mesh.faces]) > NEAR))
        if not len(which):
            return (start, start), (0, 0, 0, 0), 0.0
        faces = mesh.faces[which]
        p = (pixels * self.scale - 0.5).astype(np.float32)[faces]  # (n, 4, 2), centre of sample i at i
        least, most = each_corner(np.minimum, p), each_corner(np.maximum, p)
        low, high = np.floor(least.min(0)).astype(int), np.ceil(most.max(0)).astype(int) + 1
        x0, y0, x1, y1 = max(low[0], 0), max(low[1], 0), min(high[0], cols), min(high[1], rows)
        if x0 >= x1 or y0 >= y1:
            return (start, start), (0, 0, 0, 0), 0.0
        colours = np.full((len(which), 4), 255, np.uint8)
        colours[:, :3] = np.clip(shade(quads[which], normal[which], which), 0, 255)
        self.colours.append(colours)
        self.count += len(which)
        # 1/depth is a plane over the image; solve it for each face from its diagonals and its mean
        w = (1 / depth).astype(np.float32)[faces]
        d1, d2 = p[:, 2] - p[:, 0], p[:, 3] - p[:, 1]
        w1, w2 = w[:, 2] - w[:, 0], w[:, 3] - w[:, 1]
        det = d1[:, 0] * d2[:, 1] - d1[:, 1] * d2[:, 0]
        inverse = np.where(np.abs(det) < 2.0, 0, 1 / np.where(det == 0, 1, det))
        gx = (w1 * d2[:, 1] - w2 * d1[:, 1]) * inverse
        gy = (w2 * d1[:, 0] - w1 * d2[:, 0]) * inverse
        middle = each_corner(np.add, p) / 4
        base = w.mean(1) - gx * middle[:, 0] - gy * middle[:, 1]
        plane = np.stack([gx, gy, base], 1) * np.where(mesh.decal[which], 1.0006, 1.0)[:, None]
        # The samples that a face may cover, and those of them that lie in the image
        bounds = np.floor(np.concatenate([least + 0.5, most + 1.5], 1)).astype(np.int32)
        size = (bounds[:, 2:] - bounds[:, :2]).max(1)
        bounds = np.clip(bounds, (x0, y0, x0, y0), (x1, y1, x1, y1))
        inside = (bounds[:, :2] < bounds[:, 2:]).all(1)
        covered = np.zeros((y1 - y0, x1 - x0), bool)
        done = 0
        for side in (4, 8, 16, 32):
            group = np.flatnonzero(inside & (size > done) & (size <= side))
            done = side
            for i in range(0, len(group), 65536 // side**2):
                part = group[i : i + 65536 // side**2]
                self._draw_small(
                    side, p[part], plane[part].astype(np.float32), bounds[part], part + start, covered, x0, y0
                )
        large = np.flatnonzero(inside & (size > done))
        if len(large):
            self._draw_large(p[large], plane[large].astype(np.float32), bounds[large], large + start, covered, x0, y0)
        self.drawn.append((x0, y0, x1, y1))
        whole = float((high - low).prod()) / max(1.0, (x1 - x0) * (y1 - y0))
        return (start, self.count), (x0, y0, x1, y1), np.count_nonzero(covered) * whole

    def _draw_small(
        self, side: int, p: np.ndarray, plane: np.ndarray, bounds: np.ndarray, ids: np.ndarray,
        covered: np.ndarray, x0: int, y0: int,
    ) -> None:  # fmt: skip
        """Draw faces (n, 4, 2) at most `side` samples wide and tall, all at once."""
        # Along each edge (nx, ny) points inward; a sample counts from half a sample outside on, as it does in OpenCV
        edge = np.roll(p, -1, 1) - p
        nx, ny = -edge[..., 1], edge[..., 0]
        d1, d2 = p[:, 2] - p[:, 0], p[:, 3] - p[:, 1]
        turned = d1[:, 0] * d2[:, 1] < d1[:, 1] * d2[:, 0]
        nx[turned], ny[turned] = -nx[turned], -ny[turned]
        corner = bounds[:, :2].astype(np.float32)
        shift = p - corner[:, None]
        c = 0.5 * np.maximum(np.abs(nx), np.abs(ny)) - nx * shift[..., 0] - ny * shift[..., 1]
        steps = np.arange(side, dtype=np.float32)
        across = nx[..., None] * steps  # (n, 4, side)
        down = ny[..., None] * steps + c[..., None]
        lowest = across[:, 0, None, :] + down[:, 0, :, None]  # (n, side, side)
        for i in (1, 2, 3):
            np.minimum(lowest, across[:, i, None, :] + down[:, i, :, None], out=lowest)
        wide, tall = (bounds[:, 2:] - bounds[:, :2]).T
        hit = lowest >= 0
        hit &= (steps < wide[:, None])[:, None, :]
        hit &= (steps < tall[:, None])[:, :, None]
        index, row, col = np.unravel_index(np.flatnonzero(hit), hit.shape)
        x, y = col + bounds[index, 0], row + bounds[index, 1]
        value = plane[index, 0] * x.astype(np.float32) + (plane[index, 1] * y.astype(np.float32) + plane[index, 2])
        covered[y - y0, x - x0] = True
        near, face = self.near.reshape(-1), self.face.reshape(-1)
        at = y * self.near.shape[1] + x
        np.maximum.at(near, at, value)
        wins = near[at] == value
        face[at[wins]] = ids[index[wins]]

    def _draw_large(
        self, p: np.ndarray, plane: np.ndarray, bounds: np.ndarray, ids: np.ndarray,
        covered: np.ndarray, x0: int, y0: int,
    ) -> None:  # fmt: skip
        """Draw faces (n, 4, 2) one by one."""
        rows, cols = self.near.shape
        corners = np.round((np.clip(p, -20000, 20000) - np.array([x0, y0], np.float32)) * 16).astype(np.int32)
        xs, ys = np.arange(cols, dtype=np.float32), np.arange(rows, dtype=np.float32)[:, None]
        stencil = np.zeros(covered.shape, np.int32)
        for quad, face, (gx, gy, base), (a, b, c, d) in zip(corners, ids.tolist(), plane, bounds.tolist(), strict=True):
            cv2.fillConvexPoly(stencil, quad, face, cv2.LINE_8, 4)
            near = self.near[b:d, a:c]
            value = xs[a:c] * gx + (ys[b:d] * gy + base)
            wins = stencil[b - y0 : d - y0, a - x0 : c - x0] == face
            wins &= value > near
            np.copyto(near, value, where=wins)
            np.copyto(self.face[b:d, a:c], face, where=wins)
        covered |= stencil > 0

    def visible(self, faces: tuple[int, int], area: tuple[int, int, int, int]) -> tuple[np.ndarray | None, int]:
        """Find what is seen of a mesh: its box (4,) xyxy in image pixels (None if hidden) and the number of samples."""
        x0, y0, x1, y1 = area
        if faces[0] == faces[1] or x0 >= x1 or y0 >= y1:
            return None, 0
        seen = cv2.inRange(self.face[y0:y1, x0:x1], faces[0], faces[1] - 1)
        count = cv2.countNonZero(seen)
        if not count:
            return None, 0
        x, y, wide, tall = cv2.boundingRect(seen)
        box = np.array([x0 + x, y0 + y, x0 + x + wide, y0 + y + tall], np.float32) / self.scale
        return box, count

    def composite(self, image: np.ndarray, tile: int = 64) -> None:
        """Lay what was drawn over a BGR uint8 image in place, each pixel the mean of its samples."""
        colours, s = np.concatenate(self.colours).view(np.uint32).ravel(), self.scale  # BGRA, A = 255
        height, width = image.shape[:2]
        todo = np.zeros((-(-height // tile), -(-width // tile)), bool)
        for x0, y0, x1, y1 in self.drawn:
            todo[y0 // s // tile : (y1 - 1) // s // tile + 1, x0 // s // tile : (x1 - 1) // s // tile + 1] = True
        for row, col in np.argwhere(todo).tolist():
            a, b, c, d = col * tile, row * tile, min((col + 1) * tile, width), min((row + 1) * tile, height)
            face = self.face[b * s : d * s, a * s : c * s]
            if not face.any():
                continue
            samples = colours[face].view(np.uint8).reshape(*face.shape, 4)
            mean = cv2.resize(samples, (c - a, d - b), interpolation=cv2.INTER_AREA) if s > 1 else samples
            alpha = mean[..., 3]
            rest = cv2.merge([cv2.bitwise_not(alpha)] * 3)
            back = cv2.multiply(image[b:d, a:c], rest, scale=1 / 255)
            image[b:d, a:c] = cv2.add(back, cv2.cvtColor(mean, cv2.COLOR_BGRA2BGR))
