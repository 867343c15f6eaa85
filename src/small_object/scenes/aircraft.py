"""Models of aircraft and their liveries."""

from __future__ import annotations

import math
from dataclasses import dataclass
from functools import lru_cache
from itertools import pairwise

import numpy as np
from numpy.typing import ArrayLike

from small_object.scenes.mesh import Mesh, MeshBuilder, ellipse


@dataclass(frozen=True)
class Layout:
    """What depends on where the engines are; `d` is the fuselage's diameter."""

    engines: tuple[float, ...]  # positions on each side, shares of the half span
    mount: str = "wing"  # "wing", "fuselage" or "propeller"
    tail: float = 3.2  # length of the tail cone / d
    wing_height: float = -0.3  # above the fuselage's axis / d
    wing_lead: float = 0.31  # of the leading edge at the root behind the nose / length
    kink: float = 0.58  # chord at the kink / chord at the root
    taper: float = 0.22  # chord at the tip / chord at the root
    dihedral: float = 0.095
    sharklets: bool = True
    t_tail: bool = False
    fin: tuple[float, float, float, float] = (1.42, 0.16, 0.36, 0.72)  # height / d, chord / length, taper, sweep
    tailplane: tuple[float, float, float, float] = (0.17, 0.68, 0.62, 0.1)  # half span / span, chord, sweep, dihedral
    gear: tuple[float, float] = (0.0, 0.9)  # main wheels' x / length and y / d


@dataclass(frozen=True)
class Airframe:
    """An aircraft's sizes in metres."""

    length: float
    diameter: float  # of the fuselage
    span: float
    axis: float  # height of the fuselage's axis
    layout: Layout
    sweep: float = 27.0  # degrees
    chord: float = 0.19  # at the wing's root / length
    engine: float = 2.2  # diameter


TWIN = Layout((0.33,))
FOUR_ENGINES = Layout((0.3, 0.58), sharklets=False)
REAR_ENGINES = Layout(
    (0.0,), "fuselage", wing_lead=0.44, t_tail=True, fin=(1.35, 0.15, 0.55, 0.72), tailplane=(0.15, 0.55, 0.62, 0.0),
    gear=(-0.06, 0.9),
)  # fmt: skip
PROPELLERS = Layout(
    (0.31,), "propeller", tail=2.9, wing_height=0.48, wing_lead=0.4, kink=0.9, taper=0.6, dihedral=0.015,
    sharklets=False, t_tail=True, fin=(1.35, 0.15, 0.55, 0.45), tailplane=(0.15, 0.55, 0.2, 0.0), gear=(0.0, 0.7),
)  # fmt: skip
AIRFRAMES = {
    "narrow": Airframe(38.0, 4.0, 35.0, 3.7, TWIN),
    "narrow_long": Airframe(44.5, 4.0, 35.8, 3.8, TWIN, chord=0.165),
    "wide": Airframe(62.0, 5.7, 60.5, 5.3, TWIN, 30.0, 0.18, 3.3),
    "heavy": Airframe(70.5, 6.4, 64.5, 5.8, FOUR_ENGINES, 34.0, 0.19, 2.8),
    "regional": Airframe(32.5, 2.8, 24.5, 2.5, REAR_ENGINES, 25.0, 0.15, 1.45),
    "turboprop": Airframe(27.2, 2.9, 27.0, 2.3, PROPELLERS, 3.0, 0.1, 1.2),
    "business": Airframe(20.5, 2.1, 19.5, 1.9, REAR_ENGINES, 28.0, 0.17, 1.1),
}
AIRCRAFT = {  # how frequent each is
    "narrow": 3, "narrow_long": 1, "wide": 1, "heavy": 1, "regional": 2, "turboprop": 1, "business": 1,
}  # fmt: skip
# Distance from the tip / d or / length of the tail cone, radius / (d / 2), and for the nose its droop / d
NOSE = (
    (0.0, 0.04, 0.16), (0.07, 0.25, 0.15), (0.22, 0.46, 0.12), (0.42, 0.64, 0.09), (0.62, 0.79, 0.055),
    (0.85, 0.89, 0.03), (1.2, 0.965, 0.01), (1.6, 1.0, 0.0),
)  # fmt: skip
TAIL_CONE = ((0.0, 1.0), (0.2, 0.955), (0.42, 0.82), (0.65, 0.6), (0.86, 0.35), (1.0, 0.14))
# Distance from the inlet / length of the engine, radius / its diameter
ENGINES = {
    "fuselage": ((0, 0.42), (0.06, 0.5), (0.5, 0.5), (1.0, 0.33)),
    "propeller": ((0, 0.18), (0.12, 0.42), (0.45, 0.5), (1.0, 0.2)),
    "wing": ((0, 0.43), (0.05, 0.49), (0.25, 0.52), (0.62, 0.48), (0.8, 0.36), (1.0, 0.22)),
}
# Body, belly, cheat line, fin, rear fuselage, engines
# fmt: off
LIVERIES = (
    "#f1f2f3 #f1f2f3 #f1f2f3 #0b3c8c #f1f2f3 #f1f2f3", "#f4f4f2 #b9bdc2 #f4f4f2 #c8102e #f4f4f2 #c8102e",
    "#eef0f2 #9aa2ab #1c3f94 #1c3f94 #1c3f94 #d8dcdf", "#f6f6f6 #f6f6f6 #f6f6f6 #f58220 #f58220 #f58220",
    "#ffffff #2a6db0 #2a6db0 #2a6db0 #ffffff #ffffff", "#e9ebee #c4c8cd #00843d #00843d #e9ebee #e9ebee",
    "#f2efe6 #d9d4c5 #f2efe6 #7a1f3d #7a1f3d #f2efe6", "#f7d417 #f7d417 #f7d417 #c8102e #f7d417 #f7d417",
    "#d6dbe0 #9aa2ab #c8102e #1f2a44 #d6dbe0 #1f2a44", "#ffffff #ffffff #ffffff #06174e #06174e #ffffff",
    "#f4f5f6 #f4f5f6 #5c2d91 #5c2d91 #5c2d91 #5c2d91", "#e8edf2 #e8edf2 #e8edf2 #00a3b4 #00a3b4 #00a3b4",
    "#5b3a1e #5b3a1e #5b3a1e #f2b705 #5b3a1e #f0f0f0", "#2f6f4f #f0f0ee #2f6f4f #2f6f4f #2f6f4f #f0f0ee",
    "#f5f5f5 #d0d3d8 #d9252b #d9252b #f5f5f5 #f5f5f5", "#9fc8e8 #f0f2f4 #f0f2f4 #16345f #9fc8e8 #f0f2f4",
)
# fmt: on


