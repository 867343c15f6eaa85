"""Models made of a few convex solids, which need no depth buffer.

A model is in metres in its own frame: x forward, y left, z up, the origin on the ground under its middle. The faces of
a convex solid that face the eye never hide each other. A plane between two solids gives their order: the one on the
eye's side is in front.
"""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from numpy.typing import ArrayLike

Material = str | Callable[[int, int], str]  # a name, or a function of (ring, side) that returns one
MIN_PAINTED = 2.0  # minimum width and height of painted faces in samples


@dataclass(frozen=True)
class Model:
    """The faces of all solids of a model, solid by solid."""

    vertices: np.ndarray  # (V, 3) float32, metres
    starts: np.ndarray  # (S,) first vertex of each solid
    faces: np.ndarray  # (F, 4) vertex indices
    solid: np.ndarray  # (F,) index of the solid that a face belongs to
    materials: list[str]  # (F) names that a colour scheme maps to colours
    painted: np.ndarray  # (F,) bool: painted on a face of the solid
    normals: np.ndarray  # (F, 3) unit vectors outward
    offsets: np.ndarray  # (F,) of the faces' planes: normal @ point
    dividers: np.ndarray  # (S, S) index of the face whose plane divides two solids best
    outside: np.ndarray  # (S, S) bool: the first solid is in front of that face, the second one behind

    @cached_property
    def half_size(self) -> tuple[float, float]:
        """Half length and half width of the footprint, metres."""
        length, width, _ = np.abs(self.vertices).max(0).tolist()
        return length, width

    def visible_faces(self, eye: np.ndarray, points: np.ndarray) -> np.ndarray:
        """Return the indices of the faces to paint, in this order.

        Args:
            eye: The eye (3,) in the model's frame.
            points: Where it sees the vertices, (V, 2). Painted faces that are too small are left out.
        """
        front = self.normals @ eye > self.offsets
        low, high = np.minimum.reduceat(points, self.starts), np.maximum.reduceat(points, self.starts)
        hides = (front[self.dividers] == self.outside) & ((low[:, None] < high) & (low < high[:, None])).all(2)
        np.fill_diagonal(hides, False)
        order = np.empty(len(self.starts), int)
        for position in range(len(order)):  # the next solid is the one that hides the fewest remaining ones
            farthest = hides.sum(1).argmin()
            order[farthest] = position
            hides[:, farthest], hides[farthest] = False, True
        seen = np.flatnonzero(front & ~(self.painted & (np.ptp(points[self.faces], axis=1).min(1) < MIN_PAINTED)))
        return np.asarray(seen[np.argsort(order[self.solid[seen]], kind="stable")])


def ring(axis: int, position: float, centre: Sequence[float], radii: Sequence[float], sides: int) -> np.ndarray:
    """Return points (sides, 3) of an ellipse at right angles to an axis; `centre` and `radii` are in the other two."""
    t = (np.arange(sides) + 0.5) * 2 * np.pi / sides
    points = np.full((sides, 3), position, np.float32)
    a, b = (i for i in range(3) if i != axis)
    points[:, a], points[:, b] = centre[0] + radii[0] * np.cos(t), centre[1] + radii[1] * np.sin(t)
    return points


