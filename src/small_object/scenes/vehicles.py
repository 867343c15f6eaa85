"""Models of ground vehicles and their colours."""

from __future__ import annotations

import math
from functools import lru_cache

import numpy as np

from small_object.scenes.mesh import Mesh, MeshBuilder, ellipse

VEHICLES = {  # how frequent each is
    "box": 1, "catering": 2, "tanker": 2, "flatbed": 1, "tug": 2, "bus": 1, "van": 2, "fire": 1, "stairs": 1,
    "pushback": 1, "belt": 1,
}  # fmt: skip
COLOURS = ("#f0f0ec", "#f0f0ec", "#e2e4e6", "#f2c417", "#e9a313", "#1f5fae", "#d7372b", "#3c7d4e", "#c8ccd0", "#2f3f57")
MARK_COLOURS = ("#1f5fae", "#d7372b", "#f07f1a", "#2c8a4b", "#30363d", "#e8b61a")
BODY = ("cab", "glass", "cab_roof", "cab", "chassis")  # materials of a body's front, windscreen, roof, rear and bottom


def draw_vehicle_colours(kind: str, rng: np.random.Generator) -> dict[str, str]:
    """Draw an operator's colours."""
    cab, mark = COLOURS[rng.integers(len(COLOURS))], MARK_COLOURS[rng.integers(len(MARK_COLOURS))]
    load = ("#f3f3f0", "#f3f3f0", "#dfe2e4", "#c9ced2", cab, "#4877a8")[rng.integers(6)]
    if kind == "fire":
        cab = ("#c81e1e", "#c81e1e", "#c6d92c")[rng.integers(3)]
    return {"cab": cab, "cab_roof": cab, "load": load, "load_top": load, "mark": mark, "fire": cab}


class VehicleBuilder(MeshBuilder):
    """Builds vehicles at a level of detail, as in `build_aircraft`."""

    def __init__(self, detail: int) -> None:
        super().__init__()
        self.detail = detail

    def cab(self, front: float, length: float, width: float, low: float, high: float) -> None:
        """Add a cab with a sloped windscreen; `front` is the x of its bumper, `low` and `high` its z range."""
        half, rear, waist, top = width / 2, front - length, low + (high - low) * 0.48, high - 0.12 * (high - low)
        profile = [(front, low), (front, waist), (front - 0.28 * length, high), (rear, high), (rear, low)]
        self.extrude(profile, half, BODY, "cab")
        for side in (-1, 1):
            y = side * (half + 0.02)
            window = [(0.14, waist), (0.3, top), (0.85, top), (0.85, waist)]
            self.quads([(front - s * length, y, z) for s, z in window], "glass", (0, 0, 0))
            if self.detail == 2:
                self.panels(0, front + 0.02, (0.6 * y, 0.92 * y, low + 0.15, low + 0.4), "light")
                self.box((front - 0.05, side * (half + 0.16), waist + 0.3), (0.08, 0.2, 0.4), "dark")
        self.beacon((front - 0.6 * length, 0, high + 0.08), (0.25, 0.6 * width, 0.16))

    def beacon(self, centre: tuple[float, float, float], size: tuple[float, float, float]) -> None:
        """Add an amber light, where it is large enough to be seen."""
        if self.detail:
            self.box(centre, size, "amber")

    def axles(self, *positions: float, track: float, radius: float) -> None:
        """Add a pair of wheels at each x; the wheels of trailers are small and never get the highest detail."""
        sides = (5, 8, 12 if radius > 0.3 else 8)[self.detail]
        for x in positions:
            for y in (0.15 - track / 2, track / 2 - 0.15):
                self.wheel(x, y, radius, 0.34, sides)

    def stripe(self, x0: float, x1: float, half_width: float, z0: float, z1: float, material: str) -> None:
        """Paint a band along both sides."""
        for y in (-half_width - 0.02, half_width + 0.02):
            self.panels(1, y, (x0, x1, z0, z1), material)


