"""Lays out scenes: surface views with objects of given sizes, and panoramas with rows of stands."""

import math

import numpy as np

from small_object.scenes.models import PIER_DEPTH, PIER_LENGTH, WALLS
from small_object.scenes.scene import Camera, Scene, SceneObject, draw_light, draw_object
from small_object.sizes import COCO_LARGE, COCO_SMALL

# Target and accepted box areas of small, medium and large objects
TARGET_AREAS = ((130.0, 900.0), (1180.0, 8000.0), (10600.0, 70000.0))
ACCEPTED_AREAS = ((0, COCO_SMALL * 0.95), (COCO_SMALL * 1.08, COCO_LARGE * 0.92), (COCO_LARGE * 1.08, 3e5))
MIN_SIDE = 5.0  # pixels
MAX_DISTANCE = 2500.0  # metres
STAND_WIDTH = 56.0


def surface_scene(
    width: int, height: int, names: tuple[str, ...], wanted: list[tuple[str, int]], rng: np.random.Generator
) -> Scene:
    """Lay out a camera view with the wanted objects (class name, size): 0 small, 1 medium, 2 large."""
    largest_person = max((size for name, size in wanted if name == "person"), default=0)
    mounts = ((6, 22), (5, 9), (3.5, 5))[largest_person]  # metres; people look larger to a low camera
    scenes = []
    for _ in range(12):
        horizon, yaw = rng.uniform(0.14, 0.36) * height, math.radians(rng.uniform(-24, 24))
        camera = Camera(width, height, rng.uniform(1000, 1800), rng.uniform(*mounts), horizon, yaw)
        scene = Scene(camera, draw_light(rng), rng.uniform(190, 420))
        _add_airfield(scene, rng)
        num_placed = 0
        for name, size in sorted(wanted, key=lambda o: (o[0] != "airplane", -o[1], o[0] != "truck")):
            for _ in range(60):
                obj = draw_object(name, names.index(name), rng)
                if _move_to_size(scene, obj, size, rng) and _add_to_view(scene, obj, ACCEPTED_AREAS[size]):
                    num_placed += 1
                    break
        scenes.append((num_placed, scene))
        if num_placed == len(wanted):
            break
    return max(scenes, key=lambda item: item[0])[1]


def _add_airfield(scene: Scene, rng: np.random.Generator) -> None:
    """Add lines on the apron, sparser and sparser taxiways beyond it, and buildings along a part of its end."""
    for share in (0.25, 0.62):
        scene.add_line(scene.apron * share, 0.45)
    for offset in (11, 23):  # a road
        scene.add_line(scene.apron - offset, 0.3, "white")
    y = scene.apron + 120
    while y < MAX_DISTANCE:
        scene.add_strip(y)
        y *= 1.25
    scene.terminal = scene.apron + 40
    kind, step = ("terminal", PIER_LENGTH) if rng.random() < 0.6 else ("hangar", 75.0)
    side, wall = rng.choice((-1, 1)), str(rng.choice(WALLS))
    first = scene.terminal * (math.tan(scene.camera.yaw) + side * rng.uniform(0, 0.3))
    for i in range(rng.integers(2, 7)):
        scene.add_building(kind, wall, first + side * i * step, scene.terminal)


def _move_to_size(scene: Scene, obj: SceneObject, size: int, rng: np.random.Generator) -> bool:
    """Move an object so that the area of its box is in the range of `size`; return whether that is possible."""
    target = math.exp(rng.uniform(*np.log(TARGET_AREAS[size])))
    obj.heading = rng.uniform(0, 2 * math.pi)
    if obj.category != "person":  # seen from the side or at an angle
        obj.heading = math.pi * rng.integers(2) + rng.uniform(-0.9, 0.9)
    column, depth = rng.uniform(0.03, 0.97) * scene.camera.width, 90.0
    for _ in range(4):
        obj.x, obj.y = scene.camera.locate(column, depth)
        if not scene.locate(obj):
            return False
        depth *= math.sqrt(float((obj.box[2:] - obj.box[:2]).prod()) / target)
        if not 6 < depth < MAX_DISTANCE:
            return False
    if obj.y > scene.apron - 5:  # beyond the apron only on a taxiway
        obj.y = min(scene.strips, key=lambda y: abs(y - obj.y))
        obj.heading = math.pi * rng.integers(2) + rng.uniform(-0.05, 0.05)
    return True