def draw_livery(rng: np.random.Generator) -> dict[str, str]:
    """Draw an airline's colours."""
    body, belly, cheat, fin, rear, engine = LIVERIES[rng.integers(len(LIVERIES))].split()
    return {"body": body, "belly": belly, "cheat": cheat, "fin": fin, "fin_edge": fin, "rear": rear, "engine": engine}


@lru_cache(maxsize=64)
def build_aircraft(kind: str, detail: int) -> Mesh:
    """Build an aircraft of a kind in `AIRFRAMES`; `detail` is 0 (a few pixels wide), 1 (tens) or 2 (hundreds)."""
    frame, mesh = AIRFRAMES[kind], MeshBuilder()
    _add_fuselage(mesh, frame, detail)
    for side in (-1, 1):
        _add_wing(mesh, frame, side, detail)
    _add_tail(mesh, frame)
    _add_gear(mesh, frame, detail)
    return mesh.build()


def _aerofoil(lead: ArrayLike, chord: float, thickness: float, up: ArrayLike) -> np.ndarray:
    """Return a wing section (6, 3) from its leading edge backward; `up` is the direction of its thickness."""
    along = np.array([0, 0.22, 0.7, 1.0, 0.7, 0.22], np.float32)
    over = np.array([0, 0.5, 0.3, 0, -0.25, -0.4], np.float32) * thickness
    return np.asarray(lead, np.float32) - np.outer(along * chord, (1, 0, 0)) + np.outer(over, np.asarray(up))


