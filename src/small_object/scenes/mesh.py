"""Low-poly meshes of quads and the primitives that build them.

A model is in metres in its own frame: x forward, y left, z up, the origin on the ground under its middle.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

MATT = ("vest", "trousers", "tyre", "concrete")
GLASS = ("glass", "glass_light", "cockpit")
BOX_CORNERS = np.array([[x, y, z] for z in (-1, 1) for y in (-1, 1) for x in (-1, 1)], np.float32)
BOX_FACES = np.array([[0, 1, 3, 2], [4, 5, 7, 6], [0, 1, 5, 4], [2, 3, 7, 6], [0, 2, 6, 4], [1, 3, 7, 5]], np.int32)

Material = str | Callable[[int, int], str]  # a name, or a function of (ring, side) that returns one


def quad_normals(quads: np.ndarray) -> np.ndarray:
    """Return the normals (N, 3) of quads (N, 4, 3), not scaled. `np.cross` costs more for the few faces of a part."""
    a, b = (quads[:, 2] - quads[:, 0]).T, (quads[:, 3] - quads[:, 1]).T
    return np.stack([a[j] * b[k] - a[k] * b[j] for j, k in ((1, 2), (2, 0), (0, 1))], 1)


def reduce_corners(ufunc: np.ufunc, quads: np.ndarray) -> np.ndarray:
    """Reduce quads (N, 4, ...) over their corners; `ufunc.reduce` along axis 1 is slow for so few."""
    return np.asarray(ufunc(ufunc(quads[:, 0], quads[:, 1]), ufunc(quads[:, 2], quads[:, 3])))


def ellipse(
    axis: int, position: float, centre: Sequence[float], radii: Sequence[float], sides: int, phase: float = 0.5
) -> np.ndarray:
    """Return points (sides, 3) of an ellipse at right angles to an axis; `centre` and `radii` are in the other two."""
    t = (np.arange(sides) + phase) * 2 * np.pi / sides
    points = np.full((sides, 3), position, np.float64)
    a, b = (i for i in range(3) if i != axis)
    points[:, a], points[:, b] = centre[0] + radii[0] * np.cos(t), centre[1] + radii[1] * np.sin(t)
    return points


@dataclass(frozen=True)
class Mesh:
    """Faces of one model; triangles repeat their last vertex."""

    vertices: np.ndarray  # (V, 3) float32, metres
    faces: np.ndarray  # (F, 4) int32 vertex indices, counter-clockwise seen from outside
    slots: np.ndarray  # (F,) index into `materials`
    decal: np.ndarray  # (F,) bool: painted on another face, in front of it at the same depth
    materials: tuple[str, ...]  # names that a colour scheme maps to colours

    @cached_property
    def half_size(self) -> tuple[float, float]:
        """Half length and half width of the footprint, metres."""
        return float(np.abs(self.vertices[:, 0]).max()), float(np.abs(self.vertices[:, 1]).max())

    @cached_property
    def gloss(self) -> np.ndarray:
        """How much each face shines, (F,) 0 to 1."""
        return np.asarray(np.array([0.0 if n in MATT else 0.35 for n in self.materials], np.float32)[self.slots])

    @cached_property
    def glass(self) -> np.ndarray:
        """Which faces are windows, (F,) bool."""
        return np.asarray(np.array([n in GLASS for n in self.materials])[self.slots])

    @cached_property
    def solid(self) -> np.ndarray:
        """Faces that cast a shadow, all but the painted ones, (N, 4) vertex indices."""
        return np.asarray(self.faces[~self.decal])

    def transform(self, x: float, y: float, heading: float) -> np.ndarray:
        """Return the vertices in the world, (V, 3) float32 metres; `heading` in radians from +x to +y."""
        c, s = math.cos(heading), math.sin(heading)
        rotation = np.array([[c, s, 0], [-s, c, 0], [0, 0, 1]], np.float32)
        return self.vertices @ rotation + np.array([x, y, 0], np.float32)


class MeshBuilder:
    """Collects parts into a `Mesh`; each face is turned outward, away from a point that lies inside its part."""

    def __init__(self) -> None:
        self.vertices: list[np.ndarray] = []
        self.faces: list[np.ndarray] = []
        self.inside: list[np.ndarray] = []
        self.materials: list[str] = []
        self.decals: list[bool] = []
        self.num_vertices = 0

    def add(
        self, vertices: ArrayLike, faces: ArrayLike, materials: str | list[str], inside: ArrayLike, decal: bool = False
    ) -> None:
        """Add faces (F, 4), indices into vertices (V, 3); `inside`, (3,) or (F, 3), is a point behind each face."""
        v = np.asarray(vertices, np.float32).reshape(-1, 3)
        f = np.asarray(faces, np.int32).reshape(-1, 4)
        self.vertices.append(v)
        self.faces.append(f + self.num_vertices)
        self.inside.append(np.broadcast_to(np.asarray(inside, np.float32), (len(f), 3)))
        self.materials += [materials] * len(f) if isinstance(materials, str) else materials
        self.decals += [decal] * len(f)
        self.num_vertices += len(v)

    def quads(self, corners: ArrayLike, materials: str | list[str], inside: ArrayLike) -> None:
        """Add painted quads (N, 4, 3)."""
        v = np.asarray(corners, np.float32).reshape(-1, 3)
        self.add(v, np.arange(len(v)), materials, inside, decal=True)

    def panels(self, axis: int, position: float, rectangles: ArrayLike, materials: str | list[str]) -> None:
        """Add painted upright rectangles at a position on axis 0 (x) or 1 (y), whose sign says which way they face.

        `rectangles` (N, 4) are from and to along the other axis, then from and to in z.
        """
        r = np.asarray(rectangles, np.float32).reshape(-1, 4)
        corners = np.full((len(r), 4, 3), position, np.float32)
        corners[..., 1 - axis], corners[..., 2] = r[:, [0, 1, 1, 0]], r[:, [2, 2, 3, 3]]
        self.quads(corners, materials, (0, 0, 0))

    def sheet(self, corners: ArrayLike, material: str) -> None:
        """Add a quad (4, 3) that is seen from both sides."""
        quad = np.asarray(corners, np.float32)
        behind = quad.mean(0) + np.outer((-1, 1), quad_normals(quad[None]))
        self.add(quad, [range(4)] * 2, material, behind)

    def box(self, centre: ArrayLike, size: ArrayLike, material: str, top: str | None = None) -> None:
        """Add a box by its centre and (length, width, height)."""
        v = BOX_CORNERS * np.asarray(size, np.float32) / 2 + np.asarray(centre, np.float32)
        self.add(v, BOX_FACES, [material, top or material] + [material] * 4, centre)

    def loft(self, rings: ArrayLike, material: Material, caps: tuple[str | None, str | None] = (None, None)) -> None:
        """Add a tube through rings (R, N, 3); `caps` are the materials of the two ends, None for an open one."""
        rings = np.asarray(rings, np.float32)
        count, sides = rings.shape[:2]
        centres = rings.mean(1)
        r, s = (a.ravel() for a in np.mgrid[: count - 1, :sides])
        following = (s + 1) % sides
        faces = np.stack([r * sides + s, r * sides + following, (r + 1) * sides + following, (r + 1) * sides + s], 1)
        names = [material(i, j) for i, j in zip(r, s, strict=True)] if callable(material) else material
        self.add(rings, faces, names, (centres[r] + centres[r + 1]) / 2)
        for ring, name, inside in zip((rings[0], rings[-1]), caps, (centres[1], centres[-2]), strict=True):
            if name:
                self.polygon(ring, name, inside)

    def polygon(self, points: np.ndarray, material: str, inside: ArrayLike, decal: bool = False) -> None:
        """Add a convex polygon (N, 3) as quads."""
        n = len(points)
        faces = [[0, i, min(i + 1, n - 1), min(i + 2, n - 1)] for i in range(1, n - 1, 2)]
        self.add(points, faces, material, inside, decal)

    def tube(
        self, a: ArrayLike, b: ArrayLike, radius_a: float, radius_b: float, material: str, sides: int = 6,
        caps: tuple[str | None, str | None] = (None, None),
    ) -> None:  # fmt: skip
        """Add a tapered cylinder from point a to point b."""
        a, b = np.asarray(a, np.float32), np.asarray(b, np.float32)
        axis = (b - a) / np.linalg.norm(b - a)
        e1 = np.cross(axis, np.array([0, 0, 1] if abs(axis[2]) < 0.9 else [1, 0, 0], np.float32))
        e1 /= np.linalg.norm(e1)
        e2 = np.cross(axis, e1)
        t = (np.arange(sides) + 0.5) * 2 * np.pi / sides
        ring = np.cos(t)[:, None] * e1 + np.sin(t)[:, None] * e2
        self.loft([a + radius_a * ring, b + radius_b * ring], material, caps)

    def extrude(
        self, profile: Sequence[tuple[float, float]], half_width: float, material: str | Sequence[str], sides: str
    ) -> None:
        """Add a convex profile (N, 2) in the x-z plane, extruded to both sides; `material` may give one per edge."""
        rings = [[(x, y, z) for x, z in profile] for y in (half_width, -half_width)]
        names = material if isinstance(material, str) else lambda _, edge: material[edge]
        self.loft(rings, names, (sides, sides))

    def wheel(self, x: float, y: float, radius: float, width: float = 0.3, sides: int = 8) -> None:
        """Add a wheel that stands on the ground."""
        a, b = (x, y - width / 2, radius), (x, y + width / 2, radius)
        self.tube(a, b, radius, radius, "tyre", sides, ("tyre", "tyre"))
        if sides >= 8:
            for position in (a[1] - 0.02, b[1] + 0.02):
                rim = ellipse(1, position, (x, radius), (radius * 0.5, radius * 0.5), 6, phase=0)
                self.polygon(rim, "rim", (x, y, radius), decal=True)

    def build(self) -> Mesh:
        """Join all parts."""
        materials = tuple(dict.fromkeys(self.materials))
        slots = np.array([materials.index(name) for name in self.materials], np.int32)
        vertices, faces = np.concatenate(self.vertices), np.concatenate(self.faces)
        quads = vertices[faces]
        inward = (quad_normals(quads) * (quads.mean(1) - np.concatenate(self.inside))).sum(1) < 0
        faces[inward] = faces[inward, ::-1]
        return Mesh(vertices, faces, slots, np.array(self.decals), materials)
