"""Renders a laid-out scene: the objects, their shadows and labels, the background and the exposure."""

from __future__ import annotations

from functools import lru_cache, partial
from typing import Any

import cv2
import numpy as np

from small_object.scenes.background import MAX_PIXELS, Ground, mix, render_ground, render_sky
from small_object.scenes.canvas import Canvas
from small_object.scenes.light import bgr
from small_object.scenes.markings import Markings
from small_object.scenes.mesh import quad_normals, reduce_corners
from small_object.scenes.scene import Scene, SceneObject

MIN_VISIBLE = 0.25  # of an object's own area; what shows less of itself is taken out of the scene
MIN_SIDE = 3.0  # pixels; narrower boxes can't be told from noise
COLOURS = {  # of what no colour scheme names
    "cockpit": "#1a2129", "window": "#2b333c", "window_strip": "#7d858e", "door": "#c9cdd2", "metal": "#a7adb4",
    "wing": "#b4bac0", "wing_edge": "#cdd2d6", "fan": "#22262b", "strut": "#8b9096", "tyre": "#1d1e20",
    "rim": "#8d9298", "prop": "#2e3236", "glass": "#1f2a33", "glass_light": "#5c7c8c", "chassis": "#33363a",
    "light": "#f3d9a0", "amber": "#ff9a1a", "skin": "#c98f6c", "shoe": "#191919", "reflect": "#e4e7e4",
    "concrete": "#a5a49d", "roof": "#8d9194", "steel": "#9ea4a8", "dark": "#3a3e43", "container": "#b8bec4",
    "cone": "#f0601c", "white": "#e8e8e4", "red": "#c22a22",
}  # fmt: skip