def _add_fuselage(mesh: MeshBuilder, frame: Airframe, detail: int) -> None:
    """Add the hull with its windows and doors."""
    length, d, z0 = frame.length, frame.diameter, frame.axis
    sides, tail = (8, 16, 28)[detail], frame.layout.tail * d
    nose = NOSE if detail else (*NOSE[::2], NOSE[-1])
    rings = [(length / 2 - s * d, r, -droop * d) for s, r, droop in nose]
    rings += [(-length / 2 + tail * (1 - t), r, 0.43 * d * (1 - r)) for t, r in TAIL_CONE]
    first_glass, last_glass = (3, 4) if detail else (1, 1)

    def skin(ring: int, side: int) -> str:
        up = math.sin((side + 1) * 2 * np.pi / sides)
        if first_glass <= ring <= last_glass and 0.3 < up < 0.93:
            return "cockpit"
        if detail and ring > len(nose):
            return "rear"
        if up < -0.42:
            return "belly"
        return "cheat" if up < -0.1 else "body"

    hull = [ellipse(0, x, (0, z0 + dz), (r * d / 2, r * d / 2), sides) for x, r, dz in rings]
    mesh.loft(hull, skin, ("body", "metal"))
    # Openings: x from and to, angle from and to, material
    first, last = length / 2 - 2.1 * d, -length / 2 + tail * 0.95
    openings: list[tuple[float, float, float, float, str]] = []
    if detail == 1:
        strips = pairwise(np.linspace(last, first, 5))
        openings = [(x0, x1, 0.2, 0.2 + 0.42 / d * 2, "window_strip") for x0, x1 in strips]
    elif detail == 2:
        step = 1.05 if d > 2.5 else 1.5
        windows = np.arange(last, first, step)
        openings = [(x, x + 0.5 * step, 0.2, 0.2 + 0.48 / d * 2, "window") for x in windows]
        doors = (length / 2 - 1.75 * d, -length / 2 + tail * 0.88)
        openings += [(x, x + 0.9, -0.22, 0.62, "door") for x in doors]
    r = d / 2 * 1.006
    for side in (-1, 1):
        quads = [
            [(x, side * r * math.cos(f), z0 + r * math.sin(f)) for x, f in ((x0, a), (x1, a), (x1, b), (x0, b))]
            for x0, x1, a, b, _ in openings
        ]
        mesh.quads(quads, [o[4] for o in openings], (0, 0, z0))


def _add_wing(mesh: MeshBuilder, frame: Airframe, side: int, detail: int) -> None:
    """Add one wing and the engines on its side."""
    layout, d = frame.layout, frame.diameter
    semi, root, tangent = frame.span / 2, frame.chord * frame.length, math.tan(math.radians(frame.sweep))
    lead, height = frame.length * (0.5 - layout.wing_lead), frame.axis + d * layout.wing_height
    kink_chord, tip_chord = root * layout.kink, root * layout.taper

    def position(share: float) -> tuple[float, float, float]:
        """Return the wing's leading edge at a share of the half span."""
        y = share * semi
        return lead - y * tangent, side * y, height + y * layout.dihedral

    sections = (
        (0.02, root * 1.12, root * 0.14),
        (0.36, kink_chord, kink_chord * 0.12),
        (1.0, tip_chord, tip_chord * 0.11),
    )
    rings = [_aerofoil(position(share), chord, thickness, (0, 0, 1)) for share, chord, thickness in sections]
    mesh.loft(rings, lambda _, j: "wing_edge" if j in (0, 5) else "wing", (None, "wing"))
    if layout.sharklets:
        tip, rise = np.array(position(1.0)), 0.065 * semi
        top = np.add(tip, (-0.6 * rise - tip_chord * 0.4, side * 0.35 * rise, rise))
        rings = [_aerofoil(tip, tip_chord, 0.12, (0, 1, 0)), _aerofoil(top, tip_chord * 0.45, 0.08, (0, 1, 0))]
        mesh.loft(rings, "fin", (None, "fin"))
    for share in layout.engines:
        _add_engine(mesh, frame, side, position(share), root * 0.5, detail)


