"""Lays out the view of a surface camera: objects where their boxes get the sizes that are asked for."""

from __future__ import annotations

import math

import numpy as np

from small_object.scenes.buildings import draw_facade_colours
from small_object.scenes.camera import Camera
from small_object.scenes.light import draw_light
from small_object.scenes.scene import Scene, SceneObject, Stand, Strip, draw_object
from small_object.scenes.scenery import add_building, add_cones_and_containers, add_equipment, add_jet_bridge
from small_object.sizes import COCO_LARGE, COCO_SMALL

# Of small, medium and large objects: the box areas aimed at and those accepted
TARGET_AREAS = ((110.0, 900.0), (1180.0, 8000.0), (10600.0, 75000.0))
ACCEPTED_AREAS = ((0, COCO_SMALL * 0.95), (COCO_SMALL * 1.08, COCO_LARGE * 0.92), (COCO_LARGE * 1.08, 3e5))
CATEGORY_AREAS = {"airplane": (0.0, math.inf), "truck": (0.0, 40000.0), "person": (130.0, 16000.0)}


def surface_scene(
    width: int, height: int, names: tuple[str, ...], wanted: list[tuple[str, int]], rng: np.random.Generator
) -> Scene:
    """Lay out a camera view.

    Args:
        width: Width of the image in pixels.
        height: Height of the image in pixels.
        names: The classes.
        wanted: The objects as (class name, size), size 0 small, 1 medium, 2 large.
        rng: Source of the random numbers.

    Returns:
        The best of some attempts: with all objects, if there is room.
    """
    light = draw_light(rng)
    close = any(n == "person" and s > 0 for n, s in wanted)
    order = sorted(wanted, key=lambda o: (o[0] != "airplane", -o[1], o[0] != "truck"))
    best: Scene | None = None
    for _ in range(12):
        mount = math.exp(rng.uniform(math.log(5.5), math.log(14 if close else 30)))
        focal = rng.uniform(900, 1900)
        horizon = (rng.uniform(0.08, 0.34) if rng.random() < 0.75 else rng.uniform(-0.2, 0.08)) * height
        camera = Camera(width, height, focal, mount, horizon)
        scene = Scene(camera, light, math.radians(rng.uniform(-24, 24)), rng.uniform(190, 420), 700.0)
        scene.lanes = [rng.uniform(0.4, 0.62) * scene.apron]
        if rng.random() < 0.5:
            scene.lanes.append(rng.uniform(0.06, 0.2) * scene.apron)
        if rng.random() < 0.75:
            v = scene.apron + rng.uniform(90, 260)
            scene.strips.append(Strip(v, v + 45, "runway"))
        for name, size in order:
            for attempt in range(70):
                obj = draw_object(name, names.index(name), rng)
                if attempt < 30 and name != "airplane":
                    moved = _move_to_host(scene, obj, rng)
                else:
                    moved = _move_to_size(scene, obj, size, rng)
                if moved and _add_object(scene, obj, size, rng):
                    break
        if best is None or len(scene.objects) > len(best.objects):
            best = scene
        if len(scene.objects) == len(wanted):
            break
    assert best is not None
    _add_surroundings(best, rng)
    return best


def _move_to_host(scene: Scene, obj: SceneObject, rng: np.random.Generator) -> bool:
    """Move a truck or person to an object that it could be busy with; return whether there is one in view."""
    worker = obj.category == "person"
    hosts = [t for t in scene.objects if worker or t.category != "person"]
    if not hosts:
        return False
    host = hosts[rng.integers(len(hosts))]
    a, b = host.half
    if host.category == "person":
        away, angle = rng.uniform(0.9, 4.0), rng.uniform(0, 2 * math.pi)
        dx, dy = away * math.cos(angle), away * math.sin(angle)
    elif worker:
        dx, dy = rng.uniform(-1.15, 1.15) * a, rng.choice((-1, 1)) * (rng.uniform(0.15, 1) * b + 1.5)
    else:
        dx, dy = rng.uniform(-1.3, 1.3) * a, rng.choice((-1, 1)) * (rng.uniform(0.2, 1.2) * b + 4)
    obj.x, obj.y = host.world(dx, dy)
    if worker:
        obj.heading = rng.uniform(0, 2 * math.pi)
    else:
        obj.heading = host.heading + rng.integers(4) * math.pi / 2 + rng.normal(0, 0.1)
    return obj.y > 3


