"""Models of trucks, ground workers, terminals and hangars, and their colours."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from small_object.scenes.solids import Model, ModelBuilder, ring

PIER_LENGTH, PIER_DEPTH = 36.0, 40.0  # metres, of a piece of terminal
WALLS = ("#c9ccd0", "#b7bcc2", "#d3cdc0", "#a9b4bd")
TRUCKS = ("box", "box", "tanker", "van")  # as frequent as they are named
TRUCK_COLOURS = {
    "cab": ("#f0f0ec", "#f2c417", "#e9a313", "#1f5fae", "#d7372b", "#2c8a4b"),
    "load": ("#f5f5f2", "#f5f5f2", "#dfe2e4", "#f2c417", "#4877a8"),
    "mark": ("#1f5fae", "#d7372b", "#f07f1a", "#2c8a4b"),
}
STRIDES = {"stand": 0.04, "walk": 0.2, "stride": 0.32}  # metres that a foot is ahead
CLOTHES = {
    "vest": ("#d9f022", "#ff6a13"),
    "trousers": ("#1f2a44", "#23262b", "#3a3a36"),
    "helmet": ("#f4f4f0", "#f2c417", "#d7372b"),
    "skin": ("#d9a582", "#c98f6c", "#8d5a3c"),
}
TORSO = (  # z, half depth, half width
    (0.84, 0.12, 0.17), (1.02, 0.13, 0.18), (1.1, 0.14, 0.19), (1.28, 0.14, 0.21), (1.36, 0.14, 0.22), (1.5, 0.08, 0.14)
)  # fmt: skip
HEAD = ((1.5, 0.06, 0.055), (1.58, 0.1, 0.085), (1.68, 0.11, 0.09), (1.7, 0.13, 0.11), (1.8, 0.05, 0.045))


@lru_cache
def build_truck(kind: str) -> Model:
    """Build a truck of a kind in `TRUCKS`."""
    model = ModelBuilder()
    if kind == "van":
        profile = [(2.7, 0.5), (2.7, 1.15), (1.5, 2.3), (-2.7, 2.3), (-2.7, 0.5)]
        model.extrude(profile, 1.0, ("cab", "glass", "cab", "cab", "dark"), "cab")
        model.panel((0.2, 1.4), (1.35, 2.05), 1.0, "glass")
        model.panel((-2.5, 2.2), (0.8, 1.05), 1.0, "mark")
        model.wheels((1.7, -1.7), 1.05, 0.38)
        return model.build()
    # Front of the cab, and the load's front, rear, bottom and top
    front, a, b, low, high = (5.0, 2.6, -5.0, 1.1, 3.2) if kind == "tanker" else (4.0, 1.8, -4.0, 1.05, 3.6)
    model.box(((front + b) / 2 - 0.2, 0, 0.75), (front - b - 0.4, 2.1, 0.5), "dark")
    _add_cab(model, front)
    z = (low + high) / 2
    if kind == "tanker":
        ends = ((a, 0.8), (a - 0.3, 1.0), (b + 0.3, 1.0), (b, 0.8))
        tank = [ring(0, x, (0, z), (s * 1.2, s * 1.05), 14) for x, s in ends]
        model.loft(tank, lambda _, side: "mark" if side in (6, 13) else "load", ("load", "load"))
    else:
        model.box(((a + b) / 2, 0, z), (a - b, 2.5, high - low), "load")
        model.panel((b + 0.3, a - 0.3), (z - 0.35, z + 0.35), 1.25, "mark")
    model.wheels((front - 1.0, b + 2.3, b + 1.1), 1.25, 0.52)
    return model.build()


def _add_cab(model: ModelBuilder, front: float) -> None:
    """Add a cab with a sloped windscreen; `front` is the x of its bumper."""
    rear = front - 1.9
    profile = [(front, 0.55), (front, 1.55), (front - 0.4, 2.75), (rear, 2.75), (rear, 0.55)]
    model.extrude(profile, 1.2, ("cab", "glass", "cab", "cab", "dark"), "cab")
    model.panel((front - 1.55, front - 0.45), (1.6, 2.45), 1.2, "glass")
    model.box((front - 1.2, 0, 2.83), (0.3, 1.4, 0.16), "amber")


@lru_cache
def build_person(pose: str) -> Model:
    """Build a ground worker, 1.8 m tall, in a pose of `STRIDES`."""
    model = ModelBuilder()
    torso = [ring(2, z, (0, 0), (depth, width), 8) for z, depth, width in TORSO]
    model.loft(torso, lambda station, _: "reflect" if station in (1, 3) else "vest", ("trousers", "vest"))
    head = [ring(2, z, (0.01, 0), (depth, width), 8) for z, depth, width in HEAD]
    model.loft(head, lambda station, _: "helmet" if station >= 2 else "skin")
    for side in (-1, 1):
        step = STRIDES[pose] * side
        leg = ((0.9, 0.0, 0.1), (0.5, step * 0.55, 0.075), (0.0, step, 0.065))
        model.loft([ring(2, z, (x, side * 0.1), (r, r), 6) for z, x, r in leg], "trousers")
        model.box((step + 0.06, side * 0.1, 0.05), (0.28, 0.12, 0.1), "tyre")
        arm = ((1.44, 0.0, 0.07), (1.1, -step * 0.5, 0.055), (0.82, -step * 0.6 + 0.06, 0.045))
        model.loft([ring(2, z, (x, side * 0.26), (r, r), 6) for z, x, r in arm], "vest", ("skin", "vest"))
    return model.build()


@lru_cache
def build_building(kind: str) -> Model:
    """Build a "terminal" (one piece of a long one) or a "hangar"; its front looks along +x."""
    model = ModelBuilder()
    depth, width, height, bands, step, material = {
        "terminal": (PIER_DEPTH, PIER_LENGTH, 13.0, ((4.0, 7.0), (9.0, 11.5)), 4.5, "window"),
        "hangar": (50.0, 60.0, 18.0, ((0.0, 14.5),), 12.0, "gate"),
    }[kind]
    model.box((0, 0, height / 2), (depth, width, height), "wall", "roof")
    for (low, high), a, x in ((b, a, x) for b in bands for a in np.arange(0, width, step) for x in (-depth, depth)):
        b, a = a + step - 0.3 - width / 2, a + 0.3 - width / 2
        model.paint([(x / 2, a, low), (x / 2, b, low), (x / 2, b, high), (x / 2, a, high)], material)
    return model.build()