def _add_engine(
    mesh: MeshBuilder, frame: Airframe, side: int, wing: tuple[float, float, float], chord: float, detail: int
) -> None:
    """Add an engine; `wing` is the leading edge of the wing above it."""
    d, diameter, (x, y, z) = frame.diameter, frame.engine, wing
    mount = frame.layout.mount
    if mount == "fuselage":
        size = diameter * 2.7
        x = -frame.length / 2 + frame.layout.tail * d * 1.25
        y, z = side * (d * 0.5 + diameter * 0.55), frame.axis + d * 0.22
        mesh.box((x - size * 0.5, side * (d * 0.5), z), (size * 0.6, diameter * 0.8, diameter * 0.16), "body")
    elif mount == "propeller":
        size, x, z = 5.2, x + 2.2, frame.axis + d * frame.layout.wing_height - 0.15
        for angle in np.arange(6) * np.pi / 3 if detail else ():
            c, s = math.cos(angle), math.sin(angle)
            blade = ((0, 0.1), (1.95, 0.16), (1.95, -0.16), (0, -0.1))
            mesh.sheet([(x + 0.05, y + r * c + w * s, z + r * s - w * c) for r, w in blade], "prop")
    else:
        size, wing_z = diameter * 1.75, z
        x, z = x + size * 0.62, max(wing_z - diameter * 0.72, diameter / 2 + 0.45)
        pylon = [
            (x - size * 0.25, z + diameter * 0.45), (x - size * 0.2, z + diameter * 0.55),
            (x - size * 0.62 - chord * 0.4, wing_z + 0.1), (x - size * 0.8, z + diameter * 0.2),
        ]  # fmt: skip
        mesh.loft([[(px, py, pz) for px, pz in pylon] for py in (y - 0.2, y + 0.2)], "wing", ("wing", "wing"))
    radii = [(x - s * size, q * diameter) for s, q in ENGINES[mount]]
    rings = [ellipse(0, at, (y, z), (r, r), (6, 10, 16)[detail]) for at, r in radii]
    mesh.loft(rings, lambda i, _: "metal" if i == 0 or i >= 4 else "engine", ("fan", "fan"))
    if detail == 2 and mount != "propeller":
        middle = rings[0].mean(0)
        hub = middle + (rings[0] - middle) * 0.3 + (0.03, 0, 0)
        mesh.polygon(hub, "metal", rings[1].mean(0), decal=True)


def _add_tail(mesh: MeshBuilder, frame: Airframe) -> None:
    """Add the fin and the tailplane."""
    length, d, layout = frame.length, frame.diameter, frame.layout
    height, root, taper, slope = layout.fin
    height, root, base = height * d, length * root, frame.axis + 0.36 * d
    x = -length / 2 + root * 1.18
    sections = (  # leading edge's x and z, chord, thickness
        (x + root * 0.25, base, root * 1.15, d * 0.1),
        (x - height * 0.12 * slope, base + height * 0.2, root * 0.9, d * 0.1),
        (x - height * 1.05 * slope, base + height, root * taper, d * 0.06),
    )
    fin = [_aerofoil((lead, 0, z), chord, thickness, (0, 1, 0)) for lead, z, chord, thickness in sections]
    mesh.loft(fin, lambda _, j: "fin_edge" if j in (2, 3) else "fin", (None, "fin"))
    span, chord, sweep, dihedral = layout.tailplane
    span, chord = frame.span * span, root * chord
    lead, z = -length / 2 + root * 0.98, frame.axis + 0.26 * d
    if layout.t_tail:
        lead, z = x - height * slope * 0.98, base + height * 0.97
    for side in (-1, 1):
        tip = (lead - span * sweep, side * span, z + span * dihedral)
        rings = [_aerofoil((lead, 0, z), chord, chord * 0.1, (0, 0, 1)), _aerofoil(tip, chord * 0.42, 0.1, (0, 0, 1))]
        mesh.loft(rings, "wing", (None, "wing"))


def _add_gear(mesh: MeshBuilder, frame: Airframe, detail: int) -> None:
    """Add the undercarriage."""
    length, d = frame.length, frame.diameter
    wheel, x, y = 0.14 * d + 0.05, frame.layout.gear[0] * length - 0.02 * length, frame.layout.gear[1] * d
    for leg_x, leg_y in ((length / 2 - 1.25 * d, 0.0), (x, y), (x, -y)):
        mesh.tube((leg_x, leg_y, wheel), (leg_x, leg_y, frame.axis - 0.25 * d), 0.12, 0.16, "strut", (4, 4, 6)[detail])
        for dy in (-0.4, 0.4) if detail else (0.0,):
            for dx in (-0.8, 0.8) if d > 5 and leg_y else (0.0,):
                mesh.wheel(leg_x + dx, leg_y + dy, wheel if leg_y else wheel * 0.75, 0.4, (5, 6, 10)[detail])
