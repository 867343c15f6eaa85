"""Lays out a panorama: rows of stands before a terminal, service traffic, depots and taxiing planes."""

from __future__ import annotations

import math

import numpy as np

from small_object.scenes.aircraft import AIRFRAMES
from small_object.scenes.buildings import draw_facade_colours
from small_object.scenes.camera import Camera
from small_object.scenes.light import draw_light
from small_object.scenes.scene import Scene, SceneObject, Stand, Strip, draw_object
from small_object.scenes.scenery import add_building, add_cones_and_containers, add_equipment, add_jet_bridge

PIER_DEPTH = 40.0  # metres
NOSE_GAP = 11.0  # metres between a parked plane and the pier


def panorama_scene(width: int, height: int, counts: dict[str, int], rng: np.random.Generator) -> Scene:
    """Lay out a panorama.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        counts: Number of objects of each class; some are left out where there is no room.
        rng: Source of the random numbers.
    """
    focal = width / math.radians(rng.uniform(140, 172))
    camera = Camera(width, height, focal, rng.uniform(32, 58), rng.uniform(0.27, 0.38) * height, True)
    light, turn = draw_light(rng), math.radians(rng.uniform(-7, 7))
    scene = Scene(camera, light, turn, rng.uniform(430, 520), rng.uniform(620, 900))
    spacing, shift = rng.uniform(52, 60), rng.uniform(-25, 25)
    facade = rng.uniform(215, 265)  # v of the pier's near side
    for kind, low, high in (("taxiway", 50, 90), ("runway", 200, 320)):
        v = scene.apron + rng.uniform(low, high)
        scene.strips.append(Strip(v, v + 45, kind))
    scene.lanes = [facade - 130, facade + 175]
    colours = draw_facade_colours(rng)
    _add_buildings(scene, facade, colours, rng)
    num_left = counts["airplane"] - _park_planes(scene, counts["airplane"], facade, spacing, shift, colours, rng)
    lines = scene.lanes + [(s.low + s.high) / 2 for s in scene.strips]
    for _ in range(600):  # taxiing planes
        if num_left <= 0:
            break
        plane = draw_object("airplane", 0, rng)
        v = lines[rng.integers(len(lines))]
        plane.x, plane.y = scene.world(rng.uniform(-1.1, 1.1) * (scene.side + v), v)
        plane.heading = scene.turn + (0 if rng.random() < 0.5 else math.pi) + rng.normal(0, 0.015)
        num_left -= _add_object(scene, plane)
    planes = [t for t in scene.objects if t.category == "airplane"]
    _add_trucks(scene, planes, counts["truck"], facade, rng)
    near = [p for p in planes if math.hypot(p.x, p.y) < 330]
    add_cones_and_containers(scene, near[:8], rng)
    for u in np.arange(-scene.side, scene.side, 110):
        add_equipment(scene, "pole", *scene.world(u + 20, facade - 6), scene.turn, 0.05)
    return scene


def _add_object(scene: Scene, obj: SceneObject) -> bool:
    """Add an object if it is in view, large enough and free."""
    box, distance = scene.project(obj)
    width, height = box[2:] - box[:2]
    inside = box[0] > 2 and box[2] < scene.camera.width - 2 and box[3] < scene.camera.height - 2
    if obj.y < 5 or not inside or not 25 < distance < 1500 or min(width, height) < 6 or max(width, height) > 500:
        return False
    if not scene.add(obj, 0.42):
        return False
    obj.set_detail(max(width, height))
    return True


def _add_buildings(scene: Scene, facade: float, colours: dict[str, str], rng: np.random.Generator) -> None:
    """Add the terminal's pier, with gaps, buildings at the edges of the field and a tower."""
    heading = scene.turn - math.pi / 2
    u = -scene.side * 0.75
    while u < scene.side * 0.75:
        size = (round(rng.uniform(120, 320) / 6) * 6.0, PIER_DEPTH, round(rng.uniform(11, 17), 1))
        x, y = scene.world(u + size[0] / 2, facade + PIER_DEPTH / 2)
        add_building(scene, "terminal", size, True, colours, x, y, heading)
        u += size[0] + rng.uniform(25, 90)
    for _ in range(14):
        kind = str(rng.choice(["hangar", "office", "hangar"]))
        length, depth, height = {"hangar": (72, 56, 20), "office": (54, 20, 17)}[kind]
        v = rng.uniform(scene.apron + 420, scene.apron + 1100)
        x, y = scene.world(rng.uniform(-1500, 1500), v)
        size = (length, depth, round(height * rng.uniform(0.8, 1.3)))
        add_building(scene, kind, size, False, draw_facade_colours(rng), x, y, heading)
    x, y = scene.world(rng.uniform(-500, 500), scene.apron + rng.uniform(-60, -20))
    add_building(scene, "tower", (16.0, 16.0, 55.0), True, colours, x, y, 0)


