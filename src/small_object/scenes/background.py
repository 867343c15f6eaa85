"""Renders the background of a scene: the sky, the horizon and the ground with its lines."""

import math
from functools import lru_cache

import cv2
import numpy as np

from small_object.scenes.scene import STRIP_WIDTH, Line, Scene, bgr

SIZE = 512  # texels of a texture
SLAB = 64  # texels of a slab of concrete
WOODS = 3000.0  # metres to the trees on the horizon
# Hills and trees: colour, height, roughness and distance in metres, texels per radian
HORIZON = (("#4f6656", 60.0, 90.0, 8000.0, 160.0), ("#2f4028", 12.0, 3.0, WOODS, 660.0))
PAINT = {"white": "#e8e8e4", "yellow": "#e6b41e"}


@lru_cache
def noise_texture(key: int, slope: float) -> np.ndarray:
    """Make tileable noise (512, 512), float32, with mean 0 and deviation 1; larger slopes are smoother."""
    rng = np.random.default_rng([77, key])
    f = np.hypot(np.fft.fftfreq(SIZE)[:, None], np.fft.rfftfreq(SIZE)[None]) * SIZE
    spectrum = np.fft.rfft2(rng.standard_normal((SIZE, SIZE))) / np.maximum(f, 1) ** slope
    spectrum[0, 0] = 0
    noise = np.fft.irfft2(spectrum, (SIZE, SIZE))
    return np.asarray(noise / noise.std(), np.float32)


@lru_cache
def slab_texture() -> np.ndarray:
    """Make the brightness of concrete slabs and their joints, (512, 512), float32, around 0."""
    rng, count = np.random.default_rng(79), SIZE // SLAB
    tones = np.kron(rng.normal(0, 3.5, (count, count)), np.ones((SLAB, SLAB)))
    tile = np.asarray(tones.astype(np.float32) + 3 * noise_texture(0, 0.7))
    tile[::SLAB] -= 30
    tile[:, ::SLAB] -= 30
    return tile


def sample(texture: np.ndarray, x: np.ndarray, y: np.ndarray, metres: float) -> np.ndarray:
    """Read a texture, `metres` wide, at float32 coordinates, bilinearly; it repeats itself."""
    x, y = x * np.float32(1 / metres), y * np.float32(1 / metres)
    columns, rows = (x - np.floor(x)) * SIZE, (y - np.floor(y)) * SIZE
    return np.asarray(cv2.remap(texture, columns, rows, cv2.INTER_LINEAR, borderMode=cv2.BORDER_WRAP))


def render_sky(scene: Scene, rng: np.random.Generator) -> np.ndarray:
    """Render the sky and the horizon, (rows, width, 3) uint8 BGR, down to the horizon."""
    camera, light = scene.camera, scene.light
    rows = np.arange(math.ceil(camera.horizon), dtype=np.float32)[:, None]
    angle = (camera.horizon - rows) / np.float32(camera.focal)
    bearing = (np.arange(camera.width, dtype=np.float32)[None] - camera.width / 2) / np.float32(camera.focal)
    # Clouds at a fixed height shrink towards the horizon
    far = 1 / (angle + 0.08)
    x, y = far * bearing + rng.uniform(0, 9), far + np.zeros_like(bearing) + rng.uniform(0, 9)
    cloud = sample(noise_texture(1, 1.6), x, y, 14.0)
    cover = np.clip((cloud + rng.uniform(-1.5, 0.3)) / 1.4, 0, 0.85) * np.clip(angle / 0.08, 0, 1)
    blue = (1 - np.exp(-4 * angle)) * (1 - cover)
    white = np.minimum(255 * (light.sun + light.ambient), 250) - light.haze
    colours = np.stack([light.haze, light.zenith - light.haze, white], 1).astype(np.float32)
    sky = cv2.transform(cv2.merge([np.ones_like(cover), blue, cover]), colours)
    for name, height, roughness, metres, detail in HORIZON:
        wave = noise_texture(3, 1.6 - detail / 800)[rng.integers(SIZE)]
        profile = np.interp((bearing[0] * detail + rng.uniform(0, SIZE)) % SIZE, np.arange(SIZE), wave)
        top = camera.horizon - camera.focal * (height + roughness * profile).clip(2) / metres
        shade = light.shade(bgr(name)[None], np.array([[0.0, 0.0, 1.0]]))[0]
        shade += (light.haze - shade) * light.veil(metres)
        sky += (shade - sky) * np.clip(rows - top + 0.5, 0, 1)[..., None]
    return np.asarray(cv2.convertScaleAbs(sky))