class ModelBuilder:
    """Collects convex solids and the faces painted on them."""

    def __init__(self) -> None:
        self.points: list[np.ndarray] = []  # of each solid
        self.faces: list[list[tuple[list[int], str, bool]]] = []  # of each solid: vertices, material, whether painted

    def loft(self, rings: ArrayLike, material: Material, caps: tuple[str, str] | None = None) -> None:
        """Add a solid through convex rings (R, N, 3); `caps` are the materials of its ends."""
        rings = np.asarray(rings, np.float32)
        count, n = rings.shape[:2]
        faces = []
        for i, j in np.ndindex(count - 1, n):
            a, b = i * n + j, i * n + (j + 1) % n
            faces.append(([a, b, b + n, a + n], material(i, j) if callable(material) else material, False))
        caps = caps or (faces[0][1], faces[-1][1])
        for first, name in zip((0, (count - 1) * n), caps, strict=True):
            for i in range(first + 1, first + n - 1, 2):
                faces.append(([first, i, i + 1, min(i + 2, first + n - 1)], name, False))
        self.points.append(rings.reshape(-1, 3))
        self.faces.append(faces)

    def box(self, centre: Sequence[float], size: Sequence[float], material: str, top: str | None = None) -> None:
        """Add a box by its centre and (length, width, height)."""
        (x, _, z), (a, _, c) = centre, (s / 2 for s in size)
        profile = [(x - a, z - c), (x + a, z - c), (x + a, z + c), (x - a, z + c)]
        self.extrude(profile, size[1] / 2, (material, material, top or material, material), material, centre[1])

    def extrude(self, profile: ArrayLike, half_width: float, edges: Sequence[str], sides: str, y: float = 0.0) -> None:
        """Add a convex profile (N, 2) in the x-z plane, extruded to both sides; `edges` are its edges' materials."""
        p = np.asarray(profile, np.float32)
        rings = [np.insert(p, 1, y + side * half_width, axis=1) for side in (-1, 1)]
        self.loft(rings, lambda _, edge: edges[edge], (sides, sides))

    def wheels(self, xs: Sequence[float], half_track: float, radius: float) -> None:
        """Add a pair of wheels at each x; `half_track` is the y of their outer sides."""
        for x, y in ((x, side * half_track) for x in xs for side in (-1, 1)):
            tread = [ring(1, side, (x, radius), (radius, radius), 10) for side in (y - 0.3 * np.sign(y), y)]
            self.loft(tread, "tyre")
            self.paint(ring(1, y, (x, radius), (radius * 0.5, radius * 0.5), 4), "rim")

    def paint(self, quads: ArrayLike, material: str) -> None:
        """Paint flat quads (N, 4, 3) on the last solid."""
        corners, first = np.asarray(quads, np.float32).reshape(-1, 3), len(self.points[-1])
        self.points[-1] = np.concatenate([self.points[-1], corners])
        self.faces[-1] += [([i, i + 1, i + 2, i + 3], material, True) for i in range(first, first + len(corners), 4)]

    def panel(self, xs: tuple[float, float], zs: tuple[float, float], half_width: float, material: str) -> None:
        """Paint an upright rectangle on both sides of the last solid."""
        outline = [(xs[0], zs[0]), (xs[1], zs[0]), (xs[1], zs[1]), (xs[0], zs[1])]
        self.paint([[(x, y, z) for x, z in outline] for y in (-half_width, half_width)], material)

    def build(self) -> Model:
        """Join all solids."""
        counts = [len(points) for points in self.points]
        starts = np.append(0, np.cumsum(counts)[:-1])
        vertices = np.concatenate(self.points)
        parts = [(number, *face) for number, faces in enumerate(self.faces) for face in faces]
        solid, painted = np.array([p[0] for p in parts]), np.array([p[3] for p in parts])
        faces = np.array([p[1] for p in parts]) + starts[solid][:, None]
        # Outward normals: away from the middle of the solid
        quads = vertices[faces]
        normals = np.cross(quads[:, 2] - quads[:, 0], quads[:, 3] - quads[:, 1])
        normals /= np.maximum(np.linalg.norm(normals, axis=1, keepdims=True), 1e-9)
        middles = np.add.reduceat(vertices, starts) / np.array(counts)[:, None]
        normals[((quads.mean(1) - middles[solid]) * normals).sum(1) < 0] *= -1
        offsets = (quads.mean(1) * normals).sum(1)
        # How far each solid (S) is in front of each face's plane (F), at its nearest vertex
        gaps = np.minimum.reduceat(normals @ vertices.T - offsets[:, None], starts, axis=1)
        gaps[painted] = -np.inf
        face = np.array([np.where((solid == i)[:, None], gaps, -np.inf).argmax(0) for i in range(len(counts))])
        best = np.take_along_axis(gaps, face, 0)  # (S, S): of the second solid in front of a face of the first
        outside = best < best.T
        materials, dividers = [p[2] for p in parts], np.where(outside, face.T, face)
        return Model(vertices, starts, faces, solid, materials, painted, normals, offsets, dividers, outside)
