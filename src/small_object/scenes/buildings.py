"""Models of buildings and of other unlabelled objects around an airport."""

from __future__ import annotations

from functools import lru_cache
from itertools import pairwise

import numpy as np

from small_object.scenes.mesh import Mesh, MeshBuilder


def draw_facade_colours(rng: np.random.Generator) -> dict[str, str]:
    """Draw a building's colours."""
    wall = ("#c9c7c0", "#d8d8d4", "#a9aeb3", "#b8ad9c", "#e3e2dc", "#8f979e")[rng.integers(6)]
    trim = ("#f0f0ee", "#6d747a", wall)[rng.integers(3)]
    gate = ("#6b7278", "#566068", "#9aa3aa")[rng.integers(3)]
    bridge = ("#dcdedf", "#c9ced2", "#aeb6bd")[rng.integers(3)]
    return {"wall": wall, "roof": "#9a9c9c", "trim": trim, "gate": gate, "bridge": bridge}


@lru_cache(maxsize=256)
def build_building(kind: str, length: float, depth: float, height: float, near: bool) -> Mesh:
    """Build a terminal, hangar, office block or control tower.

    The facade faces +x; it is `length` wide along y. `near` adds panes and panels, which only show at close range.
    """
    m = MeshBuilder()
    if kind == "tower":
        _add_tower(m, height)
    else:
        # In pieces, since a panorama bends long edges
        ys = np.linspace(-length / 2, length / 2, max(1, round(length / (6.0 if near else 18.0))) + 1)
        if kind == "hangar":
            _add_hangar(m, ys, depth, height)
        else:
            _add_block(m, kind, ys, depth, height, near)
    return m.build()


def _add_tower(m: MeshBuilder, height: float) -> None:
    m.tube((0, 0, 0), (0, 0, height * 0.8), 4.0, 3.2, "concrete", 10)
    m.tube((0, 0, height * 0.78), (0, 0, height * 0.86), 4.5, 7.2, "concrete", 10)
    m.tube((0, 0, height * 0.86), (0, 0, height * 0.95), 6.6, 7.6, "glass", 10)
    m.tube((0, 0, height * 0.95), (0, 0, height), 7.8, 7.0, "roof", 10, (None, "roof"))
    m.tube((0, 0, height), (0, 0, height * 1.15), 0.25, 0.1, "red", 4)


def _add_hangar(m: MeshBuilder, ys: np.ndarray, depth: float, height: float) -> None:
    arc = [(-0.5, 0.0), (-0.5, 0.75), (-0.25, 0.93), (0, 1), (0.25, 0.93), (0.5, 0.75), (0.5, 0.0)]
    for y0, y1 in pairwise(ys):
        rings = [[(x * depth, y, z * height) for x, z in arc] for y in (y0, y1)]
        caps = ("wall" if y0 == ys[0] else None, "wall" if y1 == ys[-1] else None)
        m.loft(rings, lambda _, side: "roof" if 1 <= side <= 4 else "wall", caps)
        gap = 0.06 * (y1 - y0)
        m.panels(0, depth / 2 + 0.1, (y0 + gap, y1 - gap, 0.2, height * 0.62), "gate")


def _add_block(m: MeshBuilder, kind: str, ys: np.ndarray, depth: float, height: float, near: bool) -> None:
    """Add a terminal or an office block."""
    bands = terminal_bands = [(height * 0.3, height * 0.55), (height * 0.6, height * 0.88)]
    if kind != "terminal":
        floors = max(2, round(height / 3.6))
        bands = [((i + 0.3) * height / floors, (i + 0.78) * height / floors) for i in range(floors)]
    panes = 2 if near else 1
    for y0, y1 in pairwise(ys):
        middle, width = (y0 + y1) / 2, y1 - y0
        m.box((0, middle, height / 2), (depth, width, height), "wall", "roof")
        windows, glass = [], []
        for low, high in bands:
            for i in range(panes):
                windows.append((y0 + width * i / panes + 0.12, y0 + width * (i + 1) / panes - 0.12, low, high))
                glass.append("glass_light" if (i + round(middle) + round(low)) % 3 == 0 else "glass")
        for x in (depth / 2 + 0.08, -depth / 2 - 0.08):
            if kind == "terminal":
                m.panels(0, x, (y0 + 0.25, y1 - 0.25, 0.3, height * 0.22), "gate")
            m.panels(0, x, windows, glass)
        m.box((0.6, middle, height + 0.35), (depth + 3.0, width, 0.7), "trim", "roof")
    for i, y in enumerate(ys[1:-1:2]):
        m.box(((-1) ** i * depth * 0.2, y, height + 1.8), (5.0, 4.0, 2.4), "steel")
    starts = np.arange(-depth / 2 + 1, depth / 2 - 4, 6.0 if near else 15.0)
    windows = [(x, x + (5.0 if near else 12.0), *band) for band in terminal_bands for x in starts]
    for y in (ys[0] - 0.08, ys[-1] + 0.08):
        m.panels(1, y, windows, "glass")