def render_ground(scene: Scene, shadows: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Render everything below the horizon, (rows, width, 3) uint8 BGR; `shadows` is uint8."""
    camera, light = scene.camera, scene.light
    depth, x, y = camera.ground()
    top = camera.height - len(depth)
    pixel = depth * depth / (camera.focal * camera.mount)  # metres that a row covers
    patches = 4 * sample(noise_texture(2, 1.5), x, y, 420.0)
    slabs = sample(slab_texture(), x, y, 60.0) * np.clip(1.2 - pixel, 0, 1)  # far joints are thinner than a pixel
    apron = _coverage(y, -1e6, scene.apron, pixel)
    far = int(np.count_nonzero(apron.min(1) < 1))  # rows that show more than the apron
    tar = np.zeros_like(x)
    for middle in scene.strips:
        low, high = middle - STRIP_WIDTH / 2, middle + STRIP_WIDTH / 2
        np.maximum(tar[:far], _coverage(y[:far], low, high, pixel[:far]), out=tar[:far])
    tar *= 1 - apron
    concrete = (np.float32(rng.uniform(130, 165)) + patches + slabs) * apron
    lawn = (1 + 0.02 * patches + 0.006 * slabs) * (1 - apron - tar)
    asphalt = (np.float32(rng.uniform(74, 92)) + patches) * tar
    full = light.ambient + light.sun * light.direction[2]
    albedo = np.stack([(0.97, 0.995, 1.0), bgr("#6a8048"), (1.0, 0.99, 0.98)], 1)
    ground = cv2.transform(cv2.merge([concrete, lawn, asphalt]), (albedo * full[:, None]).astype(np.float32))
    pixels = ground.reshape(-1, 3)
    for name, code in PAINT.items():
        mask = _paint_lines(scene, [line for line in scene.lines if line.colour == name])
        at = np.flatnonzero(mask[top:])
        pixels[at] += (bgr(code) * full - pixels[at]) * (mask[top:].ravel()[at] * (0.85 / 255))[:, None]
    at = np.flatnonzero(shadows[top:])
    pixels[at] *= 1 - (1 - 0.85 * light.ambient / full) * (shadows[top:].ravel()[at] / 255)[:, None]
    veil = light.veil(np.minimum(depth, WOODS))[..., None]
    ground *= 1 - veil
    ground += (light.haze * veil).astype(np.float32)
    return np.asarray(cv2.convertScaleAbs(ground))


def _coverage(y: np.ndarray, low: float, high: float, pixel: np.ndarray) -> np.ndarray:
    """Return the fraction of each pixel, `pixel` metres long, between two lines along x."""
    return np.asarray(np.clip(np.minimum(y - low, high - y) / pixel + 0.5, 0, 1))


def _paint_lines(scene: Scene, lines: list[Line]) -> np.ndarray:
    """Paint lines of one colour: coverage (height, width) uint8."""
    camera = scene.camera
    mask = np.zeros((camera.height, camera.width), np.uint8)
    for line in lines:
        start, end = np.array(line.start), np.array(line.end)
        length = float(np.hypot(*(end - start)))
        # Pieces are short enough to curve in a panorama and to end near the camera's plane
        count = math.ceil(min(200, length / 5))
        along = start + (end - start) * np.linspace(0, 1, count + 1)[:, None]
        side = np.array([start[1] - end[1], end[0] - start[0]]) * (line.width / 2 / length)
        pixels, depth = camera.project(np.pad(np.stack([along - side, along + side], 1), ((0, 0), (0, 0), (0, 1))))
        quads = np.concatenate([pixels[:-1], pixels[1:, ::-1]], 1)
        keep = np.minimum(depth[:-1], depth[1:]).min(1) > 2
        keep &= (quads.min(1) < (camera.width, camera.height)).all(1) & (quads.max(1) > 0).all(1)
        keep &= (np.ptp(quads, axis=1) < 3000).all(1)
        # A line thinner than a pixel covers only a part of the pixels that it touches
        a, b = quads[:, 3] - quads[:, 0], quads[:, 1] - quads[:, 0]
        thickness = np.abs(a[:, 0] * b[:, 1] - a[:, 1] * b[:, 0]) / np.maximum(np.hypot(a[:, 0], a[:, 1]), 0.3)
        shades = (np.minimum(1, thickness) * 255).astype(int).tolist()
        corners = np.round(quads * 16 - 8).astype(np.int32)
        for i in np.flatnonzero(keep):
            cv2.fillConvexPoly(mask, corners[i], shades[i], cv2.LINE_AA, 4)
    return mask
