"""Renders the sky and the horizon of a scene."""

from __future__ import annotations

import math

import cv2
import numpy as np

from small_object.scenes.light import bgr
from small_object.scenes.noise import mix, noise_texture, ramp, sample
from small_object.scenes.scene import Scene

WOODS = 3000.0  # metres to the trees that close the view
WOODS_COLOUR = "#33452b"


def render_sky(scene: Scene, rng: np.random.Generator, max_pixels: int) -> np.ndarray:
    """Render the sky and what lies on the horizon, (rows, width, 3) uint8 BGR, `max_pixels` at a time."""
    cam, light = scene.camera, scene.light
    rows = int(min(cam.height, max(0, math.ceil(cam.horizon)))) + 1
    angle = np.maximum(cam.horizon - np.arange(rows, dtype=np.float32), 0)[:, None] / np.float32(cam.focal)
    bearing = (np.arange(cam.width, dtype=np.float32)[None] - cam.width / 2) / np.float32(cam.focal)
    # A layer of clouds at a fixed height, so that they shrink towards the horizon
    offset_x, offset_y = rng.uniform(0, 512, 2).astype(np.float32)
    level = 1.5 - 2.7 * light.clouds
    density = 0.92 if light.clouds < 0.85 else 0.8
    bright = np.minimum(light.haze * 0.35 + 255 * 0.65 * np.minimum(light.sun + light.ambient, 1.05), 252)
    dark = light.haze * 0.3 + light.zenith * 0.2 + bright * 0.34
    # Colours of four layers: haze, what the zenith adds, clouds, what their shade adds
    colours = np.stack([light.haze, light.zenith - light.haze, bright, dark - bright], 1).astype(np.float32)
    blue, fade, far = 1 - np.exp(-4.5 * angle), ramp(angle, 0.004, 0.06) * density, 26 / (angle + 0.055)
    east, north = np.sin(bearing), np.cos(bearing)
    sky = np.empty((rows, cam.width, 3), np.float32)
    step = max(8, max_pixels // cam.width)
    for top in range(0, rows, step):
        part = slice(top, top + step)
        x, y = far[part] * east + offset_x, far[part] * north + offset_y
        cloud = sample(noise_texture(2, 1.3), x, y, 3.1) * 0.35 + sample(noise_texture(1, 1.75), x, y, 1.0)
        cover = ramp(cloud, level, level + 0.9) * fade[part]
        shade = ramp(cloud, level + 0.3, level + 2.2) * cover
        clear = 1 - cover
        sky[part] = cv2.transform(cv2.merge([clear, clear * blue[part], cover, shade]), colours)
    # Hills and a line of trees
    hills = ((rng.uniform(0.008, 0.03), 9000, "#5d7460"), (rng.uniform(0.004, 0.012), 3800, "#4b6344"))
    profile = noise_texture(3, 1.6)
    for number, (height, metres, colour) in enumerate(hills, 1):
        wave = profile[rng.integers(512)]
        ridge = _interpolate(wave, (bearing[0] + rng.uniform(0, 9)) * 240 * number)
        top = cam.horizon - cam.focal * height * np.clip(0.55 + 0.5 * ridge, 0, 2)
        _fill_below(sky, top, light.ground_colour(bgr(colour), metres))
    wood, clump = (
        _interpolate(at=bearing[0] * n + rng.uniform(0, 512), row=texture[rng.integers(512), :512])
        for n, texture in ((3000, noise_texture(4, 0.9)), (130, profile))
    )
    trees = cam.focal * (9 + 2.2 * wood + 4 * clump).clip(2) / WOODS
    _fill_below(sky, cam.horizon - trees, light.ground_colour(bgr(WOODS_COLOUR), WOODS))
    return cv2.convertScaleAbs(sky)


def _interpolate(row: np.ndarray, at: np.ndarray) -> np.ndarray:
    """Read a row of a texture at float coordinates."""
    return np.interp(np.mod(at, 512), np.arange(len(row)), row)


def _fill_below(sky: np.ndarray, top: np.ndarray, colour: np.ndarray) -> None:
    """Fill each column of an image from a row (float, (width,)) down, in place."""
    first = max(0, math.floor(float(top.min())) - 1)
    rows = np.arange(first, len(sky), dtype=np.float32)[:, None]
    cover = np.clip(rows - top[None].astype(np.float32) + 0.5, 0, 1)[..., None]
    sky[first:] = mix(sky[first:], colour.astype(np.float32), cover)
