"""Renders a scene: objects and their boxes, shadows, the background and the sensor's noise."""

from __future__ import annotations

from functools import lru_cache
from typing import NamedTuple

import cv2
import numpy as np

from small_object.scenes.background import render_ground, render_sky
from small_object.scenes.light import bgr
from small_object.scenes.scene import NEAR, Scene, SceneObject

MIN_VISIBLE = 0.25  # of an object's own area; what shows less of itself is taken out of the scene
MIN_SIDE = 3.0  # pixels; narrower boxes can't be told from noise
NOISE = 2.2  # deviation, of 255
COLOURS = {  # of what no colour scheme names
    "cockpit": "#1a2129", "window": "#36424e", "door": "#c3c8cd", "metal": "#a7adb4", "wing": "#c6cbd0",
    "fan": "#22262b", "tyre": "#1d1e20", "rim": "#8d9298", "glass": "#1f2a33", "dark": "#33363a", "light": "#f3e3b0",
    "amber": "#ff9a1a", "reflect": "#eef0ee", "roof": "#8d9194", "gate": "#7f8a94",
}  # fmt: skip


class Patch(NamedTuple):
    """One object by itself."""

    samples: np.ndarray  # (height, width, 4) uint8 BGRA, `scale` samples per pixel and side, 0 where nothing is
    x: int  # of the first column, in pixels
    y: int
    area: float  # number of samples that it covers, those out of the image included


def render_scene(scene: Scene, rng: np.random.Generator) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Render a scene; objects that can hardly be seen are taken out of it.

    Returns:
        The image (height, width, 3) uint8 BGR, the boxes (N, 4) float32 xyxy in pixels and the classes (N,) int64.
    """
    patches, boxes, classes = draw_objects(scene)
    image = np.concatenate([render_sky(scene, rng), render_ground(scene, _shadows(scene), rng)])
    for samples, x, y, _ in patches:
        if not samples.size:
            continue
        height, width = samples.shape[0] // 2, samples.shape[1] // 2
        patch = cv2.resize(samples, (width, height), interpolation=cv2.INTER_AREA)
        part = image[y : y + height, x : x + width]
        uncovered = cv2.merge([255 - patch[..., 3]] * 3)
        part[:] = cv2.add(cv2.multiply(part, uncovered, scale=1 / 255), patch[..., :3])
    return _add_noise(image, rng), boxes, classes


def draw_objects(scene: Scene, scale: int = 2) -> tuple[list[Patch], np.ndarray, np.ndarray]:
    """Draw all objects with `scale` samples per pixel and side, taking out those that can hardly be seen.

    Returns:
        The patches from far to near, and in the order of the scene's objects the boxes (N, 4) float32 xyxy in pixels
        of what is visible of each, and the classes (N,) int64.
    """
    camera = scene.camera
    scene.objects.sort(key=scene.depth_order)
    pairs = [(obj, draw_patch(scene, obj, scale)) for obj in scene.objects]
    while True:
        owner = np.zeros((camera.height * scale, camera.width * scale), np.int16)
        for number, (_, patch) in enumerate(pairs, 1):
            part = _region(owner, patch, scale)
            part[patch.samples[..., 3] > 0] = number
        boxes, classes, kept = [], [], []
        for number, (obj, patch) in enumerate(pairs, 1):
            if obj.label >= 0:
                seen = (_region(owner, patch, scale) == number).astype(np.uint8)
                x, y, width, height = cv2.boundingRect(seen)
                sides = width / scale, height / scale
                if cv2.countNonZero(seen) < MIN_VISIBLE * patch.area or min(sides) < MIN_SIDE:
                    continue
                left, top = patch.x + x / scale, patch.y + y / scale
                boxes.append((left, top, left + sides[0], top + sides[1]))
                classes.append(obj.label)
            kept.append((obj, patch))
        if len(kept) == len(pairs):
            scene.objects = [obj for obj, _ in pairs]
            return [patch for _, patch in pairs], np.array(boxes, np.float32).reshape(-1, 4), np.array(classes, int)
        pairs = kept


def _region(owner: np.ndarray, patch: Patch, scale: int) -> np.ndarray:
    """Return the part of a map of the image's samples that a patch lies on."""
    (rows, columns), x, y = patch.samples.shape[:2], patch.x * scale, patch.y * scale
    return owner[y : y + rows, x : x + columns]


def draw_patch(scene: Scene, obj: SceneObject, scale: int) -> Patch:
    """Draw one object by itself."""
    camera, model, light = scene.camera, obj.model, scene.light
    bounds = np.floor(obj.box) + (-1, -1, 2, 2)
    x0, y0, x1, y1 = np.clip(bounds, 0, [camera.width, camera.height] * 2).astype(int)
    samples = np.zeros(((y1 - y0) * scale, (x1 - x0) * scale, 4), np.uint8)
    rotation = obj.rotation()
    eye = rotation @ np.array([-obj.x, -obj.y, camera.mount], np.float32)
    pixels = (camera.project(obj.vertices())[0] - (x0, y0)) * scale - 0.5  # the middle of a sample has whole numbers
    seen = model.visible_faces(eye, pixels)
    colours = COLOURS | obj.colours
    lit = light.shade(np.array([bgr(colours[model.materials[i]]) for i in seen]), model.normals[seen] @ rotation)
    lit += (light.haze - lit) * light.veil(obj.distance)
    bgra = np.insert(lit.clip(0, 255), 3, 255, axis=1).tolist()
    quads = np.round(pixels.clip(-20000, 20000) * 16).astype(np.int32)[model.faces[seen]]
    if samples.size:
        for quad, colour in zip(quads, bgra, strict=True):
            cv2.fillConvexPoly(samples, quad, colour, cv2.LINE_8, 4)
    whole = (obj.box[2:] - obj.box[:2]).prod() / max(1.0, (obj.box[2:].clip(0, (x1, y1)) - obj.box[:2].clip(0)).prod())
    return Patch(samples, x0, y0, np.count_nonzero(samples[..., 3]) * float(whole))


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
    return cv2.blur(mask, (3, 3))


@lru_cache(maxsize=1)
def _sensor_noise() -> np.ndarray:
    """Make noise (1200, 4400, 3) int8."""
    noise = np.random.default_rng(78).standard_normal((1200, 4400, 3), dtype=np.float32)
    return np.asarray(np.round(noise * NOISE).astype(np.int8))


def _add_noise(image: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Add a part of the sensor's noise to an image."""
    noise, (height, width) = _sensor_noise(), image.shape[:2]
    y, x = rng.integers(len(noise) - height), rng.integers(noise.shape[1] - width)
    return np.asarray(cv2.add(image, noise[y : y + height, x : x + width], dtype=cv2.CV_8U))
