"""Models of ground workers and their clothes."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from small_object.scenes.mesh import Mesh, MeshBuilder, ellipse

POSES = {"stand": 0.03, "walk": 0.2, "stride": 0.34, "signal": 0.04, "carry": 0.12}  # metres that a foot is ahead
TORSO = (  # z, half depth, half width
    (0.84, 0.11, 0.165), (1.0, 0.115, 0.17), (1.06, 0.118, 0.172), (1.22, 0.13, 0.19), (1.28, 0.13, 0.195),
    (1.42, 0.12, 0.215), (1.5, 0.07, 0.12),
)  # fmt: skip
HEAD = ((1.49, 0.055, 0.05), (1.56, 0.085, 0.075), (1.65, 0.1, 0.082), (1.72, 0.09, 0.075), (1.78, 0.035, 0.03))
REFLECTIVE_BANDS = (1, 3)  # rings of the torso


def draw_clothes(rng: np.random.Generator) -> dict[str, str]:
    """Draw a worker's colours."""
    vest = ("#d9f022", "#d9f022", "#c6e81c", "#ff6a13", "#ff7a1c", "#f04a1a")[rng.integers(6)]
    trousers = ("#1f2a44", "#23262b", "#2c3440", vest, "#3a3a36")[rng.integers(5)]
    sleeve = (vest, vest, "#1f2a44", "#2d3138", "#d8d8d4")[rng.integers(5)]
    hat = ("#2a211b", "#3b2a1e", "#f0f0ee", "#e8b61a", "#1a1a1a", "#6d4a2f")[rng.integers(6)]
    skin = ("#d9a582", "#c98f6c", "#8d5a3c", "#5f3b28", "#e3b594")[rng.integers(5)]
    load = ("#8a6a43", "#2d3138", "#7a2630")[rng.integers(3)]
    return {"vest": vest, "trousers": trousers, "sleeve": sleeve, "hat": hat, "skin": skin, "load": load}


@lru_cache(maxsize=64)
def build_person(pose: str, detail: int) -> Mesh:
    """Build a ground worker, 1.78 m tall, in a pose of `POSES`; `detail` as in `build_aircraft`."""
    m, sides = MeshBuilder(), (4, 6, 10)[detail]
    for side in (-1, 1):
        step = POSES[pose] * side
        knee = (step * 0.55 + 0.04, side * 0.11, 0.49)
        m.tube((0, side * 0.1, 0.9), knee, 0.1, 0.075, "trousers", sides)
        m.tube(knee, (step - 0.02, side * 0.12, 0.08), 0.078, 0.058, "trousers", sides)
        m.box((step + 0.05, side * 0.12, 0.045), (0.28, 0.1, 0.09), "shoe")
        elbow, hand = (-step * 0.45, side * 0.05, -0.28), (-step * 0.7 + 0.08, side * 0.05, -0.54)
        if pose == "signal":
            elbow, hand = (0.06, side * 0.2, 0.1), (0.12, side * 0.25, 0.4)
        elif pose == "carry":
            elbow, hand = (0.05, side * 0.05, -0.28), (0.3, side * -0.02, -0.32)
        shoulder = np.array((0, side * 0.215, 1.42))
        joints = [shoulder, np.add(shoulder, elbow), np.add(shoulder, hand)]
        if pose == "signal":
            m.tube(joints[2], np.add(joints[2], (0.02, side * 0.05, 0.38)), 0.03, 0.03, "amber", 5)
        m.tube(joints[0], joints[1], 0.062, 0.05, "sleeve", sides)
        m.tube(joints[1], joints[2], 0.05, 0.035, "sleeve", sides)
        m.box(joints[2], (0.08, 0.07, 0.09), "skin")
    torso = [ellipse(2, z, (0, 0), (depth, width), sides) for z, depth, width in TORSO]
    m.loft(torso, lambda ring, _: "reflect" if ring in REFLECTIVE_BANDS else "vest", ("trousers", "vest"))
    head = [ellipse(2, z, (0.015, 0), (depth, width), sides) for z, depth, width in HEAD]
    m.loft(head, lambda ring, _: "hat" if ring >= 2 else "skin", (None, "hat"))
    if pose == "carry":
        m.box((0.42, 0, 1.08), (0.3, 0.42, 0.3), "load")
    return m.build()
