"""Renders a scene: objects and their boxes, shadows, the background and the sensor's noise."""

from typing import NamedTuple

import cv2
import numpy as np

from small_object.scenes.background import render_ground, render_sky
from small_object.scenes.scene import NEAR, Scene, SceneObject, bgr

MIN_VISIBLE = 0.25  # of an object's own area; objects with less visible are removed from the scene
MIN_SIDE = 3.0  # pixels; narrower boxes can't be told from noise
NOISE = 3  # of the sensor, at most
SCALE = 2  # samples per pixel and side
COLOURS = {  # of materials without a colour scheme
    "cockpit": "#1a2129", "window": "#36424e", "metal": "#a7adb4", "wing": "#c6cbd0",
    "fan": "#22262b", "tyre": "#1d1e20", "rim": "#8d9298", "glass": "#1f2a33", "dark": "#33363a",
    "amber": "#ff9a1a", "reflect": "#eef0ee", "roof": "#8d9194", "gate": "#7f8a94",
}  # fmt: skip


class Patch(NamedTuple):
    """A single rendered object."""

    samples: np.ndarray  # (height, width, 4) uint8 BGRA, `SCALE` samples per pixel and side, 0 where nothing is
    x: int  # first column in pixels
    y: int

    def region(self, samples: np.ndarray) -> np.ndarray:
        """Return its part of the samples of the whole image."""
        (rows, columns), x, y = self.samples.shape[:2], self.x * SCALE, self.y * SCALE
        return samples[y : y + rows, x : x + columns]


def render_scene(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render a scene and remove objects that can hardly be seen from it.

    Returns:
        The image (height, width, 3) uint8 BGR, the boxes (N, 4) float32 xyxy in pixels and the classes (N,) int64.
    """
    patches, boxes, classes = draw_objects(scene)
    image = np.concatenate([render_sky(scene, rng), render_ground(scene, _shadows(scene), rng)])
    for patch in patches:
        height, width = (side // SCALE for side in patch.samples.shape[:2])
        bgra = cv2.resize(patch.samples, (width, height), interpolation=cv2.INTER_AREA)
        part = image[patch.y : patch.y + height, patch.x : patch.x + width]
        uncovered = cv2.merge([255 - bgra[..., 3]] * 3)
        part[:] = cv2.add(cv2.multiply(part, uncovered, scale=1 / 255), bgra[..., :3])
    noise = rng.integers(-NOISE, NOISE + 1, image.shape, np.int8)
    return cv2.add(image, noise, dtype=cv2.CV_8U), boxes, classes


def draw_objects(scene: Scene) -> tuple[list[Patch], np.ndarray, np.ndarray]:
    """Draw all objects, and remove those that can hardly be seen.

    Returns:
        The patches from far to near; then, in the order of the scene's objects, the boxes of their visible parts,
        (N, 4), float32, xyxy in pixels, and their classes (N,), int64.
    """
    scene.objects.sort(key=scene.depth_order)
    patches = [draw_patch(scene, obj) for obj in scene.objects]
    owner = np.zeros((scene.camera.height * SCALE, scene.camera.width * SCALE), np.int16)
    for number, patch in enumerate(patches, 1):
        patch.region(owner)[patch.samples[..., 3] > 0] = number
    boxes, classes, kept = [], [], []
    for number, (obj, patch) in enumerate(zip(scene.objects, patches, strict=True), 1):
        if obj.label >= 0:
            seen = (patch.region(owner) == number).astype(np.uint8)
            x, y, width, height = cv2.boundingRect(seen)
            area = cv2.countNonZero(patch.samples[..., 3])
            if cv2.countNonZero(seen) < MIN_VISIBLE * area or min(width, height) < MIN_SIDE * SCALE:
                continue
            left, top = patch.x * SCALE + x, patch.y * SCALE + y
            boxes.append((left, top, left + width, top + height))
            classes.append(obj.label)
        kept.append(obj)
    if len(kept) < len(patches):
        scene.objects = kept
        return draw_objects(scene)
    return patches, np.array(boxes, np.float32).reshape(-1, 4) / SCALE, np.array(classes, np.int64)


def draw_patch(scene: Scene, obj: SceneObject) -> Patch:
    """Draw a single object."""
    camera, model, light = scene.camera, obj.model, scene.light
    bounds = np.concatenate([np.floor(obj.box[:2]) - 1, np.ceil(obj.box[2:]) + 1])
    x0, y0, x1, y1 = np.clip(bounds, 0, [camera.width, camera.height] * 2).astype(int)
    samples = np.zeros(((y1 - y0) * SCALE, (x1 - x0) * SCALE, 4), np.uint8)
    rotation = obj.rotation()
    eye = rotation @ np.array([-obj.x, -obj.y, camera.mount])
    pixels = (camera.project(obj.vertices())[0] - (x0, y0)) * SCALE - 0.5  # samples have their middles at integers
    seen = model.visible_faces(eye, pixels)
    colours = COLOURS | obj.colours
    lit = light.shade(np.array([bgr(colours[model.materials[i]]) for i in seen]), model.normals[seen] @ rotation)
    lit += (light.haze - lit) * light.veil(obj.distance)
    bgra = np.insert(lit.clip(0, 255), 3, 255, axis=1).tolist()
    quads = np.round(pixels.clip(-20000, 20000) * 16).astype(np.int32)[model.faces[seen]]
    for quad, colour in zip(quads, bgra, strict=True):
        cv2.fillConvexPoly(samples, quad, colour, cv2.LINE_8, 4)
    return Patch(samples, x0, y0)


def _shadows(scene: Scene) -> np.ndarray:
    """Cast the objects' shadows on the ground: darkness (height, width) uint8."""
    camera, sun = scene.camera, scene.light.direction
    mask = np.zeros((camera.height, camera.width), np.uint8)
    for obj in scene.objects:
        v = obj.vertices()
        pixels, depth = camera.project(v - sun * (v[:, 2:] / sun[2]))
        pixels = np.round(pixels.clip(-20000, 20000) * 16 - 8).astype(np.int32)
        solids = zip(np.split(pixels, obj.model.starts[1:]), np.split(depth, obj.model.starts[1:]), strict=True)
        for outline, distances in solids:
            if distances.min() > NEAR and np.ptp(outline[:, 0]) < 3000 * 16:
                cv2.fillConvexPoly(mask, cv2.convexHull(outline), 255, cv2.LINE_8, 4)
    return np.asarray(cv2.blur(mask, (3, 3)))