@lru_cache(maxsize=64)
def build_vehicle(kind: str, detail: int) -> Mesh:
    """Build a ground vehicle of a kind in `VEHICLES`; `detail` as in `build_aircraft`."""
    m = VehicleBuilder(detail)
    match kind:
        case "box":
            m.box((0, 0, 0.75), (7.8, 2.0, 0.3), "chassis")
            m.cab(4.0, 1.9, 2.35, 0.55, 2.75)
            m.box((-0.95, 0, 2.2), (5.7, 2.5, 2.7), "load", "load_top")
            m.stripe(-3.6, 1.7, 1.25, 1.5, 2.1, "mark")
            m.axles(3.0, -1.9, -3.0, track=2.4, radius=0.5)
        case "catering":
            m.box((0, 0, 0.75), (8.6, 2.0, 0.3), "chassis")
            m.cab(4.4, 1.9, 2.4, 0.55, 2.6)
            for y in (-0.8, 0.8):
                m.tube((-2.9, y, 0.9), (-1.3, y, 2.7), 0.09, 0.09, "steel", 4)
                m.tube((1.2, y, 0.9), (-0.4, y, 2.7), 0.09, 0.09, "steel", 4)
            m.box((-0.8, 0, 3.9), (6.6, 2.5, 2.4), "load", "load_top")
            m.box((3.3, 0, 2.75), (1.7, 2.2, 0.14), "steel")
            m.stripe(-3.9, 2.3, 1.25, 3.2, 3.8, "mark")
            m.axles(3.2, -2.4, -3.4, track=2.4, radius=0.5)
        case "tanker":
            m.box((0, 0, 0.8), (10.2, 2.0, 0.35), "chassis")
            m.cab(5.2, 2.0, 2.45, 0.55, 2.85)
            sides = (8, 10, 16)[detail]
            mark = [abs(math.sin((side + 1) * 2 * np.pi / sides)) < 0.25 for side in range(sides)]
            ends = ((2.8, 0.8), (2.6, 1), (-4.8, 1), (-5.0, 0.8))
            tank = [ellipse(0, x, (0, 2.15), (s * 1.2, s * 1.05), sides) for x, s in ends]
            m.loft(tank, lambda ring, side: "mark" if ring == 1 and mark[side] else "load", ("load", "load"))
            m.box((-1.2, 0, 3.22), (6.0, 0.7, 0.12), "steel")
            m.axles(4.1, -2.6, -3.8, track=2.45, radius=0.52)
        case "flatbed":
            m.box((-0.9, 0, 1.0), (6.2, 2.4, 0.25), "chassis", "steel")
            m.cab(4.0, 1.9, 2.3, 0.5, 2.6)
            m.box((0.6, 0, 1.85), (1.7, 2.0, 1.5), "container")
            m.box((-1.6, 0, 1.85), (1.7, 2.0, 1.5), "load")
            m.axles(2.9, -1.8, -3.0, track=2.3, radius=0.48)
        case "tug":  # a baggage tractor with two loaded dollies
            m.box((3.6, 0, 0.75), (2.7, 1.5, 0.7), "cab")
            m.box((3.1, 0, 1.25), (0.9, 1.3, 0.4), "dark")
            m.box((3.2, 0, 2.05), (1.5, 1.45, 0.1), "cab_roof")
            for x, y in ((2.55, -0.65), (2.55, 0.65), (3.85, -0.65), (3.85, 0.65)):
                m.box((x, y, 1.5), (0.1, 0.1, 1.1), "dark")
            m.axles(4.4, 2.8, track=1.6, radius=0.36)
            for x, load in ((0.2, "container"), (-3.2, "load")):
                m.box((x, 0, 0.55), (2.9, 1.6, 0.15), "chassis")
                m.box((x, 0, 1.35), (2.5, 1.6, 1.45), load)
                m.box((x + 1.7, 0, 0.45), (0.9, 0.12, 0.1), "dark")
                m.axles(x + 0.9, x - 0.9, track=1.5, radius=0.25)
        case "bus":
            m.extrude([(6.4, 0.4), (6.4, 1.2), (6.15, 2.95), (-6.4, 2.95), (-6.4, 0.4)], 1.45, BODY, "cab")
            panes = [(x, x + 1.575) for x in np.arange(7) * 1.75 - 5.9] if detail else [(-5.9, 5.9)]
            for x0, x1 in panes:
                m.stripe(x0, x1, 1.45, 1.3, 2.45, "glass")
            m.stripe(-6.3, 6.3, 1.45, 0.65, 1.0, "mark")
            m.box((-1, 0, 3.05), (3.0, 1.6, 0.25), "cab_roof")
            m.axles(4.0, -3.6, track=2.9, radius=0.48)
        case "van":
            profile = [(2.7, 0.45), (2.7, 1.05), (1.9, 1.25), (1.2, 2.2), (-2.6, 2.25), (-2.7, 0.45)]
            m.extrude(profile, 1.0, ("cab", *BODY), "cab")
            m.stripe(0.0, 1.35, 1.0, 1.3, 1.95, "glass")
            m.stripe(-2.6, 2.6, 1.0, 0.8, 1.02, "mark")
            m.beacon((0.6, 0, 2.33), (0.3, 1.2, 0.18))
            m.axles(1.75, -1.7, track=2.0, radius=0.36)
        case "fire":
            m.box((0, 0, 0.85), (9.6, 2.2, 0.4), "chassis")
            m.cab(5.0, 2.5, 2.8, 0.65, 3.3)
            m.box((-1.3, 0, 2.15), (7.2, 2.9, 2.3), "fire")
            m.stripe(-4.8, 2.2, 1.45, 1.35, 1.75, "reflect")
            m.tube((2.2, 0, 3.45), (4.0, 0, 3.75), 0.14, 0.1, "steel", 6, (None, "dark"))
            m.axles(3.7, -1.9, -3.6, track=2.8, radius=0.65)
        case "stairs":
            m.box((0, 0, 0.75), (7.4, 1.9, 0.3), "chassis")
            m.box((2.7, 0, 1.2), (1.8, 2.0, 1.1), "cab")
            ramp = [(-3.9, 0.9), (-3.9, 1.2), (2.4, 4.3), (3.9, 4.3), (3.9, 4.05), (2.5, 4.05)]
            m.extrude(ramp, 0.95, "steel", "load")
            for y in (-0.95, 0.95):
                m.sheet([(-3.9, y, 1.1), (2.4, y, 4.2), (2.4, y, 5.25), (-3.9, y, 2.15)], "load")
            m.box((3.15, 0, 2.6), (0.15, 1.5, 2.9), "steel")
            m.box((0.6, 0, 1.7), (0.15, 1.5, 1.7), "steel")
            m.axles(2.6, -2.3, track=2.0, radius=0.42)
        case "pushback":
            m.box((0, 0, 0.85), (6.2, 2.7, 0.9), "cab", "cab_roof")
            m.stripe(-3.0, 3.0, 1.35, 0.75, 1.0, "mark")
            profile = [(-0.2, 1.3), (-0.45, 2.25), (-2.1, 2.25), (-2.3, 1.3)]
            m.extrude(profile, 1.0, ("glass", "cab_roof", "glass", "cab"), "glass")
            m.beacon((-1.2, 0, 2.33), (0.25, 0.5, 0.18))
            m.axles(2.0, -2.0, track=2.7, radius=0.55)
        case "belt":
            m.box((-0.2, 0, 0.7), (5.8, 1.7, 0.55), "cab")
            m.box((-1.4, 0.45, 1.3), (1.0, 0.8, 0.75), "dark")
            m.extrude([(-3.4, 1.0), (-3.4, 1.2), (3.6, 2.75), (3.6, 2.5)], 0.45, ("dark",) * 3 + ("steel",), "load")
            m.box((2.0, 0, 1.6), (0.15, 0.7, 1.4), "steel")
            m.axles(1.9, -2.1, track=1.8, radius=0.4)
    return m.build()