def _move_to_size(scene: Scene, obj: SceneObject, size: int, rng: np.random.Generator) -> bool:
    """Move an object to where its box has an area in the range of `size`; return whether there is such a position."""
    limits = CATEGORY_AREAS[obj.category]
    low, high = max(TARGET_AREAS[size][0], limits[0]), min(TARGET_AREAS[size][1], limits[1])
    target = math.exp(rng.uniform(math.log(low), math.log(high)))
    obj.heading = scene.turn + rng.integers(4) * math.pi / 2
    if obj.category == "airplane":
        obj.heading += rng.normal(0, 0.03) if rng.random() < 0.8 else rng.uniform(-0.8, 0.8)
    elif obj.category == "person":
        obj.heading = rng.uniform(0, 2 * math.pi)
    else:
        obj.heading += rng.normal(0, 0.2)
    slope = rng.uniform(-0.42, 0.42) * scene.camera.width / scene.camera.focal
    distance = 90.0
    for _ in range(4):
        obj.y = distance / math.hypot(1, slope)
        obj.x = obj.y * slope
        box, _ = scene.project(obj)
        if box[2] <= box[0]:
            return False
        distance *= math.sqrt(float((box[2:] - box[:2]).prod()) / target)
        if not 6 < distance < 2600:
            return False
    return True


def _add_object(scene: Scene, obj: SceneObject, size: int, rng: np.random.Generator) -> bool:
    """Add an object where it stands if the surface, the neighbours and the size of its box allow it."""
    camera, is_plane = scene.camera, obj.category == "airplane"
    v = scene.grid(obj.x, obj.y)[1]
    if scene.apron - (obj.half[1] if is_plane else 4) < v < scene.apron:
        return False
    strip = None
    if v > scene.apron:
        strip = _find_strip(scene, obj, rng)
        if strip is None:
            return False
    box, _ = scene.project(obj)
    width, height = (box[2:] - box[:2]).tolist()
    low, high = ACCEPTED_AREAS[size]
    if width <= 0 or not low < width * height < high or min(width, height) < 5:
        return False
    clipped = np.clip(box, 0, (camera.width, camera.height) * 2)
    if (clipped != box).any():  # only large ones may be cut off, and not at their feet
        inside = float((clipped[2:] - clipped[:2]).clip(0).prod())
        if size < 2 or inside < 0.75 * width * height or box[3] - camera.height > 0.1 * height:
            return False
    if not scene.add(obj):
        return False
    if strip and strip not in scene.strips:
        scene.strips.append(strip)
    obj.set_detail(max(width, height))
    return True


def _find_strip(scene: Scene, obj: SceneObject, rng: np.random.Generator) -> Strip | None:
    """Return the strip that an object beyond the apron stands on, there or new; move a plane onto its centre line."""
    is_plane = obj.category == "airplane"
    kinds, room = (("taxiway", "runway"), 18.0) if is_plane else (("taxiway", "road"), 5.0)
    u, v = scene.grid(obj.x, obj.y)
    inside = next((s for s in scene.strips if s.low < v < s.high and s.kind in kinds), None)
    if obj.category == "person" and inside is None:
        return None
    if is_plane:
        if inside:
            obj.x, obj.y = scene.world(u, (inside.low + inside.high) / 2)
        obj.heading = scene.turn + (math.pi if rng.random() < 0.5 else 0) + rng.normal(0, 0.02)
    if inside:
        return inside
    if len(scene.strips) > 4 or v - room < scene.apron + 15 or _on_strip(scene, v, room + 12):
        return None
    kind = "road"
    if is_plane:
        kind = "runway" if rng.random() < 0.3 else "taxiway"
    return Strip(float(v - room), float(v + room), kind)


def _on_strip(scene: Scene, v: float, margin: float) -> bool:
    """Return whether a strip comes nearer to a line of the grid than `margin` metres."""
    return any(v + margin > s.low and v - margin < s.high for s in scene.strips)


