"""Unlabelled objects: buildings, jet bridges and small equipment."""

from __future__ import annotations

import math

import numpy as np

from small_object.scenes.aircraft import AIRFRAMES
from small_object.scenes.buildings import build_building, build_equipment, build_jet_bridge
from small_object.scenes.mesh import Mesh
from small_object.scenes.scene import Footprint, Scene, SceneObject


def add_scenery(
    scene: Scene, kind: str, mesh: Mesh, colours: dict[str, str], x: float, y: float, heading: float, max_hidden: float
) -> bool:
    """Add an unlabelled object where it stands free and hides little of the objects; return whether it was added."""
    obj = SceneObject(-1, "scenery", kind, mesh, colours, x, y, heading, margin=0.3)
    if not scene.camera.panorama and obj.vertices()[:, 1].min() < 4:
        return False
    return scene.add(obj, max_hidden)


def add_building(
    scene: Scene, kind: str, size: tuple[float, float, float], near: bool, colours: dict[str, str], x: float, y: float,
    heading: float,
) -> bool:  # fmt: skip
    """Add a building by its (length, depth, height), see `build_building`; return whether it was added."""
    return add_scenery(scene, kind, build_building(kind, *size, near), colours, x, y, heading, 0.12)


def add_equipment(scene: Scene, kind: str, x: float, y: float, heading: float, max_hidden: float) -> None:
    """Add a cone, pole, container or barrier, see `build_equipment`."""
    add_scenery(scene, kind, build_equipment(kind), {}, x, y, heading, max_hidden)


def add_jet_bridge(scene: Scene, plane: SceneObject, gap: float, colours: dict[str, str]) -> None:
    """Add a jet bridge from a facade, `gap` metres before the nose, to the left front door of a large aircraft."""
    frame, nose = AIRFRAMES[plane.kind], plane.half[0]
    if frame.axis <= 3:
        return
    door = np.array([nose - 1.6 * frame.diameter, frame.diameter / 2 + 1.2])
    start = np.array([nose + gap + 1.0, door[1] + 11.0])
    dx, dy = door - start
    mesh = build_jet_bridge(round(float(np.hypot(dx, dy)), 1), round(frame.axis - 0.35 * frame.diameter, 1))
    heading = plane.heading + math.atan2(dy, dx)
    bridge = SceneObject(-1, "scenery", "bridge", mesh, colours, *plane.world(*start), heading)
    bridge.box, bridge.distance = scene.project(bridge)
    if bridge.box[2] <= bridge.box[0]:
        return
    footprint = Footprint([bridge.corners(0.2)])
    for other in scene.objects:
        if other.label < 0 or other is plane:
            continue
        shared = np.minimum(bridge.box[2:], other.box[2:]) - np.maximum(bridge.box[:2], other.box[:2])
        hides = (shared > 0).all() and other.distance > bridge.distance
        if hides and shared.prod() > 0.15 * (other.box[2:] - other.box[:2]).prod():
            return
        if footprint.overlaps(other.footprint()):
            return
    scene.objects.append(bridge)


def add_cones_and_containers(scene: Scene, planes: list[SceneObject], rng: np.random.Generator) -> None:
    """Add cones at the planes' extremities and containers alongside them."""
    for plane in planes:
        a, b = plane.half
        for dx, dy in ((-0.3 * a, b + 1.5), (-0.3 * a, -b - 1.5), (a + 2, 0.8), (-a - 2, 0.0)):
            if rng.random() < 0.7:
                add_equipment(scene, "cone", *plane.world(dx, dy), 0, 0.06)
        c, s = math.cos(plane.heading), math.sin(plane.heading)
        for _ in range(rng.integers(0, 4)):
            x, y = plane.world(rng.uniform(-0.2, 0.9) * a, rng.choice((-1, 1)) * rng.uniform(0.35, 1.0) * b)
            for i in range(rng.integers(1, 4)):
                heading = plane.heading + math.pi / 2
                add_equipment(scene, "container", x + 2.8 * i * c, y + 2.8 * i * s, heading, 0.1)
