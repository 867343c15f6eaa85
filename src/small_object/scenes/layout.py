"""Lays out scenes: surface views with objects at the sizes that are asked for, and panoramas with rows of stands."""

from __future__ import annotations

import math

import numpy as np

from small_object.scenes.aircraft import AIRFRAMES
from small_object.scenes.buildings import build_building, build_equipment, build_jet_bridge, draw_facade_colours
from small_object.scenes.camera import Camera
from small_object.scenes.light import draw_light
from small_object.scenes.mesh import Mesh
from small_object.scenes.scene import Footprint, Scene, SceneObject, Stand, Strip, draw_object
from small_object.sizes import COCO_LARGE, COCO_SMALL

# Of small, medium and large objects: the box areas aimed at and those accepted
TARGET_AREAS = ((110.0, 900.0), (1180.0, 8000.0), (10600.0, 75000.0))
ACCEPTED_AREAS = ((0, COCO_SMALL * 0.95), (COCO_SMALL * 1.08, COCO_LARGE * 0.92), (COCO_LARGE * 1.08, 3e5))
CATEGORY_AREAS = {"airplane": (0.0, math.inf), "truck": (0.0, 40000.0), "person": (130.0, 16000.0)}
PIER_DEPTH = 40.0  # metres
NOSE_GAP = 11.0  # metres between a parked plane and the pier


def surface_scene(
    width: int, height: int, names: tuple[str, ...], wanted: list[tuple[str, int]], rng: np.random.Generator
) -> Scene:
    """Lay out a camera view with the wanted objects (class name, size): 0 small, 1 medium, 2 large."""
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
                if moved and _add_to_view(scene, obj, size, rng):
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


def _add_to_view(scene: Scene, obj: SceneObject, size: int, rng: np.random.Generator) -> bool:
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
        length, depth, height = {"terminal": (160.0, 36, 14.0), "hangar": (66.0, 54, 19.0), "office": (48.0, 18, 15.0)}[
            kind
        ]
        width, height = length * rng.uniform(0.7, 1.3), height * rng.uniform(0.8, 1.25)
        at_apron = rng.random() < 0.45
        v = scene.apron + depth / 2 + 6 if at_apron else rng.uniform(scene.apron + 260, scene.apron + 900)
        if _on_strip(scene, v, depth / 2 + 12):
            continue
        x, y = scene.world(scene.grid(0, v)[0] + rng.uniform(-1.1, 1.1) * half_view * v, v)
        size = (round(width / 6) * 6.0, depth, round(height))
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


def panorama_scene(width: int, height: int, counts: dict[str, int], rng: np.random.Generator) -> Scene:
    """Lay out a panorama with so many objects of each class; some are left out where there is no room."""
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
    _add_panorama_buildings(scene, facade, colours, rng)
    num_left = counts["airplane"] - _park_planes(scene, counts["airplane"], facade, spacing, shift, colours, rng)
    lines = scene.lanes + [(s.low + s.high) / 2 for s in scene.strips]
    for _ in range(600):  # taxiing planes
        if num_left <= 0:
            break
        plane = draw_object("airplane", 0, rng)
        v = lines[rng.integers(len(lines))]
        plane.x, plane.y = scene.world(rng.uniform(-1.1, 1.1) * (scene.side + v), v)
        plane.heading = scene.turn + (0 if rng.random() < 0.5 else math.pi) + rng.normal(0, 0.015)
        num_left -= _add_to_panorama(scene, plane)
    planes = [t for t in scene.objects if t.category == "airplane"]
    _add_panorama_trucks(scene, planes, counts["truck"], facade, rng)
    near = [p for p in planes if math.hypot(p.x, p.y) < 330]
    add_cones_and_containers(scene, near[:8], rng)
    for u in np.arange(-scene.side, scene.side, 110):
        add_equipment(scene, "pole", *scene.world(u + 20, facade - 6), scene.turn, 0.05)
    return scene


def _add_to_panorama(scene: Scene, obj: SceneObject) -> bool:
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


def _add_panorama_buildings(scene: Scene, facade: float, colours: dict[str, str], rng: np.random.Generator) -> None:
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
        if _add_to_panorama(scene, plane):
            parked += 1
            scene.add_stand(plane)
            if nose_in:
                add_jet_bridge(scene, plane, NOSE_GAP, colours)
    return parked


def _add_panorama_trucks(
    scene: Scene, planes: list[SceneObject], count: int, facade: float, rng: np.random.Generator
) -> None:
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
        count -= _add_to_panorama(scene, truck)


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