def _add_surroundings(scene: Scene, rng: np.random.Generator) -> None:
    """Add terminals, hangars, a tower, poles, cones and empty stands around the objects, hiding none of them."""
    planes = [t for t in scene.objects if t.category == "airplane" and scene.grid(t.x, t.y)[1] < scene.apron]
    for plane in planes:
        scene.add_stand(plane)
    colours = draw_facade_colours(rng)
    _add_terminal(scene, planes, colours, rng)
    half_view = scene.camera.width / 2 / scene.camera.focal
    for _ in range(10):  # at the sides and the far end of the apron and beyond
        kind = str(rng.choice(["terminal", "hangar", "hangar", "office"]))
        length, depth, height = {"terminal": (160, 36, 14), "hangar": (66, 54, 19), "office": (48, 18, 15)}[kind]
        length *= rng.uniform(0.7, 1.3)
        height *= rng.uniform(0.8, 1.25)
        if rng.random() < 0.45:
            v = scene.apron + depth / 2 + 6
        else:
            v = rng.uniform(scene.apron + 260, scene.apron + 900)
        if _on_strip(scene, v, depth / 2 + 12):
            continue
        x, y = scene.world(scene.grid(0, v)[0] + rng.uniform(-1.1, 1.1) * half_view * v, v)
        size = (round(length / 6) * 6.0, round(depth), round(height))
        add_building(scene, kind, size, y < 350, draw_facade_colours(rng), x, y, scene.turn - math.pi / 2)
    if rng.random() < 0.6:
        y = rng.uniform(350, 1100)
        x = rng.uniform(-0.85, 0.85) * half_view * y
        if not _on_strip(scene, scene.grid(x, y)[1], 10):
            add_building(scene, "tower", (16.0, 16.0, 48.0), True, colours, x, y, 0)
    for _ in range(3):
        y = rng.uniform(0.6, 1.0) * scene.apron
        add_equipment(scene, "pole", rng.uniform(-1, 1) * half_view * y, y, rng.uniform(0, 6.3), 0.02)
    add_cones_and_containers(scene, planes, rng)
    _add_empty_stands(scene, planes, rng)
    for _ in range(rng.integers(1, 6)):
        y = rng.uniform(18, 140)
        x, heading = rng.uniform(-1, 1) * half_view * y, scene.turn + rng.integers(4) * math.pi / 2
        kind, gap = (("container", 2.9), ("container", 2.9), ("cone", 4.0), ("barrier", 0.0))[rng.integers(4)]
        c, s = math.cos(heading), math.sin(heading)
        for i in range(rng.integers(2, 7) if gap else 1):
            add_equipment(scene, kind, x + i * gap * c, y + i * gap * s, heading, 0.04)


def _add_terminal(scene: Scene, planes: list[SceneObject], colours: dict[str, str], rng: np.random.Generator) -> None:
    """Add a terminal before the nose of the first parked plane that has room for it, with a jet bridge."""
    for plane in planes:
        gap, depth, height = rng.uniform(9, 14), rng.uniform(28, 50), rng.uniform(11, 17)
        shift = rng.uniform(-0.35, 0.35)
        for length in (rng.uniform(150, 260), 110.0, 70.0):
            size = (round(length / 6) * 6.0, round(depth, 1), round(height, 1))
            x, y = plane.world(plane.half[0] + gap + depth / 2 + 2, -shift * length)
            if plane.kind != "business" and add_building(
                scene, "terminal", size, True, colours, x, y, plane.heading + math.pi
            ):
                add_jet_bridge(scene, plane, gap, colours)
                return


def _add_empty_stands(scene: Scene, planes: list[SceneObject], rng: np.random.Generator) -> None:
    """Mark empty stands, in line with the parked planes and in rows of their own."""
    spare = []
    for plane in planes[:2]:
        for i in (-2, -1, 1, 2):
            x, y = plane.world(0, i * (2 * plane.half[1] + 9))
            spare.append(Stand(x, y, plane.heading, *plane.half))
    for v in (rng.uniform(14, 60), rng.uniform(0.3, 0.85) * scene.apron):
        heading = scene.turn + rng.choice((-1, 1)) * math.pi / 2
        shift, half = rng.uniform(0, 40), rng.uniform(13, 19, 2)
        us = np.arange(-240, 240, 2 * half[1] + 9) + shift
        spare += [Stand(*scene.world(u, v), heading, *half) for u in us]
    for stand in spare:
        reach = max(stand[3:]) + 4
        clear = all(math.hypot(stand.x - p.x, stand.y - p.y) > max(p[3:]) + reach for p in scene.stands)
        v = scene.grid(stand.x, stand.y)[1]
        if clear and all(abs(v - lane) > stand.half_length + 8 for lane in scene.lanes):
            scene.stands.append(stand)