def _add_to_view(scene: Scene, obj: SceneObject, areas: tuple[float, float]) -> bool:
    """Add an object at its position if it is wholly in view, has an area in a range and is clear of others."""
    if not scene.locate(obj):
        return False
    (x0, y0, x1, y1), camera = obj.box.tolist(), scene.camera
    inside = min(x0, y0) > 0 and x1 < camera.width and y1 < camera.height
    large_enough = min(x1 - x0, y1 - y0) > MIN_SIDE and areas[0] < (x1 - x0) * (y1 - y0) < areas[1]
    return inside and large_enough and scene.add(obj)


def panorama_scene(width: int, height: int, counts: dict[str, int], rng: np.random.Generator) -> Scene:
    """Lay out a panorama with `counts` of objects by class; objects without room are left out."""
    focal = width / math.radians(rng.uniform(140, 172))
    horizon, yaw = rng.uniform(0.27, 0.38) * height, math.radians(rng.uniform(-7, 7))
    camera = Camera(width, height, focal, rng.uniform(32, 58), horizon, yaw, panorama=True)
    scene = Scene(camera, draw_light(rng), rng.uniform(450, 520), rng.uniform(235, 285))
    reach, terminal = rng.uniform(620, 900), scene.terminal
    for offset in (70, 250):
        scene.add_strip(scene.apron + rng.uniform(0.9, 1.2) * offset)
    lanes, roads = (terminal - 150, terminal + 150), (terminal - 98, terminal + 94)  # roads are behind the tails
    for lane, road in zip(lanes, roads, strict=True):
        scene.add_line(lane, 0.5)
        scene.add_line(road - 6, 0.3, "white")
        scene.add_line(road + 6, 0.3, "white")
    for i, x in enumerate(np.arange(-reach, reach, PIER_LENGTH)):  # a pier with gaps
        if i % 8:
            scene.add_building("terminal", WALLS[0], float(x), terminal)
    for _ in range(10):
        scene.add_building(
            "hangar", str(rng.choice(WALLS)), rng.uniform(-1500, 1500), terminal + rng.uniform(650, 1100)
        )
    _add_planes(scene, counts["airplane"], reach, (*lanes, *scene.strips), rng)
    _add_trucks(scene, counts["truck"], reach, roads, rng)
    return scene


def _add_planes(scene: Scene, count: int, reach: float, lanes: tuple[float, ...], rng: np.random.Generator) -> None:
    """Park planes nose-in on both sides of the pier and in remote rows; a few taxi."""
    rows = [(side, gap) for side in (-1, 1) for gap in (PIER_DEPTH / 2 + 10, 165.0)]
    for _ in range(1500):
        if count == 0:
            return
        plane = draw_object("airplane", 0, rng)
        if rng.random() < 0.06:
            plane.x, plane.y = rng.uniform(-1.4, 1.4) * reach, lanes[rng.integers(len(lanes))]
            plane.heading = math.pi * rng.integers(2)
        else:
            side, gap = rows[rng.integers(4)]
            plane.x = STAND_WIDTH * round(rng.uniform(-reach, reach) / STAND_WIDTH)
            plane.y = scene.terminal + side * (gap + plane.model.half_size[0])
            plane.heading = -side * math.pi / 2
        count -= _add_to_view(scene, plane, (0, 1e5))


def _add_trucks(scene: Scene, count: int, reach: float, roads: tuple[float, float], rng: np.random.Generator) -> None:
    """Add trucks around the planes and on the roads."""
    planes = [obj for obj in scene.objects if obj.category == "airplane" and obj.y < scene.apron]
    for _ in range(count * 60):
        if count == 0:
            return
        truck = draw_object("truck", 1, rng)
        if rng.random() < 0.6:
            plane = planes[rng.integers(len(planes))]
            (a, b), side = plane.model.half_size, rng.choice((-1, 1))
            along = (rng.uniform(-1, 1) * a, side * (b + rng.uniform(4, 9)))
            ahead = (side * (a + rng.uniform(6, 10)), rng.uniform(-1, 1) * b)
            truck.x, truck.y = plane.world(*(along if rng.random() < 0.6 else ahead))
            truck.heading = rng.uniform(0, 2 * math.pi)
        else:
            lane = int(rng.integers(2))
            truck.x, truck.y = rng.uniform(-1, 1) * reach, roads[rng.integers(2)] + (3, -3)[lane]
            truck.heading = math.pi * lane
        count -= _add_to_view(scene, truck, (0, 1e5))