def _park_planes(
    scene: Scene, count: int, facade: float, spacing: float, shift: float, colours: dict[str, str],
    rng: np.random.Generator,
) -> int:  # fmt: skip
    """Park planes, all but a few of `count`, nose-in at both sides of the pier and in remote rows; return how many."""
    slots = []  # u, v, which side of v, heading, whether nose-in
    for i in np.arange(-scene.side * 0.8, scene.side * 0.8, spacing):
        u = i + shift
        slots.append((u, facade, -1, math.pi / 2, True))
        slots.append((u, facade + PIER_DEPTH, 1, -math.pi / 2, True))
        if abs(u) > 60:
            slots.append((u, facade - 165, 1, math.pi / 2 * rng.choice((-1, 1)), False))
        slots.append((u, facade + PIER_DEPTH + 160, 1, math.pi / 2, False))
    rng.shuffle(slots)
    max_parked = count - min(count, int(rng.integers(3, 7)))
    parked = 0
    for u, v, way, heading, nose_in in slots:
        if parked >= max_parked:
            break
        plane = draw_object("airplane", 0, rng)
        if plane.half[1] * 2 + 5 > spacing:
            if nose_in:
                scene.stands.append(Stand(*scene.world(u, v + way * 34), scene.turn + heading, 20.0, 18.0))
            continue
        plane.x, plane.y = scene.world(u, v + way * (plane.half[0] + NOSE_GAP if nose_in else 0))
        plane.heading = scene.turn + heading
        if _add_object(scene, plane):
            parked += 1
            scene.add_stand(plane)
            if nose_in:
                add_jet_bridge(scene, plane, NOSE_GAP, colours)
    return parked


def _add_trucks(scene: Scene, planes: list[SceneObject], count: int, facade: float, rng: np.random.Generator) -> None:
    """Add trucks at the planes, on the roads before the terminal and in depots."""
    road = facade - 80.0  # behind the tails of the first row
    rows = [(road, 0), (road - 5, math.pi), (facade + 130, 0), (facade + 135, math.pi)]
    depot_rows = (facade - 130, facade - 112, facade + 205, scene.apron - 40)
    depots = [(rng.uniform(-0.55, 0.55) * scene.side, v) for v in depot_rows]
    for _ in range(count * 60):
        if count <= 0:
            return
        truck = draw_object("truck", 1, rng)
        pick = rng.random()
        if pick < 0.45 and planes:
            _move_to_plane(truck, planes[rng.integers(len(planes))], rng)
        elif pick < 0.72:
            v, heading = rows[rng.integers(len(rows))]
            truck.x, truck.y = scene.world(rng.uniform(-0.9, 0.9) * scene.side, v)
            truck.heading = scene.turn + heading + rng.normal(0, 0.03)
        else:
            u, v = depots[rng.integers(len(depots))]
            column, row = rng.integers(12), rng.integers(2)
            truck.x, truck.y = scene.world(u + column * 5.0, v + row * 16)
            truck.heading = scene.turn + math.pi / 2 * (1 if row else -1) + rng.normal(0, 0.03)
        count -= _add_object(scene, truck)


def _move_to_plane(truck: SceneObject, plane: SceneObject, rng: np.random.Generator) -> None:
    """Move a truck to where it serves a parked plane."""
    spot = rng.integers(6)
    (a, b), d, half = plane.half, AIRFRAMES[plane.kind].diameter, truck.half[0]
    anywhere = (rng.uniform(-1, 1) * a, rng.choice((-1, 1)) * (b * 0.7 + 3))
    headings = (math.pi / 2, math.pi / 2, 0, math.pi, rng.uniform(0, 6.3), rng.integers(4) * math.pi / 2)
    positions = (
        (0.62 * a, -d / 2 - half - 1), (-0.55 * a, -d / 2 - half - 1), (-0.05 * a, -b - 5), (a + half + 1.5, 0),
        (0.55 * a, d / 2 + 7), anywhere,
    )  # fmt: skip
    truck.x, truck.y = plane.world(*positions[spot])
    truck.heading = plane.heading + headings[spot] + rng.normal(0, 0.08)