def paint_scene(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render a scene; objects that can hardly be seen are taken out of it.

    Returns:
        The image (height, width, 3) uint8 BGR, the boxes (N, 4) float32 xyxy in pixels and the classes (N,) int64.
    """
    canvas, boxes, classes = draw_objects(scene)
    image = np.empty((scene.camera.height, scene.camera.width, 3), np.uint8)
    sky = render_sky(scene, rng)
    image[: len(sky)] = sky
    ground, markings = Ground(scene, rng), Markings(scene, rng)
    render_ground(image, ground, markings.layers(), _shadows(scene))
    canvas.composite(image)
    return _expose(image, rng), boxes, classes


def draw_objects(scene: Scene, scale: int = 2) -> tuple[Canvas, np.ndarray, np.ndarray]:
    """Draw all objects with `scale` samples per pixel and side, taking out those that can hardly be seen.

    Returns:
        The canvas, the boxes (N, 4) float32 xyxy in pixels and the classes (N,) int64.
    """
    while True:
        canvas = Canvas(scene.camera, scale)
        drawn = [(obj, canvas.draw(obj.mesh, obj.vertices(), partial(_shade, scene, obj))) for obj in scene.objects]
        boxes, classes, hidden = [], [], []
        for obj, region in drawn:
            if obj.label < 0:
                continue
            box, count = canvas.visible(region)
            if not count or count < MIN_VISIBLE * region.samples or min(box[2:] - box[:2]) < MIN_SIDE:
                hidden.append(obj)
            boxes.append(box)
            classes.append(obj.label)
        if not hidden:
            return canvas, np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, np.int64)
        scene.objects = [obj for obj in scene.objects if all(obj is not other for other in hidden)]


def _shade(scene: Scene, obj: SceneObject, quads: np.ndarray, normal: np.ndarray, which: np.ndarray) -> np.ndarray:
    """Return the colours of some faces of an object, (N, 3) BGR, 0 to 255, seen through haze."""
    light, mesh = scene.light, obj.mesh
    colours = COLOURS | obj.colours
    albedo = np.array([bgr(colours[name]) for name in mesh.materials])[mesh.slots[which]]
    normal = normal / np.maximum(np.sqrt(np.einsum("ij,ij->i", normal, normal)), 1e-9)[:, None]
    toward = np.array([0, 0, scene.camera.mount], np.float32) - reduce_corners(np.add, quads) / 4
    distance = np.sqrt(np.einsum("ij,ij->i", toward, toward))[:, None]
    open_sky = 0.84 + 0.16 * normal[:, 2:]  # what faces the ground gets light from there only
    lit = albedo * (light.ambient * open_sky + light.sun * np.maximum(normal @ light.direction, 0)[:, None])
    half = toward / distance + light.direction
    along = np.einsum("ij,ij->i", normal, half) / np.sqrt(np.einsum("ij,ij->i", half, half))
    lit += (255 * mesh.gloss[which] * np.clip(along, 0, 1) ** 24)[:, None] * light.sun
    lit[mesh.glass[which]] += 0.16 * light.haze  # windows mirror the sky a little
    return mix(lit, light.haze, 1 - np.exp(-distance / light.visibility))


def _shadows(scene: Scene) -> np.ndarray:
    """Cast the objects' shadows on the ground: darkness (height, width) uint8."""
    cam, sun = scene.camera, scene.light.direction
    mask = np.zeros((cam.height, cam.width), np.uint8)
    for obj in scene.objects:
        v, solid = obj.vertices(), obj.mesh.solid
        pixels, depth = cam.project(v - sun * (v[:, 2:] / sun[2]))
        quads = pixels[solid[(quad_normals(v[solid]) @ sun > 0) & (reduce_corners(np.minimum, depth[solid]) > 2)]]
        x = quads[..., 0]
        quads = quads[reduce_corners(np.maximum, x) - reduce_corners(np.minimum, x) < 3000]
        for quad in np.round(quads.clip(-20000, 20000) * 16 - 8).astype(np.int32):
            cv2.fillConvexPoly(mask, quad, 255, cv2.LINE_8, 4)
    return cv2.GaussianBlur(mask, (0, 0), 3.0 if scene.light.shadow < 0.25 else 0.8)


@lru_cache(maxsize=1)
def _sensor_noise(rows: int = 128, columns: int = 8192) -> tuple[np.ndarray, np.ndarray]:
    """Make noise of deviation 1: brightness (rows, columns, 1) and colour (rows, columns, 3), float32."""
    rng = np.random.default_rng(78)
    brightness = rng.standard_normal((rows, columns, 1), dtype=np.float32)
    return brightness, rng.standard_normal((rows, columns, 3), dtype=np.float32)


def _expose(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add what a lens and a sensor add: a little blur, vignetting, a tone curve and noise."""
    height, width = image.shape[:2]
    image = cv2.GaussianBlur(image, (3, 3), rng.uniform(0.3, 0.62))
    y, x = np.linspace(-1, 1, height, dtype=np.float32)[:, None], np.linspace(-1, 1, width, dtype=np.float32)
    strength, edge = np.float32(rng.uniform(1.0, 1.16)), np.float32(rng.uniform(0.02, 0.1))
    down, across = strength * (1 - edge * y * y), np.repeat(strength * edge * x * x, 3)
    curve = (255 * np.linspace(0, 1, 256) ** rng.uniform(0.92, 1.08)).astype(np.float32)
    brightness, colour = _sensor_noise()
    rows, columns = brightness.shape[:2]
    start = int(rng.integers(columns - width - 512))
    part = slice(start, start + width + 512)
    noise = brightness[:, part] * np.float32(rng.uniform(1.2, 3.0)) + colour[:, part] * np.float32(
        rng.uniform(0.6, 1.8)
    )
    step = min(rows, max(8, MAX_PIXELS // width))
    for top in range(0, height, step):
        block: Any = cv2.LUT(image[top : top + step], curve)
        block *= (down[top : top + step] - across).reshape(block.shape)
        # Noise of a few rows, shifted anew for each further set of rows
        row, column = rng.integers(rows - step + 1), rng.integers(512)
        block += noise[row : row + len(block), column : column + width]
        image[top : top + step] = cv2.convertScaleAbs(np.maximum(block, 0))
    return image
