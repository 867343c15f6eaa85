"""Models of airliners, trucks, ground workers, terminals and hangars, and their colours."""

import math
from dataclasses import dataclass
from functools import lru_cache

import numpy as np

from small_object.scenes.solids import Model, ModelBuilder, ring

Section = tuple[tuple[float, float, float], float]  # of a wing: its leading edge and its chord


@dataclass(frozen=True)
class Airframe:
    """An airliner's sizes in metres."""

    length: float
    diameter: float  # of the fuselage
    span: float
    axis: float  # height of the fuselage's axis
    engine: float  # diameter
    rear_engines: bool = False  # at the tail, below a high tailplane, instead of under the wings


AIRFRAMES = {
    "narrow": Airframe(38.0, 4.0, 35.0, 3.7, 2.2),
    "wide": Airframe(60.0, 5.8, 58.0, 5.3, 3.3),
    "regional": Airframe(32.5, 2.9, 25.0, 2.5, 1.6, True),
}
# Distance from the tip of the nose or the tail's start / diameter, radius / (diameter / 2), height / diameter
NOSE = ((0.0, 0.12, -0.13), (0.15, 0.42, -0.11), (0.5, 0.74, -0.07), (0.95, 0.93, -0.02), (1.5, 1.0, 0.0))
TAIL = ((0.0, 1.0, 0.0), (1.2, 0.84, 0.07), (2.3, 0.5, 0.2), (3.1, 0.14, 0.33))
ENGINE = ((0.0, 0.43), (0.08, 0.5), (0.45, 0.5), (1.0, 0.27))  # distance from the inlet / length, radius / diameter
LIVERIES = {
    "body": ("#f6f6f6", "#f6f6f6", "#f6f6f6", "#f6f6f6", "#f7d417", "#9fc8e8"),
    "belly": ("#f0f1f2", "#b9bdc2", "#9aa2ab"),
    "stripe": ("#f6f6f6", "#f6f6f6", "#1c3f94", "#c8102e"),
    "fin": ("#0b3c8c", "#c8102e", "#f58220", "#2a6db0", "#00843d", "#16345f"),
    "engine": ("#f0f1f2", "#d8dcdf", "#1c3f94"),
}
PIER_LENGTH, PIER_DEPTH = 36.0, 40.0  # metres, of a piece of terminal
WALLS = ("#c9ccd0", "#b7bcc2", "#d3cdc0", "#a9b4bd")
TRUCKS = ("box", "box", "tanker", "van")  # as frequent as listed
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
def build_aircraft(kind: str) -> Model:
    """Build an aircraft of a kind in `AIRFRAMES`."""
    frame, model = AIRFRAMES[kind], ModelBuilder()
    length, d, axis, half_span = frame.length, frame.diameter, frame.axis, frame.span / 2
    _add_fuselage(model, frame)
    root, tip = 0.17 * length, 0.05 * length
    lead = (-0.06 if frame.rear_engines else 0.14) * length
    sweep = 0.48 * half_span
    for side in (-1, 1):
        root_at = (lead, side * 0.42 * d, axis - 0.3 * d)
        tip_at = (lead - sweep, side * half_span, axis - 0.3 * d + 0.1 * half_span)
        _add_surface(model, (root_at, root), (tip_at, tip), 0.13, "wing")
    # The fin and the tailplane
    tail, chord = -length / 2, 0.16 * length
    fin_root, fin_tip = (tail + chord * 1.3, 0, axis + 0.36 * d), (tail + chord * 0.35, 0, axis + 1.9 * d)
    _add_surface(model, (fin_root, chord * 1.15), (fin_tip, chord * 0.45), 0.1, "fin")
    lead_x, z = (fin_tip[0] + 0.1 * chord, fin_tip[2]) if frame.rear_engines else (tail + chord, axis + 0.25 * d)
    for side in (-1, 1):
        stabilizer = (lead_x - 0.11 * frame.span, side * 0.18 * frame.span, z + 0.02 * frame.span)
        _add_surface(model, ((lead_x, side * 0.1 * d, z), 0.65 * chord), (stabilizer, 0.3 * chord), 0.1, "wing")
        _add_engine(model, frame, side, lead - 0.33 * sweep)
    wheel = 0.13 * d
    for x, y in ((length / 2 - 1.3 * d, 0.0), (-0.03 * length, 0.75 * d), (-0.03 * length, -0.75 * d)):
        model.box((x, y, 0.5 * axis), (0.3, 0.3, axis - 0.8 * d), "metal")
        model.loft([ring(1, y + side, (x, wheel), (wheel, wheel), 8) for side in (-wheel, wheel)], "tyre")
    return model.build()


def _add_fuselage(model: ModelBuilder, frame: Airframe) -> None:
    """Add the hull with its livery and windows."""
    length, d, axis, sides = frame.length, frame.diameter, frame.axis, 20
    stations = [(length / 2 - s * d, r, z) for s, r, z in NOSE]
    stations += [(-length / 2 + (TAIL[-1][0] - s) * d, r, z) for s, r, z in TAIL]

    def skin(station: int, side: int) -> str:
        up = math.sin((side + 1) * 2 * np.pi / sides)
        if station in (1, 2) and 0.4 < up < 0.98:
            return "cockpit"
        if up < -0.5:
            return "belly"
        return "stripe" if up < -0.1 else "body"

    hull = [ring(0, x, (0, axis + z * d), (r * d / 2, r * d / 2), sides) for x, r, z in stations]
    model.loft(hull, skin)

    first, last = stations[len(NOSE)][0], stations[len(NOSE) - 1][0]
    for x in np.arange(first + 0.3 * d, last - 0.4 * d, 1.2):
        corners = ((x, 0.16), (x + 0.55, 0.16), (x + 0.55, 0.16 + 0.9 / d), (x, 0.16 + 0.9 / d))  # x and angle
        for r in (-d / 2, d / 2):
            model.paint([(u, r * math.cos(a), axis + abs(r) * math.sin(a)) for u, a in corners], "window")


def _add_surface(model: ModelBuilder, root: Section, tip: Section, thickness: float, material: str) -> None:
    """Add a wing or a fin between two sections."""
    (_, root_y, root_z), (_, tip_y, tip_z) = root[0], tip[0]
    upright = abs(tip_z - root_z) > abs(tip_y - root_y)
    rings = []
    for (x, y, z), chord in (root, tip):
        across = np.array([0, 1, 0] if upright else [0, 0, 1]) * chord * thickness / 2
        section = [(0.0, 0), (0.3, 1), (0.7, 0.7), (1.0, 0), (0.7, -0.7), (0.3, -1)]
        rings.append([across * t + (x - s * chord, y, z) for s, t in section])
    model.loft(rings, material)


def _add_engine(model: ModelBuilder, frame: Airframe, side: int, wing_lead: float) -> None:
    """Add one engine; `wing_lead` is the x of the wing's leading edge above it."""
    d, size = frame.diameter, frame.engine
    if frame.rear_engines:
        x, y, z, long = -0.5 * frame.length + 4.4 * d, d / 2 + 0.62 * size, frame.axis + 0.25 * d, 2.6 * size
    else:
        x, y, long = wing_lead + 1.0 * size, 0.33 * frame.span / 2, 1.9 * size
        z = max(frame.axis - 0.3 * d + 0.1 * y - 0.68 * size, 0.5 * size + 0.4)
    rings = [ring(0, x - s * long, (side * y, z), (r * size, r * size), 14) for s, r in ENGINE]
    model.loft(rings, lambda station, _: ("metal", "engine", "engine")[station], ("fan", "fan"))


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