@lru_cache(maxsize=128)
def build_jet_bridge(length: float, door: float) -> Mesh:
    """Build a jet bridge from the facade at x = 0 to a cab at x = `length`, its floor at `door` metres."""
    m = MeshBuilder()
    m.tube((-1.0, 0, 0), (-1.0, 0, door + 2.9), 2.1, 2.1, "wall", 10, (None, "roof"))
    half = length * 0.55
    for x0, x1, width in ((0, half, 3.1), (half, length - 1.5, 2.7)):
        m.box(((x0 + x1) / 2, 0, door + 1.35), (x1 - x0, width, 2.7), "bridge", "roof")
        windows = [(x, x + 2.2, door + 1.1, door + 2.1) for x in np.arange(x0 + 0.6, x1 - 2.0, 3.0)]
        for y in (-(width / 2 + 0.05), width / 2 + 0.05):
            m.panels(1, y, windows, "glass_light")
    m.box((length - 0.6, 0, door + 1.4), (2.4, 3.7, 3.0), "dark", "roof")
    x = length - 4.5
    for y in (-1.3, 1.3):
        m.box((x, y, door / 2 + 0.3), (0.35, 0.35, door), "steel")
        m.wheel(x, y, 0.5, 0.5)
    m.box((x, 0, 0.8), (0.6, 3.2, 0.4), "steel")
    return m.build()


@lru_cache(maxsize=16)
def build_equipment(kind: str) -> Mesh:
    """Build a cone, pole, container or barrier."""
    m = MeshBuilder()
    match kind:
        case "cone":
            m.box((0, 0, 0.03), (0.42, 0.42, 0.06), "dark")
            m.tube((0, 0, 0.06), (0, 0, 0.3), 0.16, 0.1, "cone")
            m.tube((0, 0, 0.3), (0, 0, 0.48), 0.1, 0.07, "white")
            m.tube((0, 0, 0.48), (0, 0, 0.75), 0.07, 0.03, "cone", caps=(None, "cone"))
        case "pole":
            m.box((0, 0, 0.5), (1.2, 1.2, 1.0), "concrete")
            m.tube((0, 0, 1.0), (0, 0, 24.0), 0.3, 0.16, "steel")
            m.box((0, 0, 24.3), (0.8, 4.2, 0.5), "steel")
            for y in (-1.6, -0.55, 0.55, 1.6):
                m.box((0.5, y, 24.2), (0.3, 0.8, 0.7), "white")
        case "container":
            profile = [(1.0, 0.5), (1.0, 2.1), (-1.0, 2.1), (-1.0, 1.0), (-0.6, 0.5)]
            m.extrude(profile, 0.75, ("container", "white", "container", "container", "dark"), "container")
            m.box((0, 0, 0.4), (2.4, 1.6, 0.12), "dark")
            for x, y in ((-0.9, -0.6), (-0.9, 0.6), (0.9, -0.6), (0.9, 0.6)):
                m.box((x, y, 0.18), (0.3, 0.14, 0.36), "tyre")
        case "barrier":
            for y, material in ((-3.0, "white"), (-1.0, "red"), (1.0, "white"), (3.0, "red")):
                m.box((0, y, 0.4), (0.45, 1.95, 0.8), material)
    return m.build()
